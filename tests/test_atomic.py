"""Claims about files and folders that are complete or absent."""

from __future__ import annotations

import errno
import os
import pickle
import stat
from pathlib import Path

import pytest

from vaelab.atomic import (
    NoSpaceError,
    remove_partials,
    replacing,
    write_bytes,
    write_folder_once,
    write_json,
)


def put(path: Path, text: str, error: type[BaseException] | None = None) -> None:
    with replacing(path) as partial:
        partial.write_text(text)
        if error:
            raise error


def test_a_file_appears_with_its_parents_and_nothing_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "er" / "a.csv"
    put(path, "new")
    assert path.read_text() == "new"
    assert list(path.parent.iterdir()) == [path]


def test_until_the_block_ends_a_reader_sees_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    put(path, "old")
    with replacing(path) as partial:
        partial.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, SystemExit])
def test_an_interrupted_write_leaves_the_old_file_and_no_trace(
    tmp_path: Path, error: type[BaseException]
) -> None:
    path = tmp_path / "a.csv"
    put(path, "old")
    with pytest.raises(error):
        put(path, "half of the n", error)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_an_interrupted_first_write_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError):
        put(tmp_path / "a.csv", "half", RuntimeError)
    assert list(tmp_path.iterdir()) == []


def test_two_writers_do_not_write_into_each_others_file(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    with replacing(path) as slow, replacing(path) as fast:
        assert slow != fast
        slow.write_text("slow")
        fast.write_text("fast")
    assert path.read_text() == "slow"  # its block ends last
    assert list(tmp_path.iterdir()) == [path]


def test_a_partial_file_does_not_look_like_the_finished_kind(tmp_path: Path) -> None:
    with replacing(tmp_path / "train.csv") as partial:
        partial.touch()
        assert list(tmp_path.glob("*.csv")) == []


def test_a_folder_is_written_once_and_then_left_alone(tmp_path: Path) -> None:
    calls: list[Path] = []

    def write(folder: Path) -> None:
        calls.append(folder)
        (folder / "data").write_text(str(len(calls)))

    folder = tmp_path / "deep" / "cohort"
    assert write_folder_once(folder, write) == folder
    assert write_folder_once(folder, write) == folder
    assert len(calls) == 1
    assert (folder / "data").read_text() == "1"
    assert list(folder.parent.iterdir()) == [folder]


def test_a_folder_is_not_there_before_it_is_complete(tmp_path: Path) -> None:
    folder = tmp_path / "cohort"
    seen: list[bool] = []
    write_folder_once(folder, lambda _: seen.append(folder.exists()))
    assert seen == [False]
    assert folder.is_dir()


def test_an_interrupted_folder_leaves_nothing_and_can_be_written_again(tmp_path: Path) -> None:
    folder = tmp_path / "cohort"

    def pull_the_plug(unfinished: Path) -> None:
        (unfinished / "half").touch()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_folder_once(folder, pull_the_plug)
    assert list(tmp_path.iterdir()) == []
    write_folder_once(folder, lambda unfinished: (unfinished / "whole").touch())
    assert [path.name for path in folder.iterdir()] == ["whole"]


def test_of_two_that_race_for_a_folder_the_slower_discards_its_copy(tmp_path: Path) -> None:
    folder = tmp_path / "cohort"

    def overtaken(unfinished: Path) -> None:
        (unfinished / "slow").touch()
        write_folder_once(folder, lambda winner: (winner / "fast").touch())

    assert write_folder_once(folder, overtaken) == folder
    assert [path.name for path in folder.iterdir()] == ["fast"]
    assert list(tmp_path.iterdir()) == [folder]


def test_a_folder_that_cannot_take_its_name_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "cohort").touch()  # a file is in the way
    with pytest.raises(OSError, match="cohort"):
        write_folder_once(tmp_path / "cohort", lambda folder: (folder / "data").touch())
    assert [path.name for path in tmp_path.iterdir()] == ["cohort"]


def test_a_folder_is_as_open_to_others_as_any_new_folder(tmp_path: Path) -> None:
    (tmp_path / "plain").mkdir()
    folder = write_folder_once(tmp_path / "cohort", lambda _: None)
    modes = {stat.S_IMODE(path.stat().st_mode) for path in (folder, tmp_path / "plain")}
    assert len(modes) == 1


def test_json_that_cannot_be_written_leaves_the_older_file(tmp_path: Path) -> None:
    path = tmp_path / "metrics.json"
    write_json(path, {"auroc": 0.5})
    older = path.read_text()
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(path, {"auroc": float("nan")})
    assert path.read_text() == older
    assert [file.name for file in tmp_path.iterdir()] == ["metrics.json"]


# --- no room


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_a_full_disk_is_one_sentence_with_the_file_the_size_and_the_cure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    path = tmp_path / "a.bin"
    write_bytes(path, b"old")

    def full(_descriptor: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(NoSpaceError) as refusal:
        write_bytes(path, b"n" * 2_500_000)
    message = str(refusal.value)
    assert message.startswith(
        f"{path}: no room to write this file of 2.5 MB ({os.strerror(number)}"
    )
    assert "MB are free); free some space" in message
    assert refusal.value.errno == number
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_its_sentence_survives_the_way_out_of_a_worker_process() -> None:
    error = NoSpaceError(errno.ENOSPC, "no room")
    assert str(pickle.loads(pickle.dumps(error))) == "no room"
    assert str(NoSpaceError("no room")) == "no room"  # torch's loader hands on the text alone


def test_another_error_of_the_disk_stays_itself(tmp_path: Path) -> None:
    with pytest.raises(PermissionError), replacing(tmp_path / "a.bin"):
        raise PermissionError(errno.EACCES, "no")


def test_what_a_killed_writer_left_is_removed_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    kept = [tmp_path / "a.csv", tmp_path / "deep" / "b.partial"]
    left = [tmp_path / ".a.csv-0123.partial", tmp_path / "deep" / ".c.ckpt-4567.partial"]
    for path in (*kept, *left):
        path.write_text("")
    remove_partials(tmp_path)
    assert sorted(path for path in tmp_path.rglob("*") if path.is_file()) == sorted(kept)
    remove_partials(tmp_path / "absent")
