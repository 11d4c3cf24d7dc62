"""What ends a training."""

from __future__ import annotations

from pathlib import Path

import pytest

from vaelab.runs.history import read_history

from ..conftest import CLI, TINY_XRAY


def epochs(run_dir: Path) -> list[float]:
    return read_history(run_dir / "logs" / "metrics.csv")["epoch"]


def test_no_epoch_begins_after_the_time_limit_and_a_higher_one_goes_on(
    cli: CLI, phantoms: str, tmp_path: Path
):
    limited = ["train.max_epochs=3", "train.max_minutes=1e-6"]
    assert cli(*TINY_XRAY, phantoms, *limited, "~task.then", "run_dir=it") == 0
    assert epochs(tmp_path / "it") == [0]  # the epoch that the limit fell into is whole
    assert list((tmp_path / "it" / "checkpoints").glob("*.pth"))

    assert cli("resume=it") == 0
    assert epochs(tmp_path / "it") == [0]  # the time before the interruption counts

    assert cli("resume=it", "train.max_minutes=1000") == 0
    assert epochs(tmp_path / "it") == [0, 1, 2]


@pytest.mark.parametrize("value", ["0", "-3"])
def test_a_time_limit_that_leaves_no_time_is_refused(
    cli: CLI, value: str, capsys: pytest.CaptureFixture[str]
):
    assert cli(*TINY_XRAY, f"train.max_minutes={value}", "run_dir=it") == 1
    assert f"train.max_minutes={value}" in capsys.readouterr().out
