"""Which jobs SLURM has in its queue, by what squeue prints."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from vaelab.errors import UserError
from vaelab.runs.queue import jobs_in_queue, note_submission, submissions


@pytest.fixture
def squeue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A program that prints, for --name=NAME, the file NAME beside it."""
    program = tmp_path / "bin" / "squeue"
    program.parent.mkdir()
    program.write_text('#!/bin/sh\ncat "$(dirname "$0")/${3#--name=}"\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", os.pathsep.join([str(program.parent), os.environ["PATH"]]))
    return program.parent


def test_jobs_of_an_array_and_one_alone_are_found_by_their_folders(
    squeue: Path, tmp_path: Path
) -> None:
    note_submission(tmp_path, "x_1", ["beta=1", "beta=2", "beta=4"])
    note_submission(tmp_path, "x_2", ["beta=8"])
    (squeue / "x_1").write_text("2 PENDING\n1 COMPLETING\n")
    (squeue / "x_2").write_text("N/A RUNNING\n")
    expected = {"beta=4": "queued", "beta=2": "running", "beta=8": "running"}
    assert jobs_in_queue(tmp_path) == expected


def test_a_submission_is_forgotten_when_all_its_jobs_have_ended(
    squeue: Path, tmp_path: Path
) -> None:
    note_submission(tmp_path, "x_1", ["beta=1"])
    (squeue / "x_1").write_text("")
    assert jobs_in_queue(tmp_path) == {}
    assert submissions(tmp_path) == ["x_1"]  # another process may be about to submit it
    jobs_in_queue(tmp_path, forget=True)
    assert submissions(tmp_path) == []


def test_a_cluster_that_does_not_answer_is_no_empty_queue(squeue: Path, tmp_path: Path) -> None:
    note_submission(tmp_path, "x_1", ["beta=1"])
    with pytest.raises(UserError, match=r"squeue: .*No such file"):
        jobs_in_queue(tmp_path)
