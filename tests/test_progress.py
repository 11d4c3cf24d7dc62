"""Bars are for somebody who looks: on a terminal, and not where they are switched off."""

from __future__ import annotations

import io
import re
import sys
from pathlib import Path

import pytest

from vaelab.data.phantoms.xray import PhantomXray
from vaelab.progress import progress, set_job


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("stream", "asked", "shown"),
    [(Terminal(), True, True), (Terminal(), False, False), (io.StringIO(), True, False)],
    ids=["terminal", "switched off", "log file"],
)
def test_a_bar_is_drawn_on_a_terminal_where_it_is_asked_for(
    stream: io.StringIO, asked: bool, shown: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(sys, "stderr", stream)
    assert list(progress(range(3), "counting", shown=asked)) == [0, 1, 2]
    PhantomXray(num_train=2, num_test=2, image_size=48).prepare(tmp_path, asked)
    for name in ("counting", "writing X-ray phantoms"):
        assert (name in stream.getvalue()) == shown, name


def test_bars_of_jobs_side_by_side_have_their_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", terminal := Terminal())
    set_job("train.lr=0.1")
    try:
        list(progress(range(3), "counting", shown=True))
    finally:
        set_job("")
    assert "\rtrain.lr=0.1: counting: " in terminal.getvalue()
    list(progress(range(3), "alone", shown=True))
    assert ": alone" not in terminal.getvalue()


def test_nothing_draws_a_bar_of_its_own() -> None:
    package = Path(__file__).parents[1] / "vaelab"
    users = {
        path.relative_to(package).as_posix()
        for path in package.rglob("*.py")
        if re.search(r"\btqdm\(|import tqdm", path.read_text(encoding="utf-8"))
    }
    assert users == {"progress.py"}
