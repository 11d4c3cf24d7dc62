"""Several processes give what one gives, and end together."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from vaelab.runs.history import read_history
from vaelab.runs.launch import environment
from vaelab.runs.status import read_status

from ..conftest import TINY_MRI

pytestmark = pytest.mark.processes

EXTENSION = Path(__file__).parents[1] / "extension"
CONFIG_DIR = ("--config-dir", str(EXTENSION / "conf"))

# Three subjects to learn from, and two to validate on. Plain gradient steps, of an optimiser from
# outside: AdamW hides a gradient that is too small by a factor, and gives biases before a norm
# layer, whose gradients are rounding alone, steps of full size.
SETTINGS = (
    *CONFIG_DIR, *TINY_MRI, "optimizer=momentum", "train.lr=1e-7",
    "dataset.phantoms.num_patients=5", "dataset.phantoms.num_followups=0",
    "logging.num_recon_samples=2", "logging.recon_every_n_epochs=1", "~task.then",
)  # fmt: skip

ENVIRONMENT = environment() | {
    "OMP_NUM_THREADS": "1",
    "VAELAB_ALLOWED_TARGETS": "growthlab",
    "PYTHONPATH": os.pathsep.join([environment()["PYTHONPATH"], str(EXTENSION)]),
}


def vaelab(*arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "vaelab.run", *arguments],
        env=ENVIRONMENT,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip


def trained(folder: Path, phantoms: str, processes: int, batch_size: int, *more: str) -> Path:
    hardware = [f"hardware.devices={processes}"] if processes > 1 else []
    process = vaelab(
        *SETTINGS, phantoms, f"run_dir={folder}", f"dataset.batch_size={batch_size}",
        *(["hardware=cpu_ddp"] if processes > 1 else []), *hardware, *more,
    )  # fmt: skip
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output
    return folder


def weights(run: Path) -> dict[str, torch.Tensor]:
    state: dict[str, torch.Tensor] = torch.load(
        run / "checkpoints" / "vae_best.pth", weights_only=True
    )
    return state


def assert_within_rounding(run: Path, reference: Path) -> None:
    """Sums of float32 in another order: a few times 2^-23 of themselves, of a KL near 0 more."""
    here, there = (read_history(r / "logs" / "metrics.csv") for r in (run, reference))
    assert here.keys() == there.keys()
    for name, values in there.items():
        assert here[name] == pytest.approx(values, rel=1e-4, abs=1e-4), name
    state, expected = weights(run), weights(reference)
    for name, weight in expected.items():
        assert torch.allclose(state[name], weight, rtol=1e-4, atol=1e-6), name


@pytest.mark.parametrize(("processes", "together"), [(2, 2), (3, 3)])
def test_processes_with_batches_of_one_take_the_steps_of_one_process(
    processes: int, together: int, phantoms: str, tmp_path: Path
) -> None:
    one = trained(tmp_path / "one", phantoms, 1, together)
    several = trained(tmp_path / "several", phantoms, processes, 1)
    assert_within_rounding(several, one)
    for epoch in ("epoch_0", "epoch_1"):
        drawn = [sorted(p.name for p in (r / "recon" / epoch).iterdir()) for r in (several, one)]
        assert drawn[0] == drawn[1]


def test_a_run_goes_on_with_another_number_of_processes(phantoms: str, tmp_path: Path) -> None:
    one = trained(tmp_path / "one", phantoms, 1, 2)
    parts = trained(tmp_path / "parts", phantoms, 2, 1, "train.max_epochs=1")
    process = vaelab(
        f"resume={parts}",
        "train.max_epochs=2",
        "hardware=cpu",
        "dataset.batch_size=2",
        *CONFIG_DIR,
    )
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output
    assert_within_rounding(parts, one)


def test_torchrun_starts_them_as_well(phantoms: str, tmp_path: Path) -> None:
    one = trained(tmp_path / "one", phantoms, 1, 2)
    process = subprocess.Popen(
        [
            sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2",
            "-m", "vaelab.run", *SETTINGS, phantoms, "hardware=cpu_ddp", "dataset.batch_size=1",
            f"run_dir={tmp_path / 'two'}",
        ],
        env=ENVIRONMENT, cwd=tmp_path,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output
    assert_within_rounding(tmp_path / "two", one)


def test_a_job_of_a_sweep_may_have_several_processes(phantoms: str, tmp_path: Path) -> None:
    process = vaelab(
        "-m", *SETTINGS, phantoms, "hardware=cpu_ddp", "dataset.batch_size=1",
        "train.kl_beta=0.5,1", f"hydra.sweep.dir={tmp_path / 'sweep'}", "train.max_epochs=1",
    )  # fmt: skip
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output
    assert (tmp_path / "sweep" / "sweep.csv").read_text().count(",done,") == 2


def wait_for(path: Path, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 120
    while not path.exists():
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline, f"{path} did not come"
        time.sleep(0.05)


def ranks_of(process: subprocess.Popen[str]) -> list[int]:
    """Process ids of the training processes, by rank."""
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    found = {}
    for child in map(int, children):
        content = Path(f"/proc/{child}/environ").read_bytes().split(b"\0")
        variables = dict(entry.split(b"=", 1) for entry in content if b"=" in entry)
        if b"VAELAB_RANK" in variables:
            found[int(variables[b"VAELAB_RANK"])] = child
    return [found[rank] for rank in sorted(found)]


@pytest.mark.skipif(sys.platform != "linux", reason="finds processes by /proc")
@pytest.mark.parametrize("target", ["all of them", "rank 0", "rank 1"])
def test_sigterm_to_any_of_them_stops_all_in_order_and_the_run_goes_on(
    target: str, phantoms: str, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    process = vaelab(
        *SETTINGS, phantoms, "hardware=cpu_ddp", "dataset.batch_size=1", f"run_dir={run}",
        "train.max_epochs=400",
    )  # fmt: skip
    wait_for(run / "checkpoints" / "last.ckpt", process)
    place = {"all of them": process.pid} | dict(
        zip(("rank 0", "rank 1"), ranks_of(process), strict=True)
    )
    os.kill(place[target], signal.SIGTERM)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 75, output
    assert "Traceback" not in output
    status = read_status(run)
    assert status is not None
    assert status.state == "interrupted"
    epochs = len(read_history(run / "logs" / "metrics.csv")["epoch"])
    process = vaelab(f"resume={run}", f"train.max_epochs={epochs + 1}", *CONFIG_DIR)
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output


@pytest.mark.skipif(sys.platform != "linux", reason="finds processes by /proc")
def test_one_that_is_killed_ends_all_with_one_message(phantoms: str, tmp_path: Path) -> None:
    run = tmp_path / "run"
    process = vaelab(
        *SETTINGS, phantoms, "hardware=cpu_ddp", "dataset.batch_size=1", f"run_dir={run}",
        "train.max_epochs=400",
    )  # fmt: skip
    wait_for(run / "checkpoints" / "last.ckpt", process)
    os.kill(ranks_of(process)[1], signal.SIGKILL)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 1, output
    status = read_status(run)
    assert status is not None
    assert status.state == "failed"
    assert "process 1 of 2 ended with status -9" in status.error


def test_a_number_of_processes_that_has_no_effect_is_refused(phantoms: str, tmp_path: Path) -> None:
    process = vaelab(
        *SETTINGS, phantoms, "hardware=cpu_ddp", "hardware.num_nodes=2", f"run_dir={tmp_path}/run"
    )
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 1
    assert "start a process for each device by torchrun or srun" in output
