"""Calibrations of a run: its own, by normal images of its data set, and one of another machine.

Each is a file that says which weights and which score it is of, and decides nothing once these
have changed.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vaelab.anomaly.calibration import ConformalCalibration
from vaelab.anomaly.detector import Prediction
from vaelab.assembly import Run
from vaelab.atomic import write_json
from vaelab.evaluation.kept import judged_by, read_kept
from vaelab.evaluation.shift_alarm import NormalsSeen, Seen, ShiftAlarm, compare

log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Calibrated:
    """A calibration, and what it was made of."""

    calibration: ConformalCalibration
    source: str
    """In words, which images."""
    seen: Seen | None
    """What new images are compared with; None where the file does not hold it."""

    def shift(self, new: Seen) -> ShiftAlarm | None:
        """Whether new images look like those of the calibration; None where nobody can tell.

        Args:
            new: one image of each patient.
        """
        return None if self.seen is None else compare(self.seen, self.source, new)

    def to_json(self) -> dict[str, Any]:
        """What outputs that show p-values say of where these come from."""
        return {
            "source": self.source,
            "images": self.calibration.count,
            "smallest_alpha": self.calibration.smallest_alpha,
        }


class HeldOutScores:
    """Scores of held-out normal images, one of each patient, for conformal p-values.

    This is split conformal prediction: of n such images and a new normal one P(p ≤ α) ≤ α, on
    average over calibrations. Scores out of fold, each normal image judged by a network that has
    not learned from it, would use all normal images, and promise P(p ≤ α) ≤ 2α + (1 − K/n)/(K + 1)
    of K folds (cross-conformal; Barber et al. 2021, arXiv:1905.02928, theorem 4). Nothing here has
    such folds: the members of an ``EnsembleVAE`` meet every training image in one epoch or another,
    and scores of images that were learned from may be too low: nothing is promised of them.

    Args:
        run: with its data set up. They are of the split ``calibration`` where there is one; else of
            ``val``, which has chosen the epoch, so that false alarms may be a little more than
            promised.
    """

    def __init__(self, run: Run) -> None:
        self.split = "calibration" if "calibration" in run.data.splits else "val"
        self._run = run
        self._seen = NormalsSeen(run.data.splits[self.split])

    def add(self, batch: Mapping[str, Any], prediction: Prediction) -> None:
        """Take note of a batch."""
        self._seen.add(batch, prediction)

    def write(self) -> Calibrated:
        """Keep them in ``calibration.json``, with what they are of and what the images look like.

        Raises:
            UserError: when a score is not finite.
        """
        seen = self._seen.result()
        assert seen is not None, "no normal image was added"
        source = f"{len(seen)} normal images of the run's own {self.split} split"
        return _write(self._run, self._run.folder.calibration, seen, source)


def write_local(run: Run, seen: Seen, source: str) -> Calibrated:
    """Keep a calibration by normal images from elsewhere in ``calibration_local.json``.

    Args:
        run: a trained one.
        seen: one image of each patient.
        source: in words, which images.
    """
    return _write(run, run.folder.local_calibration, seen, source)


def own_calibration(run: Run) -> Calibrated | None:
    """The run's own, if it is of the score and weights in use; else None, and the log says why.

    Raises:
        UserError: when the file is damaged.
    """
    path = run.folder.calibration
    if not path.is_file():
        log.info(
            "%s does not exist: there are no p-values and flags; task=evaluate writes it where "
            "there are normal images",
            path,
        )
        return None
    return _read(run, path, "calibrate anew with task=evaluate and the current score")


def calibration_in_use(run: Run) -> Calibrated | None:
    """What new images are judged by: the calibration of ``task=calibrate``, else the run's own.

    A local one that is out of date gives None, not the run's own: these are other promises.

    Raises:
        UserError: when the file is damaged.
    """
    path = run.folder.local_calibration
    if not path.is_file():
        return own_calibration(run)
    return _read(run, path, "repeat task=calibrate, or take it away with task.remove=true")


def _write(run: Run, path: Path, seen: Seen, source: str) -> Calibrated:
    calibration = ConformalCalibration(seen.scores)
    content = {"source": source} | calibration.to_json() | {"seen": seen.to_json()}
    write_json(path, judged_by(run) | content)
    return Calibrated(calibration, source, seen)


def _read(run: Run, path: Path, cure: str) -> Calibrated | None:
    content = read_kept(path)
    for key, now in judged_by(run).items():
        if content.get(key, now) != now:  # whoever writes only scores vouches for them
            log.warning(
                "%s is of %s %s, not %s: there are no p-values and flags; %s",
                *(path, key, content[key], now, cure),
            )
            return None
    calibration = ConformalCalibration.from_json(content, path)
    known = content.get("seen")
    seen = None if known is None else Seen.from_json(calibration.scores, known, path)
    return Calibrated(calibration, str(content.get("source", f"scores in {path.name}")), seen)
