"""Claims about digests of files: right whatever happens to the file, and computed once."""

from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path

import pytest

from vaelab.data import identity
from vaelab.data.identity import FileDigests, digest_of, state_of


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file that is remembered at once, as one that has been there for a while."""
    monkeypatch.setattr(identity, "SETTLED", -60)
    path = tmp_path / "fileé\n.nii"
    path.write_bytes(b"content")
    return path


class Reads:
    """How many files were hashed."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.count = 0
        patch.setattr(identity.hashlib, "sha256", self)
        self.sha256 = hashlib.new

    def __call__(self) -> object:
        self.count += 1
        return self.sha256("sha256")


def test_it_is_the_digest_of_the_content(file: Path, tmp_path: Path) -> None:
    assert FileDigests(tmp_path)(file) == hashlib.sha256(b"content").hexdigest()


def test_a_file_is_read_once_whatever_the_runs(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads = Reads(monkeypatch)
    for _ in range(3):  # runs
        digests = FileDigests(tmp_path)
        assert len({digests(file) for _ in range(3)}) == 1
    assert reads.count == 1


def test_a_replaced_file_is_read_again_even_with_the_same_size_and_date(
    file: Path, tmp_path: Path
) -> None:
    digests = FileDigests(tmp_path)
    os.utime(file, ns=(5, 5))
    before = digests(file)
    file.write_bytes(b"CONTENT")
    os.utime(file, ns=(5, 5))
    assert digests(file) != before
    other = tmp_path / "other"
    other.write_bytes(b"another")
    shutil.copystat(file, other)
    os.replace(other, file)
    assert digests(file) == hashlib.sha256(b"another").hexdigest()


def test_a_file_that_may_still_change_unnoticed_is_not_remembered(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two writes within one step of the clock leave the same times."""
    monkeypatch.setattr(identity, "SETTLED", 60)
    reads = Reads(monkeypatch)
    digests = FileDigests(tmp_path)
    digests(file), digests(file)
    assert reads.count == 2


@pytest.mark.parametrize("damage", [lambda b: b[:-3], lambda b: b[:20] + b"x" + b[21:], bytes])
def test_a_damaged_memory_is_forgotten(file: Path, tmp_path: Path, damage) -> None:
    FileDigests(tmp_path)(file)
    (memory,) = tmp_path.glob("digests-*.txt")
    memory.write_bytes(damage(memory.read_bytes()).replace(b"ed7002", b"ed7003"))
    assert FileDigests(tmp_path)(file) == hashlib.sha256(b"content").hexdigest()


def test_processes_share_what_they_know_without_sharing_a_file(file: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.write_bytes(b"other")
    one, two = FileDigests(tmp_path), FileDigests(tmp_path)
    one(file), two(other)
    assert len(list(tmp_path.glob("digests-*.txt"))) == 2
    assert len(FileDigests(tmp_path)._known) == 2


def test_a_process_computes_a_digest_once_and_again_when_the_file_is_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "weights.pth"
    digests, states = [], []
    reads = Reads(monkeypatch)
    for content in (b"one", b"two"):
        (tmp_path / "new").write_bytes(content)
        (tmp_path / "new").replace(path)
        digests += [digest_of(path), digest_of(path)]
        states.append(state_of(path))
    assert reads.count == 2
    monkeypatch.undo()
    one, two = (hashlib.sha256(content).hexdigest() for content in (b"one", b"two"))
    assert digests == [one, one, two, two]
    assert states[0] != states[1]
