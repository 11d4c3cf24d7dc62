"""``task=robustness``: would the run still tell sick from normal on another machine's images?"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from vaelab.anomaly.calibration import ConformalCalibration, check_alpha
from vaelab.anomaly.detector import AnomalyDetector
from vaelab.anomaly.scores import ModelScore, Score, score_of
from vaelab.assembly import Run, Task
from vaelab.atomic import replacing, write_json
from vaelab.data.build import thread_pool
from vaelab.data.contract import ShiftableImages
from vaelab.data.index import Record
from vaelab.errors import UserError
from vaelab.evaluation.calibrating import own_calibration
from vaelab.evaluation.judge import judge_of, judged_split
from vaelab.evaluation.kept import describe_score
from vaelab.evaluation.shifts import SHIFTS, shifted
from vaelab.metrics.detection import detection_metrics
from vaelab.progress import progress
from vaelab.report.markdown import table
from vaelab.runs.folder import RunFolder
from vaelab.runs.paths import PathText

log = logging.getLogger(__name__)

T = TypeVar("T")

OWN = ""
"""Stands for the run's own score among the names of others."""


@dataclass(frozen=True)
class Judgement:
    """How the score does on the test images of one machine, normal and sick ones alike."""

    auroc: float
    sensitivity_at_specificity_95: float
    """At a threshold found anew on these images: what a recalibrated machine could reach."""
    false_alarm_rate: float | None
    """Share of normal images flagged by the run's own calibration, which knows nothing of this
    machine; None without ``calibration.json``."""


class Robustness(Task):
    """Writes ``robustness.json`` and ``robustness.md``: detection under simulated shifts.

    All test images, normal and sick alike, are decoded, shifted (``vaelab.evaluation.shifts``) and
    then prepared as the run prepares its own. ``clean`` are the images as they are, exactly as
    ``task=evaluate`` judges them.

    Args:
        seed: of what the shifts draw for each image.
        shifts: names to judge, in this order; None takes all.
        alpha: share of false alarms that the run's calibration is asked for, in (0, 1).
        scores: name → score to compare the run's own with, on the same images; None: no other.
        with_runs: folders of runs that this task has judged alike, for mean and deviation over all.

    Raises:
        UserError: for a value that cannot work.
    """

    parts = ("dataset", "model", "hardware", "score", "train", "logging")

    def __init__(
        self,
        seed: int = 0,
        shifts: Sequence[str] | None = None,
        alpha: float = 0.05,
        scores: Mapping[str, Score] | None = None,
        with_runs: Sequence[PathText] = (),
    ) -> None:
        if seed < 0:
            raise UserError(f"task.seed={seed}: a seed cannot be negative; try 0")
        names = list(SHIFTS) if shifts is None else list(dict.fromkeys(shifts))
        unknown = [name for name in names if name not in SHIFTS]
        if unknown or not names:
            raise UserError(
                f"task.shifts={names}: {', '.join(unknown) or 'none'} is not among the known "
                f"shifts; take some of {', '.join(SHIFTS)}, or null for all"
            )
        check_alpha(alpha)
        self.seed = seed
        self.shifts = names
        self.alpha = alpha
        self.scores = dict(scores or {})
        self.with_runs = [Path(folder).expanduser() for folder in with_runs]

    def __call__(self, run: Run) -> float:
        """Judge on all test images.

        Returns:
            AUROC, averaged over the shifts.

        Raises:
            UserError: for a run that did not learn from grey images, or is not trained.
        """
        data = run.data
        reader = data.shiftable_images()
        own_judge = judge_of(run)
        detector = own_judge.detector
        data.setup("test")
        own = describe_score(run.score)
        others = {n: score for n, score in self.scores.items() if describe_score(score) != own}
        for score in others.values():
            if isinstance(score, ModelScore):
                score.use(detector.model, detector.device)
            own_judge.fit(score)
        split = judged_split(data)
        records = data.splits[split]
        labels = np.array([int(record["label"]) for record in records])
        calibrated = own_calibration(run)
        calibration = calibrated.calibration if calibrated else None
        scores = {OWN: run.score, **others}

        def judge(images: Iterator[Tensor]) -> dict[str, Judgement]:
            values = _scores(detector, scores, images, data.batch_size)
            return {
                name: _judgement(values[name], labels, calibration if name == OWN else None, alpha)
                for name in scores
            }

        alpha = self.alpha
        clean = judge(image for batch in data.loader(split) for image in batch["image"])
        machines = _Machines(records, reader, self.seed, run.logging.progress_bar)
        found = {name: judge(machines.images(name)) for name in self.shifts}
        by_score = {
            name: _summary(clean[name], {shift: found[shift][name] for shift in found})
            for name in scores
        }
        result = by_score.pop(OWN) | {
            "score": type(run.score).__name__,
            "scores": by_score,
            "split": split,
            "counts": {"normal": int((labels == 0).sum()), "sick": int((labels == 1).sum())},
            "seed": self.seed,
            "alpha": self.alpha,
        }
        report = "\n\n".join(robustness_tables(result, self._others(result)))
        write_json(run.folder.result("robustness", "json"), result)
        with replacing(run.folder.result("robustness", "md")) as file:
            file.write_text(f"# Robustness to simulated shifts\n\n{report}\n", "utf-8")
        log.info("robustness on %d images of %s:\n%s", len(labels), split, report)
        mean: float = result["mean"]["auroc"]
        return mean

    def _others(self, result: Mapping[str, Any]) -> list[dict[str, Any]]:
        """What this task found in other runs, on images and shifts like these."""
        others: list[dict[str, Any]] = []
        for folder in self.with_runs:
            path = RunFolder(folder).result("robustness", "json")
            try:
                other = json.loads(path.read_text("utf-8"))
            except (OSError, ValueError) as error:
                raise UserError(
                    f"task.with_runs={folder}: no sound robustness.json there ({error}); run "
                    f"task=robustness run_dir={folder} first"
                ) from error
            for key in ("split", "counts", "seed", "score"):
                if other[key] != result[key]:
                    raise UserError(
                        f"task.with_runs={folder}: judged with {key}={other[key]}, this run with "
                        f"{result[key]}; judge both alike"
                    )
            for key in ("shifts", "scores"):
                if list(other[key]) != list(result[key]):
                    raise UserError(
                        f"task.with_runs={folder}: {key} are {', '.join(other[key]) or 'none'}, of "
                        f"this run {', '.join(result[key]) or 'none'}; judge both alike"
                    )
            others.append(other)
        return others


def _judgement(
    scores: np.ndarray,
    labels: np.ndarray,
    calibration: ConformalCalibration | None,
    alpha: float,
) -> Judgement:
    found = detection_metrics(scores, labels)
    flags = calibration.flag(scores[labels == 0], alpha) if calibration else None
    return Judgement(
        found.auroc,
        found.sensitivity_at_specificity_95,
        None if flags is None else float(flags.mean()),
    )


class _Machines:
    """The images of a split, each decoded once, as any machine would give them."""

    def __init__(
        self, records: Sequence[Record], reader: ShiftableImages, seed: int, progress_bar: bool
    ) -> None:
        self.ids = [record["id"] for record in records]
        self.reader = reader
        self.seed = seed
        self.progress_bar = progress_bar
        self.originals = list(self._each("decoding", reader.original, records))

    def images(self, name: str) -> Iterator[Tensor]:
        """What the network sees of each image, (1, H, W), in the order of the records."""
        return self._each(name, partial(self._prepared, name), self.ids, self.originals)

    def _each(self, desc: str, work: Callable[..., T], *inputs: Sequence[Any]) -> Iterator[T]:
        """Results in order, with a progress bar; images let go of the interpreter's lock."""
        with thread_pool() as pool:
            yield from progress(
                pool.map(work, *inputs),
                desc=desc,
                total=len(self.ids),
                unit="image",
                shown=self.progress_bar,
            )

    def _prepared(self, name: str, image_id: str, original: Image.Image) -> Tensor:
        return self.reader.prepared(shifted(original, name, self.seed, image_id))


def _scores(
    detector: AnomalyDetector,
    scores: Mapping[str, Score],
    images: Iterator[Tensor],
    batch_size: int,
) -> dict[str, np.ndarray]:
    """Name → score of each image, (N,); the network sees every image once."""
    values: dict[str, list[Tensor]] = {name: [] for name in scores}
    while batch := list(islice(images, batch_size)):
        x = torch.stack(batch)
        output = detector.reconstruct(x)
        for name, score in scores.items():
            values[name].append(score_of(score, x, output))
    return {name: torch.cat(parts).numpy() for name, parts in values.items()}


def _summary(clean: Judgement, found: Mapping[str, Judgement]) -> dict[str, Any]:
    """All judgements, with the mean over shifts and the worst of each number."""
    columns = {
        key: [getattr(judgement, key) for judgement in found.values()] for key in asdict(clean)
    }
    counted = clean.false_alarm_rate is not None
    worst = {key: min(values) for key, values in columns.items() if key != "false_alarm_rate"}
    return {
        "clean": asdict(clean),
        "shifts": {name: asdict(judgement) for name, judgement in found.items()},
        "mean": {
            key: float(np.mean(values)) if counted or key != "false_alarm_rate" else None
            for key, values in columns.items()
        },
        "worst": worst
        | {"false_alarm_rate": max(columns["false_alarm_rate"]) if counted else None},
        "worst_shift": min(found, key=lambda name: found[name].auroc),
    }


def robustness_tables(
    result: Mapping[str, Any], others: Sequence[Mapping[str, Any]] = ()
) -> list[str]:
    """Paragraphs and Markdown tables: the run's score, all scores, all runs."""
    counts = result["counts"]
    parts = [
        f"Score {result['score']} on {counts['normal']} normal and {counts['sick']} sick images "
        f"of `{result['split']}`, all of them shifted alike (seed {result['seed']}). The threshold "
        f"of the sensitivity is chosen anew for each shift, at 95 % specificity; false alarms are "
        f"normal images flagged by the run's own calibration at {100 * result['alpha']:g} %. Worst "
        f"of shifts is of each column; by AUROC it is `{result['worst_shift']}`. Shifts are "
        f"simulated: images of a hospital of its own are the better test.",
        table(
            ["images", "AUROC", "sensitivity at 95 %", "false alarms"],
            [[name, *(_figure(row[key]) for key in row)] for name, row in _rows(result).items()],
        ),
    ]
    if not result["scores"]:
        return parts
    scores = {f"{result['score']} (the run's)": result, **result["scores"]}
    columns = [_rows(one) for one in scores.values()]
    parts += [
        "AUROC of each score:",
        table(
            ["images", *scores],
            [[name, *(_figure(rows[name]["auroc"]) for rows in columns)] for name in columns[0]],
        ),
    ]
    if others:
        parts += [
            f"AUROC over {len(others) + 1} runs, mean ± standard deviation:",
            table(["images", *scores], _over_runs([result, *others])),
        ]
    return parts


def _rows(result: Mapping[str, Any]) -> dict[str, dict[str, float | None]]:
    return {
        "clean": result["clean"],
        **result["shifts"],
        "mean of shifts": result["mean"],
        "worst of shifts": result["worst"],
    }


def _over_runs(results: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    rows_of_scores = [
        [_rows(one) for one in (result, *result["scores"].values())] for result in results
    ]  # run, score, row
    lines = []
    for name in rows_of_scores[0][0]:
        aurocs = np.array(
            [[rows[name]["auroc"] for rows in scores] for scores in rows_of_scores]
        )  # (runs, scores)
        pairs = zip(aurocs.mean(0), aurocs.std(0, ddof=1), strict=True)
        lines.append([name, *(f"{mean:.3f} ± {deviation:.3f}" for mean, deviation in pairs)])
    return lines


def _figure(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"
