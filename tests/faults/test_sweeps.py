"""A sweep that is killed, and run again with the same command, ends as if nothing had happened."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from vaelab.runs.status import read_status

from .conftest import BATCHES, RUN, STEP, RunsIn, assert_same_run

pytestmark = pytest.mark.faults

JOBS, EPOCHS = 4, 3
SWEEP = (
    "-m",
    *(argument for argument in RUN if argument != "run_dir=it"),
    "~task.then",
    f"train.max_epochs={EPOCHS}",
    "annealing=linear,constant",
    "train.kl_beta=0.5,4",
)


def folder_of(place: Path) -> Path:
    (sweep,) = (path for path in (place / "multirun_sweeps").iterdir() if path.is_dir())
    return sweep


def jobs(sweep: Path) -> list[Path]:
    return sorted(path.parent for path in sweep.glob("*/config_resolved.yaml"))


def test_a_sweep_killed_in_the_middle_and_run_again_equals_an_undisturbed_one(
    runs_in: RunsIn, phantoms: str, tmp_path: Path
) -> None:
    places = [tmp_path / name for name in ("killed", "undisturbed")]
    for place in places:
        place.mkdir()
    killed, undisturbed = map(runs_in, places)

    # In the second epoch of the third job.
    fault = {"call": STEP, "nth": (2 * EPOCHS + 1) * BATCHES + 2}
    assert killed(*SWEEP, phantoms, fault=fault).code == -signal.SIGKILL
    sweep = folder_of(killed.folder)
    before = [read_status(job) for job in jobs(sweep)]
    assert [status.state for status in before if status] == ["running", "done", "done"]
    assert not (sweep / "sweep.csv").exists()
    ended = killed(*SWEEP, phantoms)
    assert ended.code == 0, ended.said
    table = (sweep / "sweep.csv").read_text()
    assert (table.count("skipped"), table.count("done")) == (2, 2)

    ended = undisturbed(*SWEEP, phantoms)
    assert ended.code == 0, ended.said
    whole = folder_of(undisturbed.folder)
    assert whole.name == sweep.name
    assert len(jobs(whole)) == JOBS
    for one, other in zip(jobs(whole), jobs(sweep), strict=True):
        assert one.name == other.name
        assert_same_run(one, other)
        status, again = read_status(one), read_status(other)
        assert status is not None
        assert again is not None
        assert status.value == again.value
