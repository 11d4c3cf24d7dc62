"""Sweeps that are run again: finished jobs are skipped, interrupted ones resumed."""

from __future__ import annotations

import csv
import json
import math
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra.core.utils import JobReturn

from vaelab import run as run_module
from vaelab.cli import job as job_module
from vaelab.cli.run_config import RunConfig
from vaelab.cli.sweep import SweepRecord, job_folder
from vaelab.cli.sweep_table import Attempt
from vaelab.errors import EXIT_INTERRUPTED, Interrupted, UserError
from vaelab.runs.history import read_history
from vaelab.runs.status import end, read_status

from ..conftest import CLI, TINY_MRI

ROOT = Path(run_module.__file__).parents[1]
TRAIN_ONLY = (*TINY_MRI, "~task.then")


@pytest.fixture
def work(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Jobs record their config instead of training; their value is ``train.kl_beta``."""
    done: list[dict[str, Any]] = []

    def note(config: RunConfig) -> float:
        if config.values.train.kl_beta < 0:
            raise UserError(f"train.kl_beta={config.values.train.kl_beta}: too small")
        done.append({"resume": config.values.resume, "beta": config.values.train.kl_beta})
        return float(config.values.train.kl_beta)

    monkeypatch.setattr(job_module, "carry_out", note)
    return done


def sweeps(folder: Path = Path("multirun_sweeps")) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir())


def jobs(sweep: Path) -> list[str]:
    return sorted(path.parent.name for path in sweep.glob("*/config_resolved.yaml"))


def table(sweep: Path) -> list[dict[str, str]]:
    with (sweep / "sweep.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def states(sweep: Path) -> list[str]:
    return [row["state"] for row in table(sweep)]


# --- Names


def test_a_job_is_named_by_what_is_swept_in_any_order():
    overrides = ["train.kl_beta=0.5", "model.z_dim=8", "annealing=linear"]
    for order in (overrides, overrides[::-1]):
        name = job_folder(order, ["train.kl_beta", "annealing"])
        assert name == "annealing=linear,train.kl_beta=0.5"


def test_equal_numbers_name_one_job():
    assert job_folder(["a=4.0"], ["a"]) == job_folder(["a=4"], ["a"]) == "a=4"
    assert job_folder(["a=-4.00"], ["a"]) == "a=-4"
    assert job_folder(["a=4.01"], ["a"]) == "a=4.01"


def test_a_name_is_safe_for_any_file_system_and_unlike_that_of_any_other_job():
    values = ["/data/a b", "/data/a_b", "'quoted'", "[1,2]", "ü", "../..", "x" * 300, "x" * 301]
    names = [job_folder([f"key={value}"], ["key"]) for value in values]
    assert len(set(names)) == len(values)
    for name in names:
        assert not set(name) & set("/\\ '\"\n:*?<>|")
        assert len(name) <= 120


def test_a_sweep_over_nothing_has_one_job():
    assert job_folder(["model.z_dim=8"], []) == "job"


# --- The same command again


def test_the_same_command_skips_what_is_done_and_adds_what_is_new(
    cli: CLI, work: list[Any], capfd: pytest.CaptureFixture[str]
):
    assert cli("-m", "train.kl_beta=0.5,4", "annealing=linear,constant") == 0
    (sweep,) = sweeps()
    assert sweep.name.startswith("phantom_mri_")
    assert jobs(sweep) == [
        "annealing=constant,train.kl_beta=0.5",
        "annealing=constant,train.kl_beta=4",
        "annealing=linear,train.kl_beta=0.5",
        "annealing=linear,train.kl_beta=4",
    ]
    assert len(work) == 4
    # Another order, one value more, and keys that do not change results.
    again = ("annealing=constant,linear,cyclical", "train.kl_beta=0.5,4.0", "debug=true")
    assert cli("-m", *again, "dataset.num_workers=2", "sweep.on_error=stop") == 0
    assert sweeps() == [sweep]
    assert len(work) == 6
    assert sorted(states(sweep)) == ["done"] * 2 + ["skipped"] * 4
    assert {row["value"] for row in table(sweep)} == {"0.5", "4.0"}
    assert "going on with the sweep in" in capfd.readouterr().out


def test_choice_and_range_and_recipes_sweep_alike(cli: CLI, work: list[Any]):
    assert cli("-m", "train.kl_beta=choice(1,2)") == 0
    assert cli("-m", "train.kl_beta=range(1,4)") == 0
    (sweep,) = sweeps()
    assert jobs(sweep) == ["train.kl_beta=1", "train.kl_beta=2", "train.kl_beta=3"]
    assert len(work) == 3


def test_the_recipe_sweeps_beta_and_annealing_and_leaves_the_rest_to_the_user(
    cli: CLI, work: list[Any], capfd: pytest.CaptureFixture[str]
):
    recipe = ("-m", "experiment=sweep_beta_annealing")
    assert cli(*recipe) == 0
    (sweep,) = sweeps()
    assert sweep.name.startswith("sweep_beta_annealing_")
    assert len(jobs(sweep)) == len(work) == 9
    # A value that the user fixes is swept no more: another base, so another sweep.
    assert cli(*recipe, "annealing=constant", "dataset=phantom_xray", "model=conv2d_vae") == 0
    assert len(sweeps()) == 2
    assert len(work) == 12


def test_another_fixed_value_is_another_sweep_and_the_log_names_it(
    cli: CLI, work: list[Any], capfd: pytest.CaptureFixture[str]
):
    assert cli("-m", "train.kl_beta=1,2") == 0
    (first,) = sweeps()
    assert cli("-m", "train.kl_beta=1,2", "train.lr=0.5") == 0
    assert len(sweeps()) == 2
    shown = capfd.readouterr().out
    assert str(first) in shown.split("a new sweep")[2]
    assert "train.lr (was 0.0001, is 0.5)" in shown


def test_a_folder_of_another_sweep_is_refused(
    cli: CLI, work: list[Any], capfd: pytest.CaptureFixture[str]
):
    mine = ("-m", "hydra.sweep.dir=mine", "train.kl_beta=1,2")
    assert cli(*mine) == 0
    assert cli(*mine, "train.lr=0.5") == 1
    assert (
        "hydra.sweep.dir=mine: holds a sweep of another config: train.lr (was 0.0001, is 0.5)"
        in (capfd.readouterr().err)
    )
    assert len(work) == 2
    Path("full").mkdir()
    Path("full/thesis.tex").touch()
    assert cli("-m", "hydra.sweep.dir=full", "train.kl_beta=1,2") == 1
    assert "is not empty and holds no sweep" in capfd.readouterr().err


def test_a_job_whose_option_file_has_changed_is_refused_and_kept(
    cli: CLI, work: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    conf = Path(shutil.copytree(run_module.CONF, tmp_path / "conf"))
    monkeypatch.setattr(run_module, "CONF", conf)
    sweep = ("-m", "annealing=constant,linear")
    assert cli(*sweep) == 0
    option = conf / "annealing" / "constant.yaml"
    option.write_text(option.read_text().replace("${train.kl_beta}", "7.0"))
    assert cli(*sweep) == 1
    (folder,) = sweeps()
    refused, skipped = table(folder)
    assert refused["state"] == "refused"
    assert "annealing.kl_beta (was 1.0, is 7.0)" in refused["error"]
    assert skipped["state"] == "skipped"
    kept = read_status(folder / "annealing=constant")
    assert kept is not None
    assert (kept.state, kept.value) == ("done", 1.0)


def test_jobs_share_one_cache_unless_the_user_has_chosen_one(
    cli: CLI, monkeypatch: pytest.MonkeyPatch
):
    folders: list[str] = []
    note = lambda config: folders.append(config.values.dataset.cache_dir)  # noqa: E731
    monkeypatch.setattr(job_module, "carry_out", note)
    assert cli("-m", "train.kl_beta=1,2") == 0
    assert set(folders) == {str(sweeps()[0].absolute() / "cache")}
    folders.clear()
    assert cli("-m", "train.kl_beta=1,2", "train.seed=5", "dataset.cache_dir=elsewhere") == 0
    assert set(folders) == {str(Path("elsewhere").absolute())}


@pytest.mark.parametrize("key", ["run_dir", "resume"])
def test_a_sweep_into_one_run_folder_is_refused(
    cli: CLI, capfd: pytest.CaptureFixture[str], key: str
):
    assert cli("-m", f"{key}=here", "train.kl_beta=1,2") == 1
    assert f"{key}=here: not with -m" in capfd.readouterr().err


def test_a_sweep_is_not_resumed_as_a_run(
    cli: CLI, work: list[Any], capfd: pytest.CaptureFixture[str]
):
    assert cli("-m", "train.kl_beta=1,2") == 0
    assert cli(f"resume={sweeps()[0]}") == 1
    assert "a sweep, not a run" in capfd.readouterr().err


# --- Failures


def test_one_failing_job_does_not_end_a_sweep_and_is_tried_again(
    cli: CLI, work: list[Any], capfd: pytest.CaptureFixture[str]
):
    sweep = ("-m", "train.kl_beta=1,-1,2")
    assert cli(*sweep) == 1
    (folder,) = sweeps()
    assert states(folder) == ["done", "failed", "done"]
    shown = capfd.readouterr().out
    assert "job 1 (train.kl_beta=-1) failed: train.kl_beta=-1: too small" in shown
    assert "Traceback" not in shown
    assert cli(*sweep) == 1
    assert states(folder) == ["skipped", "failed", "skipped"]
    assert len(work) == 2


def test_on_error_stop_begins_no_further_job(cli: CLI, work: list[Any]):
    assert cli("-m", "train.kl_beta=1,-1,2,3", "sweep.on_error=stop") == 1
    (folder,) = sweeps()
    assert states(folder) == ["done", "failed", "not run", "not run"]
    assert [entry["beta"] for entry in work] == [1]
    assert cli("-m", "train.kl_beta=1,2,3", "sweep.on_error=stop") == 0
    assert states(folder) == ["skipped", "done", "done"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (
            ("train.kl_beta=1,2", "sweep.on_error=perhaps"),
            ["sweep.on_error=perhaps: one of continue, stop"],
        ),
        (
            ("experiment=sweep_beta_annealing", "train.kl_beta=1,much"),
            ["3 of 6 jobs cannot be run"],
        ),
        (
            ("model=resnet3d_vae,conv2d_vae",),
            [
                "1 of 2 jobs cannot be run",
                "model=conv2d_vae and dataset=phantom_mri do not fit together",
            ],
        ),
        (
            ("train.kl_beta=interval(0,1)",),
            ["vaelab: BasicSweeper does not support sweep type"],
        ),
    ],
    ids=["on_error", "what a recipe varies", "model and data", "what Hydra itself refuses"],
)
def test_an_impossible_sweep_is_refused_before_any_job(
    cli: CLI, work: list[Any], capfd: pytest.CaptureFixture[str],
    arguments: tuple[str, ...], words: list[str],
):  # fmt: skip
    assert cli("-m", *arguments) == 1
    message = capfd.readouterr().err
    for word in words:
        assert word in message
    assert "Warning" not in message
    assert not work


def test_jobs_that_cannot_be_run_are_listed_before_the_first_begins(
    cli: CLI, work: list[Any], capfd: pytest.CaptureFixture[str]
):
    sweep = ("-m", "model=resnet3d_vae,monai_vae", "train.max_epochs=2,many", "++model.depth=3")
    assert cli(*sweep) == 1
    message = capfd.readouterr().err
    assert "3 of 4 jobs cannot be run, and none has begun" in message
    assert "\n  - model=resnet3d_vae train.max_epochs=many: train.max_epochs=many: " in message
    assert "\n  - model=monai_vae train.max_epochs=many: train.max_epochs=many: " in message
    job = "model=monai_vae train.max_epochs=2"
    assert f"\n  - {job}: model.depth=3: MonaiVAE takes only" in message
    assert "Traceback" not in message
    assert not work
    assert not Path("multirun_sweeps").exists()


def test_a_job_that_was_cut_off_is_resumed(cli: CLI, work: list[dict[str, Any]]):
    sweep = ("-m", "train.kl_beta=1,2")
    assert cli(*sweep) == 0
    folder = sweeps()[0] / "train.kl_beta=2"
    status = json.loads((folder / "status.json").read_text())
    (folder / "status.json").write_text(json.dumps(status | {"state": "running", "value": None}))
    assert cli(*sweep) == 0
    assert [entry["resume"] for entry in work] == [None, None, str(folder.absolute())]


@pytest.mark.parametrize(
    ("error", "code"), [(Interrupted("SIGTERM"), EXIT_INTERRUPTED), (KeyboardInterrupt(), 130)]
)
def test_an_interruption_ends_the_sweep_and_names_the_command_that_resumes(
    cli: CLI,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    error: BaseException,
    code: int,
):
    def interrupted(config: RunConfig) -> float:
        if config.values.train.kl_beta == 2:
            raise error
        return 0.0

    monkeypatch.setattr(job_module, "carry_out", interrupted)
    assert cli("-m", "train.kl_beta=1,2,3") == code
    (folder,) = sweeps()
    assert states(folder) == ["done", "interrupted"]
    assert not (folder / "train.kl_beta=3").exists()
    assert f"resume={folder}/train.kl_beta=2" in capfd.readouterr().out.replace("'", "")
    status = read_status(folder / "train.kl_beta=2")
    assert status is not None
    assert status.state == "interrupted"


@pytest.mark.parametrize(
    ("error", "code"), [(Interrupted("SIGTERM"), EXIT_INTERRUPTED), (KeyboardInterrupt(), 130)]
)
def test_an_interrupted_run_has_a_status_of_its_own(
    cli: CLI, monkeypatch: pytest.MonkeyPatch, error: BaseException, code: int
):
    def interrupted(config: RunConfig) -> float:
        raise error

    monkeypatch.setattr(job_module, "carry_out", interrupted)
    assert cli("run_dir=a,strange name") == code
    status = read_status(Path("a,strange name"))
    assert status is not None
    assert status.state == "interrupted"
    assert status.error == "go on with: python -m vaelab.run resume='a,strange name'"


def test_an_interrupted_task_that_does_not_train_is_not_resumed_but_run_again(
    cli: CLI, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
):
    def interrupted(config: RunConfig) -> float:
        raise Interrupted("stopped by SIGTERM")

    monkeypatch.setattr(job_module, "carry_out", interrupted)
    assert cli("task=growth", "run_dir=here") == EXIT_INTERRUPTED
    how = "the same command goes on with run_dir=here"
    assert f"stopped by SIGTERM; {how}" in capfd.readouterr().out
    status = read_status(Path("here"))
    assert status is not None
    assert status.error == how


def test_a_run_that_is_refused_leaves_the_status_of_the_one_that_is_there(
    cli: CLI, work: list[Any]
):
    assert cli("run_dir=here") == 0
    before = Path("here/status.json").read_bytes()
    assert cli("run_dir=here") == 1
    assert Path("here/status.json").read_bytes() == before


@pytest.fixture
def occupied() -> Iterator[Callable[[Path], None]]:
    """Lets another process lock a folder."""
    processes: list[subprocess.Popen[str]] = []

    def occupy(folder: Path) -> None:
        code = (
            "import sys, pathlib, vaelab.runs.status as s\n"
            "with s.locked(pathlib.Path(sys.argv[1])): print('there', flush=True); input()"
        )
        process = subprocess.Popen(
            [sys.executable, "-c", code, str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
        assert process.stdout is not None
        assert process.stdout.readline() == "there\n"
        processes.append(process)

    yield occupy
    for process in processes:
        process.kill()
        process.communicate()


def test_two_processes_do_not_use_one_folder(
    cli: CLI,
    work: list[Any],
    occupied: Callable[[Path], None],
    capfd: pytest.CaptureFixture[str],
):
    sweep = ("-m", "train.kl_beta=1,-1")
    assert cli(*sweep) == 1
    folder = sweeps()[0] / "train.kl_beta=-1"
    occupied(folder)
    assert cli(*sweep) == 1
    assert states(folder.parent) == ["skipped", "refused"]
    assert "another process works in this folder" in capfd.readouterr().out


# --- What a sweeper sees


def test_every_job_returns_a_number_to_hydra(
    cli: CLI, work: list[Any], monkeypatch: pytest.MonkeyPatch
):
    returned: list[JobReturn] = []

    def note(self: SweepRecord, config: Any, job_return: JobReturn, **kwargs: Any) -> None:
        returned.append(job_return)

    monkeypatch.setattr(SweepRecord, "on_job_end", note)
    for _ in range(2):
        cli("-m", "train.kl_beta=3,-1")
    values = [job.return_value for job in returned]
    assert all(type(value) is float for value in values)
    assert values[0] == values[2] == 3.0
    assert math.isnan(values[1])
    assert math.isnan(values[3])


# --- Real training


def weights(run_dir: Path) -> dict[str, torch.Tensor]:
    state: dict[str, torch.Tensor] = torch.load(
        run_dir / "checkpoints" / "last.ckpt", weights_only=True
    )["state_dict"]
    return state


def assert_same_run(run_dir: Path, other: Path) -> None:
    a, b = (read_history(path / "logs" / "metrics.csv") for path in (run_dir, other))
    assert a == b
    a, b = weights(run_dir), weights(other)
    assert a.keys() == b.keys()
    assert all(torch.equal(a[key], b[key]) for key in a)


def test_a_job_of_a_sweep_equals_the_same_run_alone(
    cli: CLI, phantoms: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
):
    sweep = ("-m", "train.deterministic=true,false", "annealing=constant")
    assert cli(*sweep, *TRAIN_ONLY, phantoms) == 0
    table_shown = capfd.readouterr().out
    assert table_shown.count("  done  ") == 2
    (folder,) = sweeps()
    last = folder / "train.deterministic=False"
    alone = ("annealing=constant", "train.deterministic=false", "run_dir=alone")
    assert cli(*TRAIN_ONLY, phantoms, *alone) == 0
    assert_same_run(last, Path("alone"))
    # Sums and weights do not depend on the folder, and the logs of the two runs are separate.
    assert "alone" not in (last / "train.log").read_text()


@pytest.mark.launcher
@pytest.mark.parametrize(
    "launcher",
    [
        ("hydra/launcher=joblib", "hydra.launcher.n_jobs=2"),
        ("hydra/launcher=submitit_local", "hydra.launcher.timeout_min=5"),
    ],
)
def test_jobs_in_processes_of_their_own_end_in_the_same_table(
    cli: CLI, phantoms: str, tmp_path: Path, launcher: tuple[str, ...]
):
    # A network that cannot be built for these volumes, and one that can.
    command = ("-m", *launcher, *TRAIN_ONLY, phantoms, "model.depth=9,2")
    ended = subprocess.run(
        [sys.executable, "-m", "vaelab.run", *command],
        cwd=tmp_path, env={**os.environ, "OMP_NUM_THREADS": "1"}, text=True, check=False,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    assert ended.returncode == 1, ended.stdout
    (folder,) = sweeps(tmp_path / "multirun_sweeps")
    assert states(folder) == ["failed", "done"]
    assert "job 0 (model.depth=9) failed: " in ended.stdout
    assert "each side must be divisible by 512" in ended.stdout
    # The launcher is not part of what is computed: another one finds the same job.
    assert cli("-m", *TRAIN_ONLY, phantoms, "model.depth=2,9") == 1
    assert states(folder) == ["skipped", "failed"]


def test_the_table_is_made_anew_from_the_folders_and_no_job_begins(
    cli: CLI, work: list[dict[str, Any]], phantoms: str, capsys: pytest.CaptureFixture[str]
):
    command = ("-m", *TRAIN_ONLY, phantoms)
    assert cli(*command, "train.kl_beta=1,2") == 0
    (folder,) = sweeps()
    (folder / "sweep.csv").unlink()
    assert cli(*command, "train.kl_beta=1,2", "sweep.mode=show") == 0
    rows = [(row["train.kl_beta"], row["state"], row["value"]) for row in table(folder)]
    assert rows == [("1", "done", "1.0"), ("2", "done", "2.0")]
    end(folder / "train.kl_beta=2", "interrupted", error="go on")
    assert cli(*command, "train.kl_beta=1,2,3", "sweep.mode=show") == EXIT_INTERRUPTED
    assert states(folder) == ["done", "interrupted", "not run"]
    assert len(work) == 2


@pytest.mark.parametrize(
    ("mode", "complaint"),
    [("shows", "one of run, submit, show"), ("submit", "needs hydra/launcher=submitit_slurm")],
)
def test_a_mode_without_effect_is_refused(
    cli: CLI, phantoms: str, mode: str, complaint: str, capsys: pytest.CaptureFixture[str]
):
    assert cli("-m", *TRAIN_ONLY, phantoms, "train.kl_beta=1,2", f"sweep.mode={mode}") == 1
    assert f"sweep.mode={mode}: {complaint}" in capsys.readouterr().err


def test_an_interrupted_job_does_not_stop_the_sweep_unless_the_user_did(
    tmp_path: Path,
) -> None:
    attempt = Attempt(tmp_path, "a1", on_error="continue")
    attempt.outcomes.mkdir(parents=True)
    interrupted = {"state": "interrupted", "job": 0}
    (attempt.outcomes / "0.json").write_text(json.dumps(interrupted))
    assert not attempt.stopped()  # preempted by a cluster, say
    attempt.stop()
    assert attempt.stopped()


def test_a_job_that_was_done_keeps_its_value_when_the_sweep_is_stopped(
    cli: CLI, phantoms: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sweep = ("-m", *TINY_MRI, phantoms, "~task.then", "train.max_epochs=1", "train.seed=1,2")
    monkeypatch.setattr(job_module, "carry_out", lambda config: float(config.values.train.seed))
    assert cli(*sweep, "hydra.sweep.dir=sweep") == 0
    monkeypatch.setattr(Attempt, "stopped", lambda self: True)
    assert cli(*sweep, "hydra.sweep.dir=sweep") == 0
    with (tmp_path / "sweep" / "sweep.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["state"], row["value"]) for row in rows] == [
        ("skipped", "1.0"),
        ("skipped", "2.0"),
    ]
