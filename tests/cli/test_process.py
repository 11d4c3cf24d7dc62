"""Standard streams, encodings and SIGTERM, before a run has begun."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from vaelab.cli.run_folder import new_folder
from vaelab.errors import EXIT_INTERRUPTED
from vaelab.runs.status import read_status

from ..conftest import CLI

CHECK = (
    "task=check_data", "dataset=phantom_xray", "model=conv2d_vae",
    "dataset.phantoms.num_train=4", "dataset.phantoms.num_test=4",
)  # fmt: skip

STOPPED_AT_AN_IMPORT = """
import os, runpy, signal, sys

class Stop:
    @staticmethod
    def find_spec(name, path=None, target=None):
        if name == {module!r}:
            os.kill(os.getpid(), signal.SIGTERM)

sys.meta_path.insert(0, Stop)
sys.argv = ["vaelab", *{arguments!r}]
runpy.run_module("vaelab.run", run_name="__main__")
"""


@pytest.mark.parametrize(
    "module", ["hydra", "omegaconf", "vaelab.cli.job", "torch", "lightning", "vaelab.assembly"]
)
def test_sigterm_during_start_up_is_reported_as_nothing_has_begun(module: str, tmp_path: Path):
    code = STOPPED_AT_AN_IMPORT.format(module=module, arguments=CHECK)
    ended = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert ended.returncode == EXIT_INTERRUPTED
    assert ended.stderr.splitlines()[-1] == "vaelab: stopped by SIGTERM; nothing has begun"
    assert not list(tmp_path.glob("outputs/*/config_resolved.yaml"))


def test_sigterm_while_the_parts_are_built_leaves_an_interrupted_run(tmp_path: Path):
    code = STOPPED_AT_AN_IMPORT.format(module="pydantic", arguments=(*CHECK, "run_dir=run"))
    ended = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert ended.returncode == EXIT_INTERRUPTED, ended.stderr
    assert "the same command goes on with run_dir=run" in ended.stdout
    status = read_status(tmp_path / "run")
    assert status is not None
    assert status.state == "interrupted"


def test_a_run_works_without_standard_streams(tmp_path: Path):
    command = f'exec "{sys.executable}" -m vaelab.run "$@" <&- >&- 2>&-'
    ended = subprocess.run(
        ["sh", "-c", command, "sh", *CHECK, "run_dir=run"], cwd=tmp_path, check=False
    )
    assert ended.returncode == 0
    status = read_status(tmp_path / "run")
    assert status is not None
    assert status.state == "done"
    # The log is complete, and not mixed up with the console's stream.
    assert "everything is in" in (tmp_path / "run" / "train.log").read_text("utf-8")


@pytest.mark.parametrize("encoding", ["ascii", "cp1252"])
def test_help_is_shown_in_any_encoding(encoding: str):
    ended = subprocess.run(
        [sys.executable, "-m", "vaelab.run", "--help"],
        env={**os.environ, "PYTHONIOENCODING": encoding},
        capture_output=True,
        check=False,
    )
    assert ended.returncode == 0
    assert b"Traceback" not in ended.stderr
    assert b"annealing=linear" in ended.stdout


def test_runs_that_begin_at_the_same_time_have_different_folders(tmp_path: Path):
    folders: list[Path] = []
    wanted = tmp_path / "outputs" / "now"
    threads = [
        threading.Thread(target=lambda: folders.append(new_folder(wanted))) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {path.name for path in folders} == {"now", *(f"now_{number}" for number in range(2, 9))}
    assert all(path.is_dir() for path in folders)


def test_a_second_run_in_the_same_second_takes_the_next_name(cli: CLI, tmp_path: Path):
    arguments = (*CHECK, "run_dir=outputs/${now:always}_${name}", f"dataset.root_dir={tmp_path}/x")
    for name in ("always_phantom_xray", "always_phantom_xray_2"):
        assert cli(*arguments) == 0
        assert (tmp_path / "outputs" / name / "config_resolved.yaml").is_file()
    assert len(list((tmp_path / "outputs").iterdir())) == 2
