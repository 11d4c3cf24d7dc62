"""One pass of a run's images through its network, for all that ``task=evaluate`` has to say.

Who wants to know something of a batch is a listener; the plan says which listeners hear of which
images. The images that localisation chooses its threshold on come first.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from vaelab.anomaly.detector import Prediction
from vaelab.evaluation.baselines import Baselines
from vaelab.evaluation.calibrating import Calibrated, HeldOutScores
from vaelab.evaluation.diagnostics import ImportanceWeights, LogLikelihood
from vaelab.evaluation.heat_scale import HealthyMaps
from vaelab.evaluation.judge import Judge, judged_split
from vaelab.evaluation.localisation import (
    ChosenThreshold,
    Localisation,
    LocalisedLesions,
    choose_parts,
)
from vaelab.evaluation.map_tally import mask_of
from vaelab.evaluation.objective import ObjectiveEntries
from vaelab.evaluation.predictions import Predictions, PredictionsOf
from vaelab.evaluation.shift_alarm import NormalsSeen, ShiftAlarm
from vaelab.progress import progress


class Listener(Protocol):
    """Takes from a batch what it needs, and keeps nothing the size of an image."""

    def add(self, batch: Mapping[str, Any], prediction: Prediction) -> None:
        """Take note of a batch."""
        ...


class Stretch(NamedTuple):
    """Some images of a split, and who hears of them."""

    split: str
    places: Sequence[int] | None
    """Of the records in the split; None for all."""
    listeners: Sequence[Listener]


@dataclass(frozen=True)
class Judged:
    """What came of the pass."""

    predictions: Predictions
    """Of the judged split."""
    entries: Mapping[str, float]
    """Of the objective, summed over the judged split."""
    likelihood: LogLikelihood | None
    calibrated: Calibrated | None
    """None where the data have no labels."""
    shift: ShiftAlarm | None
    """Of the judged normal images against the calibration's."""
    localisation: Localisation | None
    """None where the data have no masks, or no lesion on one of the two sides."""


def judge_once(judge: Judge, importance_samples: int, num_resamples: int, seed: int) -> Judged:
    """Judge the images of a run, each seen once; its data are set up.

    ``calibration.json`` and ``heat_scale.json`` are written on the way.

    Args:
        judge: of the run.
        importance_samples: z decoded for each judged image.
        num_resamples: of the bootstrap over patients behind the intervals of localisation.
        seed: of these draws and resamples, and of what localisation chooses its threshold on.
    """
    run, data = judge.run, judge.run.data
    split = judged_split(data)
    predictions = PredictionsOf(data.splits[split], list(data.channel_names), run.hardware.device)
    entries = ObjectiveEntries(run)
    weights = ImportanceWeights(judge.model, run.hardware.device, importance_samples, seed)
    healthy, held_out = HealthyMaps(run), HeldOutScores(run)
    normals = NormalsSeen(data.splits[split])
    data.preprocess(split)
    shown: Mapping[str, Any] = data.dataset(split)[0]
    lesions = _lesions(judge, seed) if mask_of(shown) is not None else None
    labelled = "label" in shown
    others: dict[str, list[Listener]] = defaultdict(list, {"val": [healthy]})
    if labelled:
        others[held_out.split].append(held_out)
    for stretch in _plan(split, [predictions, entries, weights, normals], lesions, others):
        _go(judge, stretch)
    scale = healthy.write()
    calibrated = held_out.write() if labelled else None
    seen = normals.result()
    return Judged(
        predictions.result(),
        entries.result(),
        weights.result(),
        calibrated,
        calibrated.shift(seen) if calibrated and seen else None,
        lesions.result(scale.quantity, num_resamples, seed) if lesions else None,
    )


def _lesions(judge: Judge, seed: int) -> LocalisedLesions:
    data = judge.run.data
    choosing, judged = choose_parts(data.splits, seed)
    patients = {
        record["id"]: record["patient"]
        for part in (choosing, judged)
        for record in data.splits[part.split]
    }
    chosen = ChosenThreshold(choosing, Baselines(patients, data.channel_names))
    return LocalisedLesions(judged, chosen, patients)


def _plan(
    split: str,
    judging: Sequence[Listener],
    lesions: LocalisedLesions | None,
    others: Mapping[str, Sequence[Listener]],
) -> list[Stretch]:
    """No image twice, and what a threshold is chosen on before what is judged with it.

    Args:
        split: to judge.
        judging: listeners to all of it.
        lesions: to localise, on two parts of which the second lies in ``split``.
        others: split → its listeners.
    """
    everyone = [*judging, *others.get(split, ())]
    rest = [Stretch(name, None, heard) for name, heard in others.items() if name != split]
    if lesions is None:
        return [Stretch(split, None, everyone), *rest]
    chosen, choosing = lesions.chosen, lesions.chosen.part
    of_choosing = [*everyone, chosen] if choosing.split == split else [chosen]
    return [
        Stretch(choosing.split, choosing.places, of_choosing),
        Stretch(split, lesions.part.places, [*everyone, lesions]),
        *rest,
    ]


def _go(judge: Judge, stretch: Stretch) -> None:
    data = judge.run.data
    count = len(data.splits[stretch.split] if stretch.places is None else stretch.places)
    with progress(
        total=count, desc=f"judging {stretch.split}", unit="image",
        shown=judge.run.logging.progress_bar,
    ) as bar:  # fmt: skip
        for batch, prediction in judge.examine(stretch.split, stretch.places):
            for listener in stretch.listeners:
                listener.add(batch, prediction)
            bar.update(len(batch["id"]))
