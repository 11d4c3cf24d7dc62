"""A run that is killed, at any moment, and resumed ends as if it had never been killed."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import pytest

from .conftest import BATCHES, EPOCHS, RUN, STEP, VALIDATION, Ended, Runs, assert_same_run

pytestmark = pytest.mark.faults


def killed(ended: Ended) -> bool:
    return ended.code == -signal.SIGKILL


MOMENTS: dict[str, dict[str, Any]] = {
    "while the cache is built": {"replace": "*/cache/*", "nth": 5, "mode": "half"},
    "before the split is whole": {"replace": "*/splits/train.csv", "mode": "before"},
    "in the first epoch": {"call": STEP, "nth": 2},
    "in a training batch": {"call": STEP, "nth": 2 * BATCHES + 2},
    "between two epochs": {"call": STEP, "nth": BATCHES + 1},
    "in validation": {"call": VALIDATION, "nth": 2},
    "in a picture": {"replace": "*/recon/*.png", "nth": 2, "mode": "half"},
    "before the first row of the log": {"replace": "*/metrics.csv", "mode": "before"},
    "between the first row and the first checkpoint": {"replace": "*/metrics.csv", "mode": "after"},
    "in a row of the log": {"replace": "*/metrics.csv", "nth": 2, "mode": "half"},
    "between a row and its checkpoint": {"replace": "*/metrics.csv", "nth": 3, "mode": "after"},
    "in a better checkpoint": {"replace": "*/best_*.ckpt", "nth": 2, "mode": "half"},
    "between a better checkpoint and the last": {
        "replace": "*/best_*.ckpt", "nth": 2, "mode": "after",
    },
    "when the second best checkpoint is gone": {
        "call": "vaelab.training.checkpoint:AtomicCheckpointIO.remove_checkpoint", "after": True,
    },
    "in the last checkpoint": {"replace": "*/last.ckpt", "nth": 3, "mode": "half"},
    "right after a checkpoint": {"replace": "*/last.ckpt", "nth": 2, "mode": "after"},
    "in the best weights": {"replace": "*/vae_m4_best.pth", "nth": 2, "mode": "half"},
    "after the very last checkpoint": {"replace": "*/last.ckpt", "nth": EPOCHS, "mode": "after"},
}  # fmt: skip


@pytest.mark.parametrize("fault", MOMENTS.values(), ids=MOMENTS.keys())
def test_killed_and_resumed_equals_never_killed(
    run: Runs, phantoms: str, undisturbed: Path, fault: dict[str, Any]
) -> None:
    ended = run(*RUN, phantoms, "~task.then", fault=fault)
    assert killed(ended), ended.said
    ended = run("resume=it")
    assert ended.code == 0, ended.said
    assert_same_run(run.folder / "it", undisturbed)


def test_killed_again_and_again_while_it_is_resumed(
    run: Runs, phantoms: str, undisturbed: Path
) -> None:
    assert killed(run(*RUN, phantoms, "~task.then", fault={"call": STEP, "nth": BATCHES + 2}))
    for fault in (
        {"replace": "*/metrics.csv", "mode": "half"},  # the rows to be written again are dropped
        {"call": STEP, "nth": 1},
        {"replace": "*/last.ckpt", "mode": "after"},  # one epoch more
        {"call": VALIDATION, "nth": 1},
    ):
        ended = run("resume=it", fault=fault)
        assert killed(ended), ended.said
    ended = run("resume=it")
    assert ended.code == 0, ended.said
    assert_same_run(run.folder / "it", undisturbed)


def test_killed_in_a_task_after_training_the_rest_is_done(run: Runs, phantoms: str) -> None:
    fault = {"replace": "*/metrics.json", "mode": "half"}
    one_epoch = ("train.max_epochs=1", "train.kl_annealing_epochs=0")
    ended = run(*RUN, phantoms, *one_epoch, "~task.then.report", fault=fault)
    assert killed(ended), ended.said
    log = (run.folder / "it/logs/metrics.csv").read_bytes()
    ended = run("resume=it")
    assert ended.code == 0, ended.said
    assert "training is complete, all 1 epochs are done" in ended.said
    assert (run.folder / "it/metrics.json").is_file()
    assert (run.folder / "it/report_card.png").is_file()
    assert (run.folder / "it/logs/metrics.csv").read_bytes() == log
