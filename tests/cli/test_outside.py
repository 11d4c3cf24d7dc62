"""A package unknown to vaelab, with an annealing schedule, in runs, sweeps and searches."""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from vaelab.runs.status import read_status

from ..conftest import CLI, TINY_XRAY

STEP = '''
from dataclasses import dataclass


@dataclass
class Step:
    """Beta is 0 before an epoch, and its target from then on."""

    kl_beta: float
    ramp_epochs: int

    @property
    def target(self):
        return self.kl_beta

    def __call__(self, epoch):
        return self.kl_beta if epoch >= self.ramp_epochs else 0.0
'''
CONFIG = """
# All at once: annealing=step
_target_: outsiders.step.Step
kl_beta: ${train.kl_beta}
ramp_epochs: ${train.kl_annealing_epochs}
"""
ONCE = (*TINY_XRAY, "train.max_epochs=1", "train.kl_annealing_epochs=0", "~task.then")


@pytest.fixture
def configs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The config folder of the package, which is found as if it were installed."""
    home = tmp_path / "its home (1)"
    package = home / "outsiders"
    (package / "conf" / "annealing").mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "conf" / "__init__.py").touch()
    (package / "step.py").write_text(STEP)
    (package / "conf" / "annealing" / "step.yaml").write_text(CONFIG)
    monkeypatch.syspath_prepend(home)
    monkeypatch.setenv("PYTHONPATH", str(home), prepend=os.pathsep)
    monkeypatch.setenv("VAELAB_ALLOWED_TARGETS", "outsiders")
    yield package / "conf"
    for name in [name for name in sys.modules if name.partition(".")[0] == "outsiders"]:
        del sys.modules[name]


def remembered(run: Path) -> list[str]:
    config = OmegaConf.load(run / "config_resolved.yaml")
    assert config.annealing._target_ == "outsiders.step.Step"
    return list(config.config_dirs)


@pytest.mark.parametrize("by", ["--config-dir x", "--config-dir=x", "-cd x", "hydra.searchpath"])
def test_its_configs_are_found_and_saved_with_the_run(
    by: str, configs: Path, cli: CLI, phantoms: str, tmp_path: Path
) -> None:
    named = {
        "--config-dir x": ["--config-dir", os.path.relpath(configs)],
        "--config-dir=x": [f"--config-dir={configs}"],
        "-cd x": ["-cd", str(configs)],
        "hydra.searchpath": [f"hydra.searchpath=['file://{configs}']"],
    }[by]
    checked = ("task=check_data", "annealing=step", *TINY_XRAY[1:6], "run_dir=run")
    assert cli(*named, "model=conv2d_vae", *checked, phantoms) == 0
    assert remembered(tmp_path / "run") == [str(configs)]


def test_a_package_is_a_place_of_configs_too(
    configs: Path, cli: CLI, phantoms: str, tmp_path: Path
) -> None:
    assert cli("hydra.searchpath=[pkg://outsiders.conf]", *ONCE, "annealing=step", phantoms,
                "run_dir=run") == 0  # fmt: skip
    assert remembered(tmp_path / "run") == ["pkg://outsiders.conf"]
    assert cli("resume=run", "train.max_epochs=2") == 0


def test_a_run_is_resumed_and_evaluated_without_naming_the_package_again(
    configs: Path, cli: CLI, phantoms: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    workers = ("dataset.num_workers=1",)
    start = ("--config-dir", str(configs), *ONCE, *workers, "annealing=step", phantoms)
    assert cli(*start, "run_dir=run") == 0
    assert cli("resume=run", "train.max_epochs=2") == 0
    assert cli("task=evaluate", "run_dir=run") == 0
    assert remembered(tmp_path / "run") == [str(configs)]
    assert (tmp_path / "run" / "metrics.json").is_file()

    # After the configs have moved, their new folder has to be named.
    moved = tmp_path / "moved"
    shutil.move(configs, moved)
    for arguments in (["resume=run"], ["task=evaluate", "run_dir=run"]):
        capfd.readouterr()
        assert cli(*arguments) == 1
        shown = capfd.readouterr().err
        assert re.search(rf"run: its options came from {re.escape(str(configs))}, which", shown)
        assert "--config-dir" in shown
        assert "Traceback" not in shown
    assert cli("resume=run", "train.max_epochs=3", "--config-dir", str(moved)) == 0
    assert remembered(tmp_path / "run") == [str(moved)]


def test_a_missing_folder_is_an_error_of_one_sentence(
    cli: CLI, capfd: pytest.CaptureFixture[str]
) -> None:
    for more in ([], ["--help"]):
        assert cli("--config-dir", "nowhere", "annealing=step", *more) == 1
        shown = capfd.readouterr().err
        assert shown == "vaelab: --config-dir nowhere: there is no such folder of config files"


def test_help_lists_its_options_and_their_keys(
    configs: Path, cli: CLI, capfd: pytest.CaptureFixture[str]
) -> None:
    assert cli("--help", "--config-dir", str(configs), "annealing=step") == 0
    shown = capfd.readouterr().out
    assert "  annealing: constant, cyclical, linear, step\n" in shown
    assert "  annealing:  # annealing=step\n    kl_beta: ${train.kl_beta}\n" in shown


@pytest.mark.slow
@pytest.mark.parametrize("launcher", [[], ["hydra/launcher=joblib"]])
def test_it_is_swept(
    launcher: list[str], configs: Path, cli: CLI, phantoms: str, tmp_path: Path
) -> None:
    sweep = ("-m", *launcher, "--config-dir", str(configs), "annealing=linear,step")
    assert cli(*sweep, *ONCE, phantoms, "hydra.sweep.dir=sweep") == 0
    assert remembered(tmp_path / "sweep" / "annealing=step") == [str(configs)]
    # A job is resumed like any other run.
    assert cli("resume=sweep/annealing=step", "train.max_epochs=2") == 0


@pytest.mark.slow
def test_other_seeds_are_trained_with_it(
    configs: Path, cli: CLI, phantoms: str, tmp_path: Path
) -> None:
    assert cli("--config-dir", str(configs), *ONCE, "annealing=step", phantoms, "run_dir=run") == 0
    cli("task=stability", "run_dir=run", "task.seeds=[1]")  # too few patients for its verdict
    assert remembered(tmp_path / "run" / "seeds" / "seed_1") == [str(configs)]
    status = read_status(tmp_path / "run" / "seeds" / "seed_1")
    assert status is not None
    assert status.state == "done"


@pytest.mark.slow
def test_trials_of_a_search_are_trained_with_it(
    configs: Path, cli: CLI, phantoms: str, tmp_path: Path
) -> None:
    fixed = dict(item.split("=", 1) for item in (*ONCE, phantoms) if not item.startswith("~"))
    written = ",".join(f"{key}: {value}" for key, value in {**fixed, "annealing": "step"}.items())
    search = [
        "--config-dir", str(configs), "task=search", "task.trials=1", "run_dir=search",
        "task.space={train.lr: [1e-3]}", f"task.overrides={{{written}}}",
    ]  # fmt: skip
    assert cli(*search) == 0, (tmp_path / "search" / "trial_0" / "console.log").read_text()
    assert remembered(tmp_path / "search" / "trial_0") == [str(configs)]
