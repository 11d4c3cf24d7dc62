"""The colour scale of a run's heat maps, measured on its held-out images and kept."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from vaelab.anomaly.detector import Prediction
from vaelab.assembly import Run
from vaelab.atomic import write_json
from vaelab.evaluation.judge import judge_of
from vaelab.evaluation.kept import judged_by, read_kept
from vaelab.metrics.histogram import ValueHistogram

HEAT_QUANTILE = 0.995
DARKEST = 1e-30
"""Where every healthy map is 0, the scale still needs a top above 0."""


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
        content = read_kept(path)
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


def _mapped_by(run: Run) -> dict[str, Any]:
    """What a map of this run depends on."""
    return judged_by(run) | {"map_sigma": run.map_sigma}
