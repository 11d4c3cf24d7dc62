"""A run in a process of its own: how its end is told."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from vaelab.errors import Interrupted
from vaelab.runs.launch import run_apart
from vaelab.runs.status import begin, end


def program(folder: Path, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the process run ``text`` instead of vaelab."""
    file = folder / "program.py"
    file.write_text(text)
    started = subprocess.Popen

    def start(command: list[str], **settings: Any) -> subprocess.Popen[bytes]:
        assert command[:3] == [sys.executable, "-m", "vaelab.run"]
        return started([sys.executable, str(file), *command[3:]], **settings)

    monkeypatch.setattr(subprocess, "Popen", start)


def test_a_process_that_dies_without_a_word_is_a_failure_with_its_last_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    program(tmp_path, "import os; print('so far', flush=True); os._exit(3)", monkeypatch)
    status = run_apart(tmp_path, ["a=1"], tmp_path / "console.log")
    assert (status.state, status.error) == ("failed", "so far")
    status = run_apart(tmp_path, ["a=1"])  # on our own console, which is not read
    assert (status.state, status.error) == ("failed", "exit status 3")


def test_a_run_tells_how_it_ended_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    program(tmp_path, "import sys; sys.exit(int(sys.argv[1]))", monkeypatch)
    begin(tmp_path)
    end(tmp_path, "done", 0.5)
    assert run_apart(tmp_path, ["0"]).value == 0.5
    end(tmp_path, "failed", error="the disk is full")
    status = run_apart(tmp_path, ["1"])
    assert (status.state, status.error) == ("failed", "the disk is full")


def test_sigterm_is_passed_on_and_the_work_ends_resumable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    waits = f"""
import os, signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: sys.exit(75))
os.kill({os.getpid()}, signal.SIGTERM)
time.sleep(60)
"""
    program(tmp_path, waits, monkeypatch)
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(Interrupted, match="was asked to stop"):
        run_apart(tmp_path, [])
    assert signal.getsignal(signal.SIGTERM) is before
