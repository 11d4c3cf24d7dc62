"""The package from outside beside an installed vaelab, in worker processes and after an end."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from vaelab.runs.history import read_history

from ..conftest import CLI
from .conftest import COHORT, CONFIG_DIR, HERE, Lab

SMALL = ("model.base_filters=4", "model.z_dim=8")


@pytest.mark.launcher
def test_an_installed_wheel_takes_the_package_as_a_clone_does(
    phantoms: str, tmp_path: Path
) -> None:
    root = HERE.parents[1]
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(build, cwd=root, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "site")
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([str(tmp_path / "site"), str(HERE)]),
        "VAELAB_ALLOWED_TARGETS": "growthlab",
    }

    def vaelab(*arguments: str) -> str:
        ended = subprocess.run(
            [sys.executable, "-m", "vaelab.run", *arguments],
            cwd=tmp_path, env=environment, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert ended.returncode == 0, ended.stdout + ended.stderr
        return ended.stdout

    one = (*CONFIG_DIR, *COHORT, phantoms, *SMALL, "objective=semi_supervised", "run_dir=run")
    vaelab(*one, "train.max_epochs=1", "~task.then", "dataset.num_workers=1")
    # From its own config, which remembers where the package's configs are.
    vaelab("resume=run", "train.max_epochs=2", "~task.then", "dataset.num_workers=1")
    vaelab("task=evaluate", "run_dir=run")
    assert read_history(tmp_path / "run" / "logs" / "metrics.csv")["epoch"] == [0, 1]
    where = [sys.executable, "-c", "import vaelab; print(vaelab.__file__)"]
    found = subprocess.run(where, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert str(tmp_path / "site") in found.stdout


@pytest.mark.slow
def test_several_loggers_and_callbacks_are_found_again(
    lab: Lab, cli: CLI, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    several = ("logger=[csv,tensorboard]", "callbacks=[note_epochs,lr_monitor]")
    assert lab(*SMALL, *several, "train.max_epochs=1", "~task.then", "run_dir=run") == 0
    assert cli("resume=run", "train.max_epochs=2", "~task.then") == 0, capfd.readouterr().out
    assert cli("task=evaluate", "run_dir=run") == 0, capfd.readouterr().out
    history = read_history(tmp_path / "run" / "logs" / "metrics.csv")
    assert history["lr-AdamW"] == pytest.approx([1e-3, 1e-3])
    assert (tmp_path / "run" / "epochs.txt").read_text().split() == ["0", "1"]
    assert list((tmp_path / "run" / "logs" / "tensorboard").glob("events*"))


@pytest.mark.slow
def test_a_folder_of_configs_that_is_gone_is_one_sentence(
    lab: Lab, cli: CLI, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert lab(*SMALL, "objective=dip", "train.max_epochs=1", "~task.then", "run_dir=run") == 0
    config = tmp_path / "run" / "config_resolved.yaml"
    config.write_text(config.read_text().replace(str(HERE / "conf"), str(tmp_path / "gone")))
    assert cli("resume=run", "train.max_epochs=2") == 1
    shown = "".join(capfd.readouterr())
    assert str(tmp_path / "gone") in shown
    assert "Traceback" not in shown
