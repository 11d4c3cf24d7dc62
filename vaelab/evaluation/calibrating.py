"""What a run keeps for judging others: calibration scores, and the colour scale of heat maps.

Each file says which weights and which score it is of, and is made anew when these change.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from inspect import signature
from pathlib import Path
from typing import Any

import numpy as np

from vaelab.anomaly.calibration import ConformalCalibration
from vaelab.anomaly.detector import Prediction
from vaelab.assembly import Run
from vaelab.atomic import write_json
from vaelab.data.identity import digest_of
from vaelab.errors import UserError
from vaelab.evaluation.judge import judge_of
from vaelab.metrics.histogram import ValueHistogram

log = logging.getLogger(__name__)

HEAT_QUANTILE = 0.995
DARKEST = 1e-30
"""Where every healthy map is 0, the scale still needs a top above 0."""


class HeldOutScores:
    """Scores of held-out normal images, one of each patient, for conformal p-values.

    Args:
        run: with its data set up. They are of the split ``calibration`` where there is one; else of
            ``val``, which has chosen the epoch, so that false alarms may be a little more than
            promised.
    """

    def __init__(self, run: Run) -> None:
        self.split = "calibration" if "calibration" in run.data.splits else "val"
        self._run = run
        self._patients = {r["id"]: r["patient"] for r in run.data.splits[self.split]}
        self._first: dict[str, float] = {}

    def add(self, batch: Mapping[str, Any], prediction: Prediction) -> None:
        """Take note of a batch."""
        for identifier, score in zip(batch["id"], prediction.score.tolist(), strict=True):
            self._first.setdefault(self._patients[identifier], score)

    def write(self) -> ConformalCalibration:
        """Keep them in ``calibration.json``, with what they are of."""
        calibration = ConformalCalibration(np.array(list(self._first.values())))
        content = _judged_by(self._run) | {"split": self.split} | calibration.to_json()
        write_json(self._run.folder.calibration, content)
        return calibration


def load_calibration(run: Run) -> ConformalCalibration | None:
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
    content = _read(path)
    for key, now in _judged_by(run).items():
        if content.get(key, now) != now:  # whoever writes only scores vouches for them
            log.warning(
                "%s is of %s %s, not %s: there are no p-values and flags; "
                "calibrate anew with task=evaluate and the current score",
                *(path, key, content[key], now),
            )
            return None
    return ConformalCalibration.from_json(content, path)


@dataclass(frozen=True)
class HeatScale:
    """The one colour scale of all heat maps of a run."""

    top: float
    """From here on maps are brightest; above 0."""
    source: str
    """In words, what ``top`` is of."""
    quantity: str
    """In words, what the maps show."""


class HealthyMaps:
    """Map values of healthy tissue: of held-out images, and of a volume outside its lesions.

    Args:
        run: whose score the maps are of.
    """

    def __init__(self, run: Run) -> None:
        self._run = run
        self._values = ValueHistogram()
        self._segmented = False
        self._shows_score = False

    def add(self, batch: Mapping[str, Any], prediction: Prediction) -> None:
        """Take note of a batch."""
        heat = prediction.heatmap
        self._shows_score = prediction.shows_score
        if "seg" in batch:
            self._segmented = True
            heat = heat[batch["seg"][:, 0] == 0]
        self._values = self._values.add(heat.numpy())

    def write(self) -> HeatScale:
        """Keep the scale in ``heat_scale.json``, with what it is of."""
        where = "tissue outside tumours" if self._segmented else "held-out images without a finding"
        scale = HeatScale(
            max(self._values.quantile(HEAT_QUANTILE), DARKEST),
            f"{100 * HEAT_QUANTILE:g}th percentile of {where}",
            map_name(self._run, self._shows_score),
        )
        content = {"scale": scale.top, "source": scale.source, "quantity": scale.quantity}
        write_json(self._run.folder.heat_scale, _mapped_by(self._run) | content)
        return scale


def heat_scale(run: Run) -> HeatScale:
    """The run's own colour scale.

    Measured once on the run's held-out images and kept, so that every map of a run has the same
    scale, also where the images are not at hand.

    Raises:
        UserError: when it has to be measured and the data cannot be read.
    """
    path = run.folder.heat_scale
    if path.is_file():
        content = _read(path)
        if all(content.get(key) == value for key, value in _mapped_by(run).items()):
            return HeatScale(
                float(content["scale"]), str(content["source"]), str(content["quantity"])
            )
    run.data.setup("test")
    healthy = HealthyMaps(run)
    for batch, prediction in judge_of(run).examine("val"):
        healthy.add(batch, prediction)
    return healthy.write()


def map_name(run: Run, shows_score: bool) -> str:
    """In words, what the heat maps of a run show."""
    score = type(run.score).__name__
    return f"evidence of {score}" if shows_score else f"|x − x̂|, since {score} has no place"


def describe_score(score: Any) -> dict[str, Any]:
    """Class and constructor arguments of a score, as JSON; what it learned is left out."""
    arguments = {}
    for name in signature(type(score)).parameters:
        value = getattr(score, name, None)
        if isinstance(value, Mapping):
            value = {key: describe_score(member) for key, member in value.items()}
        if isinstance(value, tuple):
            value = list(value)
        arguments[name] = value
    return {"score": type(score).__name__, "arguments": arguments}


def _judged_by(run: Run) -> dict[str, Any]:
    """What a score of this run depends on."""
    return describe_score(run.score) | {"weights_sha256": digest_of(run.weights)}


def _mapped_by(run: Run) -> dict[str, Any]:
    """What a map of this run depends on."""
    return _judged_by(run) | {"map_sigma": run.map_sigma}


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{path}: not a JSON file ({error}); calibrate the run anew") from error
    if not isinstance(content, dict):
        raise UserError(f"{path}: holds no table of values; calibrate the run anew")
    return content
