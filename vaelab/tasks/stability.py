"""``task=stability``: do seeds learn the same space, and does a subject keep its place in it?"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vaelab.assembly import Run, Task
from vaelab.atomic import replacing, write_json
from vaelab.errors import UserError
from vaelab.evaluation.rescan import Rescan
from vaelab.latents.seed_runs import train_seeds, trained_runs
from vaelab.latents.sources import Source, own_sources
from vaelab.latents.spaces import Space, encode, first_scans, names_of
from vaelab.latents.stability_report import CHANCE, Measure, figure, markdown, measure_table
from vaelab.metrics.agreement import (
    aligned_components,
    aligned_r2,
    distance_rank_correlation,
    linear_cka,
    neighbour_agreement,
)
from vaelab.metrics.bootstrap import interval, patient_weights
from vaelab.metrics.reliability import same_patient_auroc, space_icc
from vaelab.metrics.verdict import overall, verdict
from vaelab.report.canvas import save_figure
from vaelab.runs.paths import PathText

log = logging.getLogger(__name__)

Floats = NDArray[np.float64]

SUBJECTS = ("all", "val")


@dataclass(frozen=True)
class Thresholds:
    """From where a measure counts as stable; see ``conf/task/stability.yaml``."""

    aligned_r2: float = 0.75
    linear_cka: float = 0.75
    distance_rank_correlation: float = 0.75
    neighbour_agreement: float = 0.5
    rescan_icc: float = 0.75
    noise_icc: float = 0.75
    same_patient_auroc: float = 0.9

    def __post_init__(self) -> None:
        for key, value in asdict(self).items():
            chance = CHANCE.get(key, 0)
            if not chance < value <= 1:
                raise UserError(
                    f"task.thresholds.{key}={value}: must lie above chance, {chance:g}, and be at "
                    "most 1"
                )


class Stability(Task):
    """Writes ``stability.json``, ``stability.md`` and ``figures/stability.png``.

    All runs encode the same scans, the deterministic way, and are compared in mu. Between runs, and
    for intraclass correlations, each patient counts with the first time point alone, since a
    second one is a neighbour in any space. Intervals are over patients: how another choice of seeds
    would have come out is told by the scatter of pairs, not by the interval.

    Args:
        runs: run folders, and folders that hold some, beside the run itself.
        seeds: to train with the run's config, on its split.
        subjects: "all", or "val" for those that no run has learned from.
        neighbours: k of the nearest neighbours that are compared.
        rescans: repeats of each subject, the original among them, at least 2.
        rescan: makes a repeat of a batch.
        thresholds: of the verdict.
        num_resamples: of the bootstrap over patients.
        seed: of all that is drawn.

    Raises:
        UserError: for a value that cannot work.
    """

    parts = ("dataset", "model", "hardware", "train", "logging")

    def __init__(
        self,
        runs: Sequence[PathText] = (),
        seeds: Sequence[int] = (),
        subjects: str = "all",
        neighbours: int = 5,
        rescans: int = 2,
        rescan: Rescan | None = None,
        thresholds: Thresholds | None = None,
        num_resamples: int = 1000,
        seed: int = 0,
    ) -> None:
        if subjects not in SUBJECTS:
            raise UserError(f"task.subjects={subjects}: one of {', '.join(SUBJECTS)}")
        for key, value, least in (
            ("neighbours", neighbours, 1),
            ("rescans", rescans, 2),
            ("num_resamples", num_resamples, 1),
            ("seed", seed, 0),
        ):
            if value < least:
                raise UserError(f"task.{key}={value}: at least {least} is needed")
        if any(one < 0 for one in seeds) or len(set(seeds)) < len(seeds):
            raise UserError(f"task.seeds={list(seeds)}: different numbers from 0 on are needed")
        self.runs = list(runs)
        self.seeds = list(seeds)
        self.subjects = subjects
        self.neighbours = neighbours
        self.rescans = rescans
        self.rescan = rescan or Rescan()
        self.thresholds = thresholds or Thresholds()
        self.num_resamples = num_resamples
        self.seed = seed

    def __call__(self, run: Run) -> float:
        """Train what is to be trained, encode, compare.

        Returns:
            The mean aligned R² between runs.

        Raises:
            UserError: for fewer than two runs, or too few patients.
        """
        scans = [
            one
            for one in own_sources(run.data).members
            if self.subjects == "all" or one.split == "val"
        ]
        first = first_scans(scans)
        if len(first) < max(6, 2 * self.neighbours + 2):
            raise UserError(
                f"task.neighbours={self.neighbours}: {len(first)} patients are too few; at least "
                f"{max(6, 2 * self.neighbours + 2)} are needed, so take fewer neighbours, or "
                "task.subjects=all"
            )
        own = [run.folder.path] if run.weights.is_file() else []
        runs = [
            *own,
            *trained_runs(self.runs, run.train.weights_name),
            *train_seeds(run, self.seeds),
        ]
        runs = list({path.resolve(): path for path in runs}.values())
        if len(runs) < 2:
            raise UserError(
                f"task.runs={self.runs}, task.seeds={self.seeds}: at least two runs are needed, "
                f"found {len(runs)}; name more, or more seeds to train"
            )
        names = names_of(runs)
        spaces = [
            encode(run, name, path, scans, self.rescan, self.rescans, self.seed)
            for name, path in zip(names, runs, strict=True)
        ]
        measures = self._measures(spaces, scans, first)
        unit = "pixel" if run.data.spacing is None else "mm"
        result = self._result(measures, spaces, scans, first)
        result["rescan"] = asdict(self.rescan) | {"unit": unit, "repeats": self.rescans}
        write_json(run.folder.result("stability", "json"), result)
        with replacing(run.folder.result("stability", "md")) as file:
            file.write_text(markdown(result), encoding="utf-8")
        save_figure(figure(result, measures), run.folder.figures / "stability.png")
        log.info(
            "%s: %s\n%s",
            result["verdict"],
            result["sentence"],
            measure_table(result["measures"]),
        )
        return measures["aligned_r2"].estimate.value

    def _measures(
        self, spaces: Sequence[Space], scans: Sequence[Source], first: Sequence[int]
    ) -> dict[str, Measure]:
        """Every measure that these spaces and scans have."""
        weights = patient_weights(
            [scans[row].patient for row in first], self.num_resamples, self.seed
        )
        between: dict[str, Callable[[Floats, Floats, Floats], Floats]] = {
            "aligned_r2": partial(aligned_r2, seed=self.seed),
            "linear_cka": linear_cka,
            "distance_rank_correlation": distance_rank_correlation,
            "neighbour_agreement": partial(neighbour_agreement, neighbours=self.neighbours),
        }
        rows = list(first)
        found: dict[str, dict[str, Floats]] = {
            name: {
                f"{a.name} – {b.name}": measure(a.mu[rows], b.mu[rows], weights)
                for a, b in combinations(spaces, 2)
            }
            for name, measure in between.items()
        }
        for name, points in (("rescan_icc", "rescanned"), ("noise_icc", "drawn")):
            found[name] = {
                space.name: space_icc(getattr(space, points)[rows][..., space.active], weights)
                for space in spaces
            }
        patients = np.array([scan.patient for scan in scans])
        followed = len(scans) - len(set(patients))
        if followed >= 2:  # of one patient there is no interval
            of_scans = patient_weights(list(patients), self.num_resamples, self.seed)
            found["same_patient_auroc"] = {
                space.name: same_patient_auroc(space.mu, patients, of_scans) for space in spaces
            }
        return {name: self._judged(name, each) for name, each in found.items()}

    def _judged(self, name: str, each: Mapping[str, Floats]) -> Measure:
        # A collapsed space has no arrangement at all: NaN, which agrees with nothing.
        values = {who: np.nan_to_num(one, nan=0.0) for who, one in each.items()}
        estimate = interval(np.mean(list(values.values()), axis=0))
        threshold = getattr(self.thresholds, name)
        return Measure(
            estimate,
            {who: float(one[0]) for who, one in values.items()},
            threshold,
            CHANCE.get(name, 0.0),
            verdict(estimate, threshold),
        )

    def _result(
        self,
        measures: Mapping[str, Measure],
        spaces: Sequence[Space],
        scans: Sequence[Source],
        first: Sequence[int],
    ) -> dict[str, Any]:
        word = overall([measure.verdict for measure in measures.values()])
        collapsed = [space.name for space in spaces if not space.active.any()]
        if collapsed:
            word = "not stable"
        rows = list(first)
        components = [
            aligned_components(a.mu[rows], b.mu[rows]) for a, b in combinations(spaces, 2)
        ]
        patients = len({scan.patient for scan in scans})
        whose = "all splits" if self.subjects == "all" else "the validation split"
        sentence = f"{len(spaces)} runs, {len(scans)} scans of {patients} patients of {whose}" + (
            f"; collapsed: {', '.join(collapsed)}" if collapsed else ""
        )
        return {
            "verdict": word,
            "sentence": sentence,
            "collapsed": collapsed,
            "measures": {name: asdict(measure) for name, measure in measures.items()},
            "runs": [
                {
                    "name": space.name,
                    "active_units": int(space.active.sum()),
                    "units": len(space.active),
                    "mse": space.mse,
                    "kl_nats_per_sample": space.kl,
                }
                for space in spaces
            ],
            "subjects": self.subjects,
            "scans": len(scans),
            "patients": patients,
            "aligned_components": components,
            "neighbours": self.neighbours,
            "neighbour_chance": self.neighbours / (len(first) - 1),
            "seed": self.seed,
        }
