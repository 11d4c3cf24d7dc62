"""What works on a machine, said before there is a run."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch

from vaelab.tasks.check_install import EXTRAS, GIB, enough, extra_installed, training_step

from ..conftest import CLI

if sys.version_info >= (3, 11):
    import tomllib


def test_the_check_needs_no_data_and_no_run_and_has_a_line_for_everything(
    cli: CLI, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert cli("task=check_install", "run_dir=checked") == 0
    lines = json.loads((tmp_path / "checked" / "check_install.json").read_text())["lines"]
    state = {line["what"]: line["state"] for line in lines}
    assert {"python", "torch", "device cpu", "device cuda", "device mps"} <= set(state)
    assert {"loader worker", "memory", "disk"} <= set(state)
    assert state["cpu 32-true"] == state["loader worker"] == "ok"
    assert {what.removeprefix("extra ") for what in state if what.startswith("extra")} == set(
        EXTRAS
    )
    shown = capfd.readouterr().out
    for line in lines:
        assert f"{line['what']:<22} {line['state']}" in shown
        assert (line["state"] == "ok") == (line["cure"] == ""), line


@pytest.mark.skipif(sys.version_info < (3, 11), reason="tomllib came with Python 3.11")
def test_every_extra_of_the_package_is_looked_for() -> None:
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())
    assert set(EXTRAS) == set(project["project"]["optional-dependencies"]) - {"dev"}


def test_an_extra_that_is_missing_comes_with_its_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(EXTRAS, "umap", ("umap_of_another_world", "json"))
    line = extra_installed("umap")
    assert (line.state, line.fact) == ("absent", "no umap_of_another_world")
    assert line.cure.endswith("pip install 'vaelab[umap]'")


@pytest.mark.parametrize(("free", "state"), [(2 * GIB, "ok"), (GIB // 2, "absent")])
def test_too_little_of_something_comes_with_the_cure(free: int, state: str) -> None:
    line = enough("disk", free, GIB, "name another disk")
    assert line.state == state
    assert line.fact == f"{free / GIB:.1f} GiB free"
    assert line.cure == ("" if state == "ok" else "name another disk")


@pytest.mark.skipif(torch.cuda.is_available(), reason="asks a machine without CUDA for it")
def test_a_device_that_does_not_work_is_named_with_its_own_words() -> None:
    line = training_step("cuda", "16-mixed")
    assert line.state == "absent"
    assert line.cure == "choose hardware.precision=32-true on cuda"
