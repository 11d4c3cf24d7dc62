"""SIGTERM: the run stops in order, says so by its exit status, and goes on when resumed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from vaelab.errors import EXIT_INTERRUPTED

from .conftest import BATCHES, RUN, STEP, VALIDATION, Runs, assert_same_run

pytestmark = pytest.mark.faults

MOMENTS: dict[str, dict[str, Any]] = {
    "before training": {"call": "vaelab.data.module:write_splits"},
    "in the first epoch": {"call": STEP, "nth": 2},
    "in a training batch": {"call": STEP, "nth": 2 * BATCHES + 2},
    "in the last batch of an epoch": {"call": STEP, "nth": 2 * BATCHES},
    "in validation": {"call": VALIDATION, "nth": 2},
    "in a checkpoint": {"replace": "*/last.ckpt", "nth": 2, "mode": "before"},
    "in the log": {"replace": "*/metrics.csv", "nth": 2, "mode": "before"},
}


@pytest.mark.parametrize("fault", MOMENTS.values(), ids=MOMENTS.keys())
def test_stopped_and_resumed_equals_never_stopped(
    run: Runs, phantoms: str, undisturbed: Path, fault: dict[str, Any]
) -> None:
    ended = run(*RUN, phantoms, "~task.then", fault=fault | {"signal": "SIGTERM"})
    assert ended.code == EXIT_INTERRUPTED, ended.said
    assert "Traceback" not in ended.said
    assert "resume=it" in ended.said
    assert json.loads((run.folder / "it/status.json").read_text())["state"] == "interrupted"
    ended = run("resume=it")
    assert ended.code == 0, ended.said
    assert_same_run(run.folder / "it", undisturbed)


def test_workers_that_get_the_signal_too_are_no_failure_and_resume_in_the_right_order(
    run: Runs, phantoms: str, undisturbed: Path
) -> None:
    fault = {"call": STEP, "nth": BATCHES + 1, "signal": "SIGTERM", "group": True}
    ended = run(*RUN, phantoms, "~task.then", "dataset.num_workers=2", fault=fault)
    assert ended.code == EXIT_INTERRUPTED, ended.said
    assert "Traceback" not in ended.said
    ended = run("resume=it")
    assert ended.code == 0, ended.said
    assert_same_run(run.folder / "it", undisturbed)


def test_the_batch_is_finished_and_the_last_good_checkpoint_named(run: Runs, phantoms: str) -> None:
    fault = {"call": STEP, "nth": BATCHES + 1, "signal": "SIGTERM"}
    ended = run(*RUN, phantoms, "~task.then", fault=fault)
    assert "stopped by SIGTERM in epoch 1; the last good checkpoint is " in ended.said
    assert "it/checkpoints/last.ckpt, epoch 0" in ended.said


def test_a_task_after_training_is_stopped_too_and_done_when_resumed(
    run: Runs, phantoms: str
) -> None:
    fault = {"replace": "*/metrics.json", "mode": "before", "signal": "SIGTERM"}
    one_epoch = ("train.max_epochs=1", "train.kl_annealing_epochs=0")
    drop = ("~task.then.report", "~task.then.report_card")
    ended = run(*RUN, phantoms, *one_epoch, *drop, fault=fault)
    assert ended.code == EXIT_INTERRUPTED, ended.said
    assert not (run.folder / "it/metrics.json").exists()
    assert run("resume=it").code == 0
    assert (run.folder / "it/metrics.json").is_file()
