"""A full disk is an error that says so, and the last good checkpoint stays good."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from vaelab.training.checkpoint import load_checkpoint

from .conftest import RUN, Ended, Runs, assert_same_training

pytestmark = pytest.mark.faults


def assert_one_sentence(ended: Ended, file: str) -> None:
    assert ended.code == 1, ended.said
    assert "Traceback" not in ended.said
    (line,) = (line for line in ended.said.splitlines() if "no room to write" in line)
    assert file in line
    assert "are free); free some space or raise the limit, then go on" in line
    assert "the last good checkpoint is " in line


@pytest.mark.parametrize(
    ("epoch", "file", "every"),
    [(1, "vae_m4_best.pth", 2), (2, "last.ckpt", 2), (2, ".png", 3)],
    ids=["weights", "checkpoint", "picture"],
)
def test_a_limit_on_files_stops_the_run_and_it_goes_on_when_lifted(
    run: Runs, phantoms: str, undisturbed: Path, epoch: int, file: str, every: int
) -> None:
    fault = {"replace": "*/last.ckpt", "nth": epoch + 1, "mode": "after", "limit": 20_000}
    pictures = f"logging.recon_every_n_epochs={every}"
    ended = run(*RUN, phantoms, "~task.then", pictures, fault=fault)
    assert_one_sentence(ended, file)
    assert f"last.ckpt, epoch {epoch}" in ended.said
    assert load_checkpoint(run.folder / "it/checkpoints/last.ckpt")["epoch"] == epoch
    assert not list((run.folder / "it").rglob("*.partial"))
    ended = run("resume=it")
    assert ended.code == 0, ended.said
    assert_same_training(run.folder / "it", undisturbed)


@pytest.fixture
def small_disk(tmp_path: Path, undisturbed: Path) -> Iterator[Path]:
    """Room for two checkpoints and the weights, but not for a third checkpoint beside them."""
    folder = tmp_path / "small"
    folder.mkdir()
    size = int(2.9 * (undisturbed / "checkpoints/last.ckpt").stat().st_size)
    options = ["-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    mounted = subprocess.run(["mount", *options], capture_output=True, text=True, check=False)
    if mounted.returncode:
        pytest.skip(f"no file system can be mounted here: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_disk_that_is_really_full(run: Runs, phantoms: str, small_disk: Path) -> None:
    elsewhere = f"dataset.cache_dir={run.folder}/cache"
    arguments = (
        "~task.then",
        "logging.recon_every_n_epochs=0",
        elsewhere,
        "train.monitor=val/recon",
    )
    ended = run(*RUN, phantoms, *arguments, "run_dir=small/it")
    assert_one_sentence(ended, "best_epoch_0001.ckpt")
    assert "No space left on device" in ended.said
    assert load_checkpoint(small_disk / "it/checkpoints/last.ckpt")["epoch"] == 0
    assert load_checkpoint(small_disk / "it/checkpoints/best_epoch_0000.ckpt")["epoch"] == 0
    remount = ["mount", "-o", "remount,size=100m", str(small_disk)]
    subprocess.run(remount, check=True)
    ended = run("resume=small/it")
    assert ended.code == 0, ended.said
    assert load_checkpoint(small_disk / "it/checkpoints/last.ckpt")["epoch"] == 3
