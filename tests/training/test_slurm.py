"""A plain run where SLURM is installed, or in an allocation: one process, no warning of srun."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from lightning.pytorch.plugins.environments import (
    ClusterEnvironment,
    LightningEnvironment,
    TorchElasticEnvironment,
)

from vaelab.runs.history import read_history
from vaelab.training.hardware import Hardware

from ..conftest import CLI, TINY_XRAY

# What sbatch and salloc set for --ntasks=2; srun adds SLURM_STEP_NUM_TASKS to each of its tasks.
ALLOCATION = {
    "SLURM_JOB_ID": "71",
    "SLURM_JOB_NAME": "training",
    "SLURM_NTASKS": "2",
    "SLURM_NNODES": "1",
    "SLURM_NODELIST": "localhost",
    "SLURM_PROCID": "0",
    "SLURM_LOCALID": "0",
    "SLURM_NODEID": "0",
}
SHORT = (*TINY_XRAY, "train.max_epochs=1", "~task.then", "run_dir=it")


def srun_installed(folder: Path) -> str:
    """A PATH on which there is an ``srun``."""
    program = folder / "bin" / "srun"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\nexit 1\n")
    program.chmod(0o755)
    return os.pathsep.join([str(program.parent), os.environ["PATH"]])


def environments() -> list[ClusterEnvironment]:
    plugins = Hardware("cpu").trainer_kwargs()["plugins"]
    return [plugin for plugin in plugins if isinstance(plugin, ClusterEnvironment)]


@pytest.mark.filterwarnings("error:The `srun` command")
def test_where_slurm_is_installed_there_is_no_warning_of_srun(
    cli: CLI, phantoms: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", srun_installed(tmp_path))
    assert cli(*SHORT, phantoms) == 0


@pytest.mark.launcher
@pytest.mark.parametrize("variables", [ALLOCATION, {}], ids=["allocation", "login node"])
def test_a_plain_run_is_one_process_and_does_not_mention_srun(
    variables: dict[str, str], phantoms: str, tmp_path: Path
) -> None:
    command = [sys.executable, "-m", "vaelab.run", *SHORT, phantoms]
    environment = {**os.environ, **variables, "PATH": srun_installed(tmp_path)}
    ended = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stderr
    assert "srun" not in ended.stdout + ended.stderr
    assert read_history(tmp_path / "it" / "logs" / "metrics.csv")["epoch"] == [0]


def test_an_allocation_of_two_tasks_is_one_process_unless_srun_has_started_two(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in ALLOCATION.items():
        monkeypatch.setenv(name, value)
    (plain,) = environments()
    assert type(plain) is LightningEnvironment
    assert (plain.world_size(), plain.creates_processes_externally) == (1, False)
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "1")  # srun -n1, as submitit starts a job
    assert [type(plugin) for plugin in environments()] == [LightningEnvironment]
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "2")
    for name in ("LOCAL_RANK", "NODE_RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.setenv(name, "1")  # set by vaelab itself otherwise; put back after the test
    (started,) = environments()  # not SLURM's: it refuses what --ntasks starts
    assert started.creates_processes_externally


def test_torchrun_goes_before_slurm(monkeypatch: pytest.MonkeyPatch) -> None:
    names = ("RANK", "GROUP_RANK", "LOCAL_RANK", "WORLD_SIZE", "TORCHELASTIC_RUN_ID")
    for name in names:
        monkeypatch.setenv(name, "0")
    assert [type(plugin) for plugin in environments()] == [TorchElasticEnvironment]
