"""Who is one of several processes, and where the others meet the first."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from vaelab.errors import UserError
from vaelab.runs.folder import RunFolder
from vaelab.runs.processes import Process, announce, follow, this_process

TORCHRUN = {
    "TORCHELASTIC_RUN_ID": "a/b", "RANK": "1", "LOCAL_RANK": "1", "WORLD_SIZE": "2",
    "MASTER_ADDR": "here", "MASTER_PORT": "9",
}  # fmt: skip
ALLOCATION = {"SLURM_JOB_ID": "7", "SLURM_NTASKS": "2", "SLURM_PROCID": "0"}
SRUN = ALLOCATION | {"SLURM_STEP_ID": "1", "SLURM_STEP_NUM_TASKS": "2", "SLURM_PROCID": "1"}


def test_torchrun_and_srun_say_who_is_who() -> None:
    assert this_process(TORCHRUN) == Process(1, 2, "torchrun", "a-b_here_9_0")
    assert this_process(SRUN) == Process(1, 2, "srun", "7_1_0")


@pytest.mark.parametrize(
    "environment",
    [{}, ALLOCATION, SRUN | {"SLURM_STEP_NUM_TASKS": "1"}],
    ids=["a laptop", "a batch script of an allocation for two", "one task by srun"],
)
def test_a_process_that_nobody_started_with_others_is_alone(environment: dict[str, str]) -> None:
    assert this_process(environment) == Process()


def test_the_others_find_the_folder_that_the_first_announces(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    for key, value in (TORCHRUN | {"RANK": "0"}).items():
        monkeypatch.setenv(key, value)
    announce(RunFolder(Path("outputs/run")))
    announce(None)  # the first word counts
    assert follow(this_process(TORCHRUN)) == RunFolder(tmp_path / "outputs" / "run")


def test_the_others_end_where_there_is_nothing_to_train(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    for key, value in (TORCHRUN | {"RANK": "0"}).items():
        monkeypatch.setenv(key, value)
    announce(None)
    assert follow(this_process(TORCHRUN)) is None


def test_what_an_earlier_launch_of_the_same_name_announced_is_not_followed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    for key, value in (TORCHRUN | {"RANK": "0"}).items():
        monkeypatch.setenv(key, value)
    announce(RunFolder(Path("outputs/earlier")))
    (left,) = (tmp_path / "outputs" / ".launches").iterdir()
    os.utime(left, (1, 1))
    with pytest.raises(UserError, match="the first has not said"):
        follow(this_process(TORCHRUN), patience=0.2)
    announce(RunFolder(Path("outputs/run")))
    assert follow(this_process(TORCHRUN)) == RunFolder(tmp_path / "outputs" / "run")


def test_one_who_waits_in_vain_says_where(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"process 1 of 2: the first has not said .*\.launches"):
        follow(this_process(TORCHRUN), patience=0.2)
