"""Sweeps on a real cluster: whatever SLURM does to them, each job is done in the end, and once."""

from __future__ import annotations

import csv
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from vaelab.errors import EXIT_INTERRUPTED
from vaelab.runs.history import read_history

from ..conftest import TINY_XRAY
from .cluster import START, Cluster, Sweep, wait_for
from .conftest import assert_same_training

pytestmark = pytest.mark.slurm

EPOCHS = 40  # long enough to be met in the middle
SETTINGS = (
    *TINY_XRAY, f"train.max_epochs={EPOCHS}", "dataset.batch_size=6", "train.lr=1e-2",
    "logging.recon_every_n_epochs=4", "logging.num_recon_samples=1", "~task.then",
)  # fmt: skip
JOBS = "train.kl_beta=0.5,1,4"
SIGNALS = int(os.environ.get("VAELAB_SIGNALS", "4"))
"""How many signals each random sweep gets: more, to look for what is rare."""


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    folder = tmp_path_factory.mktemp("cluster")
    reason = ""
    if not START.is_file():
        reason = f"needs {START.name}, which starts a cluster, in ../shared/slurm"
    elif os.geteuid() != 0:
        reason = "needs root, to start a cluster of one node"
    else:
        log = folder / "start.txt"
        # nproc, which counts the node's cores, takes OMP_NUM_THREADS for their number.
        environment = {key: value for key, value in os.environ.items() if key[:4] != "OMP_"}
        with log.open("w") as output:
            started = subprocess.run(
                [str(START), "start", str(folder)],
                check=False, env=environment, stdout=output, stderr=output,
            )  # fmt: skip
        if started.returncode or "idle" not in log.read_text():
            reason = f"no cluster starts: {log.read_text()}"
    if reason and os.environ.get("CI"):
        pytest.fail(reason)
    if reason:
        pytest.skip(reason)
    made = Cluster(folder)
    yield made
    made.ask("scancel", "--user=root")
    subprocess.run([str(START), "stop", str(folder)], check=True)


MakeSweep = Callable[..., Sweep]


@pytest.fixture
def sweep(cluster: Cluster, phantoms: str, tmp_path: Path) -> MakeSweep:
    return lambda *arguments: Sweep(cluster, tmp_path, (*SETTINGS, phantoms, *arguments))


@pytest.fixture(scope="module")
def undisturbed(phantoms: str, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The same jobs, without a cluster."""
    place = tmp_path_factory.mktemp("undisturbed")
    command = [sys.executable, "-m", "vaelab.run", "-m", *SETTINGS, phantoms, JOBS]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    subprocess.run(command, cwd=place, env=environment, check=True, stdout=subprocess.DEVNULL)
    return sorted(path.parent for path in place.glob("multirun_sweeps/*/*/status.json"))


def table(sweep: Sweep) -> list[tuple[str, str]]:
    assert sweep.folder is not None
    with (sweep.folder / "sweep.csv").open(newline="") as file:
        return [(row["train.kl_beta"], row["state"]) for row in csv.DictReader(file)]


def trained(run: Path) -> list[int]:
    """Epochs that were trained, in their order: of lines such as "INFO epoch 3/11: ..."."""
    return [
        int(epoch) for epoch in re.findall(r"INFO epoch (\d+)/", (run / "train.log").read_text())
    ]


def begun(sweep: Sweep, count: int = 3, epochs: int = 2) -> Callable[[], bool]:
    """Whether so many jobs are in the middle of their training."""
    return lambda: sum(sweep.epochs(run) >= epochs for run in sweep.runs()) >= count


def assert_equal(sweep: Sweep, undisturbed: list[Path]) -> None:
    assert sweep.states() == ["done"] * len(undisturbed)
    for run, reference in zip(sweep.runs(), undisturbed, strict=True):
        assert run.name == reference.name
        assert_same_training(run, reference)
    assert not list(sweep.place.rglob("hpc_ckpt*"))


def test_each_job_has_its_own_fate_and_the_same_command_ends_them_all(
    sweep: MakeSweep, undisturbed: list[Path]
) -> None:
    it = sweep(JOBS)
    submitter = it.start()
    wait_for(begun(it, 2), "two jobs to train")
    first, second = [run for run in it.runs() if it.epochs(run) >= 2][:2]
    it.cluster.cancel(it.job_id(first))
    it.kill(second)
    (third,) = {Path(f"train.kl_beta={beta}").name for beta in ("0.5", "1", "4")} - {
        first.name, second.name,
    }  # fmt: skip
    wait_for(lambda: third in {run.name for run in it.runs()}, "the third job")
    assert it.wait(submitter) == EXIT_INTERRUPTED, it.said
    states = {f"train.kl_beta={beta}": state for beta, state in table(it)}
    assert states == {first.name: "interrupted", second.name: "cut off", third: "done"}, it.said

    assert it() == 0, it.said
    assert {state for _, state in table(it)} == {"skipped", "done"}
    assert_equal(it, undisturbed)
    assert it.last_submitted() == [first.name, second.name]  # not what was done


@pytest.mark.parametrize("workers", [0, 1])
def test_time_limits_and_requeues_need_nobody(
    sweep: MakeSweep, undisturbed: list[Path], workers: int
) -> None:
    it = sweep(JOBS, f"dataset.num_workers={workers}")
    submitter = it.start()
    wait_for(begun(it, 2), "two jobs to train")
    limited, requeued = [run for run in it.runs() if it.epochs(run) >= 2][:2]
    submitter.kill()
    submitter.wait()
    it.cluster.requeue(it.job_id(requeued))
    for epochs in (2, 5):
        wait_for(lambda n=epochs: it.epochs(limited) >= n, f"{epochs} epochs")  # type: ignore[misc]
        job = it.job_id(limited)
        before = it.cluster.restarts(job)
        it.cluster.time_limit(job)
        wait_for(
            lambda j=job, n=before: (
                it.cluster.restarts(j) > n  # type: ignore[misc]
                and it.cluster.jobs().get(j) != "PENDING"
            ),
            "a requeue",
        )
    it.cluster.until_empty()
    assert it("sweep.mode=show") == 0, it.said
    assert table(it) == [("0.5", "done"), ("1", "done"), ("4", "done")]
    assert_equal(it, undisturbed)
    for run in it.runs():
        assert len(trained(run)) <= EPOCHS + 2  # no more than the epochs that were cut short


def test_jobs_are_submitted_and_left_and_waited_for_later(sweep: MakeSweep) -> None:
    it = sweep("train.kl_beta=1,4")
    assert it("sweep.mode=submit") == EXIT_INTERRUPTED
    assert {state for _, state in table(it)} <= {"queued", "running"}
    assert "left to SLURM: 2 of 2 jobs" in it.said
    waiting = it.start()
    wait_for(begun(it, 1), "a job to train")
    waiting.send_signal(signal.SIGTERM)  # who waits goes home
    assert waiting.wait() == EXIT_INTERRUPTED
    assert it() == 0, it.said
    for run in it.runs():
        assert trained(run) == list(range(EPOCHS))  # once


def test_srun_trains_in_two_processes_and_a_plain_run_of_that_allocation_in_one(
    cluster: Cluster, phantoms: str, tmp_path: Path
) -> None:
    command = [sys.executable, "-m", "vaelab.run", *SETTINGS, phantoms, "train.max_epochs=1"]
    two = [*command, "hardware=cpu_ddp", "hardware.devices=2", "run_dir=two"]
    for folder, line in {
        "two": ["srun", "-n2", *two],
        "plain": [*command, "run_dir=plain"],
    }.items():
        ended = subprocess.run(
            ["salloc", "-n2", *line], cwd=tmp_path, env=cluster.environment,
            capture_output=True, text=True, check=False, timeout=240,
        )  # fmt: skip
        assert ended.returncode == 0, ended.stdout + ended.stderr
        assert read_history(tmp_path / folder / "logs" / "metrics.csv")["epoch"] == [0]
    refused = subprocess.run(
        ["salloc", "-n2", "srun", "-n2", *command, "run_dir=refused"], cwd=tmp_path,
        env=cluster.environment, capture_output=True, text=True, check=False, timeout=240,
    )  # fmt: skip
    assert refused.returncode != 0
    assert "asks for 1 processes, and 2 were started" in refused.stdout + refused.stderr


def test_each_job_of_a_sweep_may_have_two_tasks_that_go_on_after_a_time_limit(
    sweep: MakeSweep,
) -> None:
    it = sweep(
        "train.kl_beta=1", "hardware=cpu_ddp", "hardware.devices=2",
        "hydra.launcher.tasks_per_node=2",
    )  # fmt: skip
    submitter = it.start()
    wait_for(begun(it, 1), "the job to train")
    (run,) = it.runs()
    it.cluster.time_limit(it.job_id(run))
    assert it.wait(submitter) == 0, it.said
    assert read_history(run / "logs" / "metrics.csv")["epoch"] == list(range(EPOCHS))
    assert len(trained(run)) <= EPOCHS + 1  # one of the two logs
    assert not list(it.place.rglob("hpc_ckpt*"))


@pytest.mark.parametrize("workers", [0, 1])
def test_signals_at_random_moments(sweep: MakeSweep, undisturbed: list[Path], workers: int) -> None:
    it = sweep(JOBS, f"dataset.num_workers={workers}")
    chance = random.Random(SIGNALS * 10 + workers)
    sent, goes = 0, 0
    while True:
        submitter = it.start()
        goes += 1
        while submitter.poll() is None:
            time.sleep(chance.uniform(0.2, 4.0))
            jobs = it.cluster.jobs()
            if sent < SIGNALS and jobs:
                sent += 1
                job = chance.choice(sorted(jobs))
                fates: list[Callable[[], object]] = [
                    lambda job=job: it.cluster.cancel(job),  # type: ignore[misc]
                    lambda job=job: it.cluster.requeue(job),  # type: ignore[misc]
                    lambda job=job: it.cluster.time_limit(job),  # type: ignore[misc]
                    lambda: it.runs() and it.kill(chance.choice(it.runs())),
                    submitter.kill,
                    submitter.terminate,
                ]
                chance.choices(fates, weights=[2, 3, 4, 2, 1, 1])[0]()
        code = submitter.wait()
        done = len(it.runs()) == 3 and set(it.states()) == {"done"}
        assert (code == 0) == done or code < 0, it.said  # never falsely done
        if code == 0:
            break
        assert goes < SIGNALS + 5, it.said
    assert_equal(it, undisturbed)
