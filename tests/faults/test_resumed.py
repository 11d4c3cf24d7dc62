"""What can be resumed, what cannot, and what a resumed run will not believe."""

from __future__ import annotations

import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from .conftest import RUN, Ended, Runs, assert_same_run

pytestmark = pytest.mark.faults


@pytest.fixture
def done(run: Runs, undisturbed: Path) -> Path:
    """A finished run, which was made in another folder."""
    return Path(shutil.copytree(undisturbed, run.folder / "it"))


def refused(ended: Ended) -> str:
    """The sentence of a failure."""
    assert ended.code == 1, ended.said
    assert "Traceback" not in ended.said
    return next(line for line in ended.said.splitlines() if "ERROR" in line or "vaelab:" in line)


# --- damage


def cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def zero(path: Path) -> None:
    size = path.stat().st_size
    content = bytearray(path.read_bytes())
    content[size // 2 :] = bytes(size - size // 2)
    path.write_bytes(content)


def empty(path: Path) -> None:
    path.write_bytes(b"")


def garbage(path: Path) -> None:
    path.write_bytes(b"\x80\x02" + bytes(range(256)) * 40)


@pytest.mark.parametrize("damage", [cut, zero, empty, garbage])
def test_a_damaged_last_checkpoint_is_named_and_the_newest_sound_one_taken(
    run: Runs, done: Path, undisturbed: Path, damage: Callable[[Path], None]
) -> None:
    damage(done / "checkpoints/last.ckpt")
    ended = run("resume=it")
    assert ended.code == 0, ended.said
    (warning,) = (line for line in ended.said.splitlines() if "not a readable checkpoint" in line)
    assert "it/checkpoints/last.ckpt" in warning
    assert "it/checkpoints/best_epoch_0001.ckpt, epoch 1, instead" in warning
    assert_same_run(done, undisturbed)


def test_when_all_are_damaged_that_is_an_error_and_nothing_is_lost(run: Runs, done: Path) -> None:
    for path in (done / "checkpoints").glob("*.ckpt"):
        cut(path)
    before = (done / "logs/metrics.csv").read_bytes()
    sentence = refused(run("resume=it"))
    assert "every checkpoint is damaged" in sentence
    assert "last.ckpt" in sentence
    assert "best_epoch_0001.ckpt" in sentence
    assert (done / "logs/metrics.csv").read_bytes() == before


def test_a_log_that_lost_the_end_of_its_last_line_is_mended(
    run: Runs, done: Path, undisturbed: Path
) -> None:
    cut(done / "checkpoints/last.ckpt")  # so that there is something left to do
    log = done / "logs/metrics.csv"
    os.truncate(log, log.stat().st_size - 20)
    ended = run("resume=it")
    assert ended.code == 0, ended.said
    assert_same_run(done, undisturbed)


# --- files that carry code


class Command:
    """Runs a shell command when it is unpickled."""

    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.system, (self.command,)


@pytest.fixture
def hostile(tmp_path: Path) -> bytes:
    """A pickle that leaves ``was_here`` behind when it is loaded."""
    torch.save({"epoch": 1, "state_dict": Command(f"touch {tmp_path}/was_here")}, tmp_path / "h")
    return (tmp_path / "h").read_bytes()


def test_a_last_checkpoint_that_carries_code_is_refused_and_not_run(
    run: Runs, done: Path, hostile: bytes
) -> None:
    (done / "checkpoints/last.ckpt").write_bytes(hostile)
    sentence = refused(run("resume=it"))
    assert "last.ckpt: refused, not run: this file wants to call posix.system" in sentence
    assert not (run.folder / "was_here").exists()


def test_so_are_weights(run: Runs, done: Path, hostile: bytes) -> None:
    (done / "checkpoints/vae_m4_best.pth").write_bytes(hostile)
    sentence = refused(run("task=evaluate", "run_dir=it"))
    assert "vae_m4_best.pth: refused, not run" in sentence
    assert not (run.folder / "was_here").exists()


def test_a_cache_entry_that_carries_code_is_not_run(run: Runs, done: Path, hostile: bytes) -> None:
    plain = pickle.dumps(Command(f"touch {run.folder}/was_here"))
    entries = [path for path in (run.folder / "it/cache").rglob("*") if path.is_file()]
    assert entries
    for number, path in enumerate(entries):
        path.write_bytes(hostile if number % 2 else plain)
    run("resume=it", "train.max_epochs=5")
    assert not (run.folder / "was_here").exists()


def test_the_hostile_file_would_have_run(run: Runs, tmp_path: Path, hostile: bytes) -> None:
    torch.load(tmp_path / "h", weights_only=False)
    assert (run.folder / "was_here").exists()


# --- nothing to resume


def test_a_folder_that_is_no_run_cannot_be_resumed(run: Runs) -> None:
    (run.folder / "empty").mkdir()
    assert "resume=empty: not a run folder" in refused(run("resume=empty"))


def test_a_run_whose_checkpoints_are_gone_is_not_started_anew(run: Runs, done: Path) -> None:
    shutil.rmtree(done / "checkpoints")
    before = (done / "logs/metrics.csv").read_bytes()
    sentence = refused(run("resume=it"))
    assert "nothing to resume, the checkpoints are gone" in sentence
    assert (done / "logs/metrics.csv").read_bytes() == before


def test_a_finished_run_says_so_and_stays_as_it_is(
    run: Runs, done: Path, undisturbed: Path
) -> None:
    ended = run("resume=it")
    assert ended.code == 0, ended.said
    assert "training is complete, all 4 epochs are done" in ended.said
    assert_same_run(done, undisturbed)


def test_fewer_epochs_than_are_done_is_an_error(run: Runs, done: Path) -> None:
    sentence = refused(run("resume=it", "train.max_epochs=3"))
    assert "train.max_epochs=3: this run has done 4 epochs already; give at least 4" in sentence


def test_a_moved_run_remembers_its_best_epoch(run: Runs, done: Path, undisturbed: Path) -> None:
    ended = run("resume=it", "train.max_epochs=5")
    assert ended.code == 0, ended.said
    assert "dirpath has changed" not in ended.said
    names = sorted(path.name for path in (done / "checkpoints").iterdir())
    assert names == ["best_epoch_0001.ckpt", "last.ckpt", "vae_m4_best.pth"]
    best = [path / "checkpoints/vae_m4_best.pth" for path in (done, undisturbed)]
    one, other = (torch.load(path, weights_only=True) for path in best)
    assert all(torch.equal(one[name], other[name]) for name in other)


def test_a_new_run_does_not_overwrite_an_old_one(
    run: Runs, done: Path, phantoms: str, undisturbed: Path
) -> None:
    assert refused(run(*RUN, phantoms, "~task.then"))
    arguments = [argument for argument in RUN if not argument.startswith("experiment=")]
    assert "already holds a run" in refused(run(*arguments, phantoms, "~task.then"))
    assert_same_run(done, undisturbed)


# --- the same seed


@pytest.mark.parametrize(
    "override", ["dataset.num_workers=2", "train.deterministic=true", "train.deterministic=warn"]
)
def test_workers_and_deterministic_algorithms_change_no_bit(
    run: Runs, phantoms: str, undisturbed: Path, override: str
) -> None:
    ended = run(*RUN, phantoms, "~task.then", override)
    assert ended.code == 0, ended.said
    assert_same_run(run.folder / "it", undisturbed)


# --- health


def test_a_run_that_diverges_names_the_batch_and_saves_no_bad_weights(
    run: Runs, phantoms: str
) -> None:
    sentence = refused(run(*RUN, phantoms, "~task.then", "train.lr=1e25"))
    assert "not finite in the batch of " in sentence
    assert not list((run.folder / "it/checkpoints").glob("*"))
