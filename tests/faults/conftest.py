"""Runs in processes of their own, which are killed for real."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from ..conftest import TINY_XRAY

EPOCHS = 4
BATCHES = 3  # 18 images, 6 at a time
RUN = (
    *TINY_XRAY,
    f"train.max_epochs={EPOCHS}",
    "dataset.batch_size=6",
    "train.lr=1e-2",
    "train.lr_final=0.1",
    "train.monitor=val/kl",  # so that some epochs are better than those before and some are not
    "logging.recon_every_n_epochs=2",
    "logging.num_recon_samples=1",
    "run_dir=it",
)
STEP = "vaelab.training.module:VAELitModule.training_step"
VALIDATION = "vaelab.training.module:VAELitModule.validation_step"

SERVER = Path(__file__).with_name("server.py")


@dataclass(frozen=True)
class Ended:
    """How a process ended: its exit status, negative for a signal, and all that it said."""

    code: int
    said: str


class Runs:
    """``python -m vaelab.run``, from a folder."""

    def __init__(self, server: subprocess.Popen[str], folder: Path) -> None:
        self.server = server
        self.folder = folder

    def __call__(self, *arguments: str, fault: dict[str, Any] | None = None) -> Ended:
        """Run with these arguments until the end, or until ``fault``."""
        assert self.server.stdin is not None
        assert self.server.stdout is not None
        output = self.folder / "said.txt"
        output.write_bytes(b"")
        request = {
            "cwd": str(self.folder),
            "output": str(output),
            "arguments": list(arguments),
            "fault": fault,
        }
        self.server.stdin.write(json.dumps(request) + "\n")
        self.server.stdin.flush()
        code = int(self.server.stdout.readline())
        return Ended(code, output.read_text(errors="replace"))


@pytest.fixture(scope="session")
def server() -> Iterator[subprocess.Popen[str]]:
    """A process that has imported everything."""
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    with subprocess.Popen(
        [sys.executable, str(SERVER)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        yield process
        assert process.stdin is not None
        process.stdin.close()


RunsIn = Callable[[Path], Runs]


@pytest.fixture(scope="session")
def runs_in(server: subprocess.Popen[str]) -> RunsIn:
    """Folder → its runs."""
    return lambda folder: Runs(server, folder)


@pytest.fixture
def run(runs_in: RunsIn, tmp_path: Path) -> Runs:
    """Runs in this test's own folder."""
    return runs_in(tmp_path)


@pytest.fixture(scope="session")
def undisturbed(runs_in: RunsIn, phantoms: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nothing has happened to."""
    folder = tmp_path_factory.mktemp("undisturbed")
    ended = runs_in(folder)(*RUN, phantoms, "~task.then")
    assert ended.code == 0, ended.said
    (best,) = (folder / "it" / "checkpoints").glob("best_*")
    assert best.name not in ("best_epoch_0000.ckpt", f"best_epoch_{EPOCHS - 1:04d}.ckpt")
    return folder / "it"


def files(run_dir: Path) -> list[str]:
    """What the training of a run has left."""
    return sorted(
        path.relative_to(run_dir).as_posix()
        for folder in ("checkpoints", "logs", "recon", "splits")
        for path in (run_dir / folder).rglob("*")
    )


def assert_same_content(one: Any, other: Any, place: str = "") -> None:
    """Equal bit for bit, but for the folder that the two runs are in."""
    assert type(one) is type(other), place
    if isinstance(one, torch.Tensor):
        assert torch.equal(one, other), place
    elif isinstance(one, dict):
        for (key, value), (other_key, other_value) in zip(one.items(), other.items(), strict=True):
            assert_same_content(key, other_key, place)
            assert_same_content(value, other_value, f"{place}/{key}")
    elif isinstance(one, (list, tuple)):
        for number, (value, other_value) in enumerate(zip(one, other, strict=True)):
            assert_same_content(value, other_value, f"{place}/{number}")
    elif isinstance(one, str) and "/" in one:
        assert Path(one).name == Path(other).name, place
    else:
        assert one == other, place


def assert_same_run(one: Path, other: Path) -> None:
    assert_same_training(one, other)
    assert files(one) == files(other)


def assert_same_training(one: Path, other: Path) -> None:
    assert (one / "logs/metrics.csv").read_bytes() == (other / "logs/metrics.csv").read_bytes()
    for name in ("last.ckpt", "vae_m4_best.pth"):
        loaded = [
            torch.load(run_dir / "checkpoints" / name, weights_only=True)
            for run_dir in (one, other)
        ]
        assert_same_content(*loaded, place=name)
