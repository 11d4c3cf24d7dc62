"""What is said of several runs: where each stands, in what they differ, which is best."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from vaelab.errors import UserError
from vaelab.evaluation.results import Evaluation
from vaelab.metrics.detection import Detection
from vaelab.report.comparison_page import Winner
from vaelab.runs.differences import config_differences, data_differences, short_names
from vaelab.runs.folder import RunFolder
from vaelab.runs.reading import TrainingRun, names_of
from vaelab.text import shortened

log = logging.getLogger(__name__)

NAN = float("nan")


@dataclass(frozen=True)
class Standing:
    """Where one run stands, at the epoch whose weights it has kept; unknown is NaN or "".

    Sums are per validation sample, so that splits of any size read alike.
    """

    name: str
    state: str
    epochs: int
    max_epochs: float
    best_epoch: float
    monitor: str
    monitored: float
    neg_elbo: float
    """``val/neg_elbo`` as logged: a sum over the split, at the run's own ``kl_beta``."""
    neg_elbo_at_1: float
    recon: float
    recon_per_voxel: float
    kl: float
    active_units: float
    auroc: float
    average_precision: float

    @staticmethod
    def of(run: TrainingRun, name: str) -> Standing:
        """Read from the history and, for detection, from ``metrics.json``."""
        train = run.config.get("train", {})
        monitor = str(train.get("monitor", ""))
        watched = run.history.get(monitor, [])
        finite = [place for place, value in enumerate(watched) if math.isfinite(value)]
        best = min(finite, key=lambda place: watched[place]) if finite else None

        def at_best(metric: str) -> float:
            values = run.history.get(metric)
            return NAN if values is None or best is None else values[best]

        samples = len(run.val_ids) or NAN
        recon, kl = at_best("val/recon") / samples, at_best("val/kl") / samples
        detection = _detection(run)
        return Standing(
            name=name,
            state=run.state,
            epochs=len(run.history.get("epoch", [])),
            max_epochs=float(train.get("max_epochs", NAN)),
            best_epoch=NAN if best is None else run.history["epoch"][best],
            monitor=monitor,
            monitored=at_best(monitor),
            neg_elbo=at_best("val/neg_elbo"),
            neg_elbo_at_1=recon + kl,
            recon=recon,
            recon_per_voxel=at_best("val/recon_per_voxel"),
            kl=kl,
            active_units=at_best("val/active_units"),
            auroc=detection.auroc if detection else NAN,
            average_precision=detection.average_precision if detection else NAN,
        )


class Column(NamedTuple):
    """A number of each run, as tables show it."""

    field: str  # of Standing
    name: str
    note: str = ""


COLUMNS = (
    Column("epochs", "epochs", "epochs in the log"),
    Column("best_epoch", "best epoch", "the one with the smallest monitored value"),
    Column("monitored", "monitored", "train.monitor at the best epoch"),
    Column("neg_elbo", "val/neg_elbo", "sum over the split at the run's own kl_beta"),
    Column("neg_elbo_at_1", "−ELBO, β\u00a0=\u00a01", "distortion + rate, per sample"),
    Column("recon", "distortion", "squared error per sample"),
    Column("recon_per_voxel", "distortion per voxel", "mean squared error per voxel and channel"),
    Column("kl", "rate (nats)", "KL in nats per sample"),
    Column("active_units", "active units"),
    Column("auroc", "AUROC"),
    Column("average_precision", "average precision"),
)


class _Criterion(NamedTuple):
    name: str
    field: str
    best: Callable[[Sequence[float]], float]
    needs_same_data: bool = True


CRITERIA = (
    _Criterion("lowest val/neg_elbo", "neg_elbo", min),
    _Criterion("lowest −ELBO at β = 1 (per sample)", "neg_elbo_at_1", min),
    _Criterion("lowest distortion (per sample)", "recon", min),
    _Criterion("lowest distortion (per voxel)", "recon_per_voxel", min),
    _Criterion("most active units", "active_units", max, needs_same_data=False),
    _Criterion("highest AUROC", "auroc", max),
    _Criterion("highest average precision", "average_precision", max),
)


@dataclass(frozen=True)
class Comparison:
    """All that is said of some runs.

    Args:
        runs, standings: the same length.
        differences: key → its value in each run.
        data_differ: the runs were not validated on the same samples, prepared alike.
        beta_differs: ``train.kl_beta`` differs.
        warnings: for the reader.
        left_out: run → why it is in the table only.
    """

    runs: Sequence[TrainingRun]
    standings: Sequence[Standing]
    differences: Mapping[str, Sequence[Any]]
    data_differ: bool
    beta_differs: bool
    warnings: Sequence[str]
    left_out: Mapping[str, str]

    @staticmethod
    def of(runs: Sequence[TrainingRun]) -> Comparison:
        """Compare runs that have been read."""
        standings = [Standing.of(run, name) for run, name in zip(runs, names_of(runs), strict=True)]
        differences = config_differences([run.config for run in runs if run.config])
        known = iter(zip(*differences.values(), strict=True))
        rows = [next(known, ()) if run.config else (None,) * len(differences) for run in runs]
        columns = {key: [row[place] for row in rows] for place, key in enumerate(differences)}
        data = data_differences(differences)
        other_samples = len({frozenset(run.val_ids) for run in runs if run.val_ids}) > 1
        beta_differs = "train.kl_beta" in differences
        return Comparison(
            runs=runs,
            standings=standings,
            differences=columns,
            data_differ=bool(data) or other_samples,
            beta_differs=beta_differs,
            warnings=_warnings(data, other_samples, standings),
            left_out={
                standing.name: reason
                for run, standing in zip(runs, standings, strict=True)
                if (reason := _why_left_out(run, standing))
            },
        )

    @property
    def monitors(self) -> set[str]:
        """What chose the best epochs."""
        return {standing.monitor for standing in self.standings if standing.monitor}

    def label(self, place: int) -> str:
        """What sets a run apart, for a legend; its name where that would be long or ambiguous."""
        names = short_names(list(self.differences))
        labels = [
            ", ".join(
                str(values[run]) if key in self.runs[run].config.get("choices", {})
                else f"{names[key]} {value_text(values[run])}"
                for key, values in self.differences.items()
                if values[run] is not None
            )
            for run in range(len(self.runs))
        ]  # fmt: skip
        label = labels[place]
        unique = labels.count(label) == 1
        return label if label and unique and len(label) <= 44 else self.standings[place].name

    def drawn(self) -> list[tuple[TrainingRun, Standing, str]]:
        """Runs that have ended well, with a label."""
        return [
            (run, standing, self.label(place))
            for place, (run, standing) in enumerate(zip(self.runs, self.standings, strict=True))
            if standing.name not in self.left_out
        ]

    def winners(self) -> list[Winner]:
        """The best run by each criterion that these runs can be compared by."""
        standings = [standing for _, standing, _ in self.drawn()]
        found = []
        for criterion in CRITERIA:
            best = self._best(criterion, standings)
            names = [s.name for s in standings if getattr(s, criterion.field) == best]
            if best is None or len(names) == len(standings):
                continue  # unknown, or nobody is better than the others
            run = ", ".join(names) if len(names) <= 3 else f"{len(names)} runs alike"
            found.append(Winner(criterion.name, run, number_text(best)))
        return found

    def best_values(self) -> dict[str, float]:
        """Field → the best value that is worth a mark."""
        standings = [standing for _, standing, _ in self.drawn()]
        best = {c.field: self._best(c, standings) for c in CRITERIA}
        return {
            field: value
            for field, value in best.items()
            if value is not None and len({getattr(s, field) for s in standings}) > 1
        }

    def _best(self, criterion: _Criterion, standings: Sequence[Standing]) -> float | None:
        if self.data_differ and criterion.needs_same_data:
            return None
        if self.beta_differs and criterion.field == "neg_elbo":
            return None  # a small beta wins by definition
        values = [getattr(standing, criterion.field) for standing in standings]
        finite = [value for value in values if math.isfinite(value)]
        return criterion.best(finite) if finite else None


def _detection(run: TrainingRun) -> Detection | None:
    """On the balanced split; None of a run that was not evaluated, or not on labelled images."""
    path = RunFolder(run.path).metrics
    try:
        return Evaluation.read(path).detection if path.is_file() else None
    except UserError as error:
        log.warning("%s", error)
        return None


def _why_left_out(run: TrainingRun, standing: Standing) -> str:
    if run.state != "done":
        return f"{run.state}: {shortened(' '.join(run.error.split()), 300)}".rstrip(": ")
    if not run.history:
        return "logs/metrics.csv is missing, empty or damaged"
    if math.isnan(standing.best_epoch):
        return f"no finite {standing.monitor} in logs/metrics.csv"
    return ""


def _warnings(data: Sequence[str], other_samples: bool, standings: Sequence[Standing]) -> list[str]:
    found = []
    if data:
        found.append(
            f"The runs saw different data ({', '.join(data)} differ): distortions, ELBOs and "
            "detection are not comparable, and no best run is named by them."
        )
    elif other_samples:
        found.append(
            "The runs were validated on different samples: distortions and ELBOs are not "
            "comparable, and no best run is named by them."
        )
    if len({standing.monitor for standing in standings if standing.monitor}) > 1:
        found.append("train.monitor differs: the best epochs were chosen by different measures.")
    return found


def number_text(value: float) -> str:
    """Four significant digits, one decimal of thousands; "" for what is unknown."""
    if math.isnan(value):
        return ""
    if value == int(value) and abs(value) < 1e7:
        return f"{value:,.0f}"
    return f"{value:,.1f}" if 1e3 <= abs(value) < 1e7 else f"{value:#.4g}"


def value_text(value: Any) -> str:
    """A config value; "" for a key that is absent."""
    return "" if value is None else f"{value:g}" if isinstance(value, float) else str(value)
