"""``report.html``: the results of a run in a single file."""

from __future__ import annotations

import datetime as dt
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from vaelab.errors import UserError
from vaelab.report.card import ALPHA, OUTLINE, check_heat_scale
from vaelab.report.cases import AnyCase, VolumeCase, check_cases
from vaelab.report.gallery import columns_of, four_digits, rows_of
from vaelab.report.page import embedded_figure, write_page
from vaelab.report.viewer import heat_colours, packed_volume

MOST_HARD_CASES: Final = 4  # of each kind


@dataclass(frozen=True)
class MetricRow:
    """A row of the table of metrics; ``low`` and ``high`` are the ends of its interval."""

    name: str
    value: float
    low: float | None = None
    high: float | None = None
    note: str = ""


@dataclass(frozen=True)
class ReportTable:
    """A table of figures under a heading, with what it shows in a sentence."""

    heading: str
    sentence: str
    columns: Sequence[str]
    """The name of a row first."""
    rows: Sequence[Sequence[str]]
    """As long as ``columns``."""
    strong: int = 0
    """The row of the run itself."""


@dataclass(frozen=True)
class Headline:
    """The numbers of the first sentence of a page; None where something was not measured.

    Args:
        score: name of the anomaly score.
        samples: number of samples that the run was evaluated on.
        mse: mean squared error of the reconstruction per pixel or voxel.
        units: latent units.
        active_units: those whose mu varies over the samples.
        auroc: of sick against normal samples, with its 95 % interval.
        sensitivity: share of sick samples flagged, in [0, 1].
        false_alarm_rate: share of normal samples flagged, in [0, 1].
        tumour_ratio: squared error on tumour voxels over that on the others.
    """

    score: str
    samples: int
    mse: float
    units: int
    active_units: int | None = None
    auroc: MetricRow | None = None
    sensitivity: float | None = None
    false_alarm_rate: float | None = None
    tumour_ratio: float | None = None

    def sentence(self) -> str:
        """A sentence that sums up the result of the run."""
        fit = f"reconstructed with a mean squared error of {self.mse:.3g}"
        if self.active_units is not None:
            fit += f", {self.active_units} of {self.units} latent units active"
        if self.auroc is not None:
            interval = ""
            if self.auroc.low is not None and self.auroc.high is not None:
                interval = f" (95 % interval {self.auroc.low:.2f} to {self.auroc.high:.2f})"
            flags = ""
            if self.sensitivity is not None and self.false_alarm_rate is not None:
                flags = (
                    f"; {self.sensitivity:.0%} of the sick and {self.false_alarm_rate:.0%} of the "
                    "normal samples are flagged"
                )
            return (
                f"{self.score} tells sick from normal samples with an AUROC of "
                f"{self.auroc.value:.2f}{interval}{flags}."
            )
        if self.tumour_ratio is not None:
            return (
                f"The squared error on tumour voxels is {self.tumour_ratio:.2f} times that of the "
                f"other voxels; {self.samples:,} samples are {fit}."
            )
        return f"{self.samples:,} samples are {fit}."


def write_report(
    path: str | os.PathLike[str],
    *,
    title: str,
    headline: Headline,
    summary: Mapping[str, str],
    metrics: Sequence[MetricRow],
    figures: Mapping[str, bytes],
    tables: Sequence[ReportTable] = (),
    remarks: Sequence[str] = (),
    cases: Sequence[AnyCase],
    heat_scale: float,
    scale_source: str,
    heat_name: str = "|x − x̂|",
    config_yaml: str,
    versions: Mapping[str, str],
    splits: Mapping[str, int],
    max_volumes: int = 5,
    date: dt.date | None = None,
) -> Path:
    """Write the report to ``path``, whole or not at all; returns the path.

    Args:
        title: what was trained on what, in a few words.
        headline: the numbers of the first sentence.
        summary: facts for the head of the page, label → text.
        metrics: rows of the table of metrics.
        figures: caption → PNG file.
        tables: more figures, below the table of metrics.
        remarks: what a reader must know before any number, in sentences.
        cases: rows of the gallery, in any order. A 2D case of 128 × 128 pixels takes about
            17 KB, so choose some of a large test split.
        heat_scale: the magnitude with the brightest colour, the same for every case.
        scale_source: its origin, for example "99.5th percentile of healthy images".
        heat_name: the quantity that heat maps show, in words.
        config_yaml: the resolved config, shown literally.
        versions: package → version.
        splits: split → number of samples.
        max_volumes: number of volume cases in the slice viewer; the others have pictures only.
            Four modalities of 96³ voxels take about 3 MB.
        date: today when None.

    Raises:
        UserError: a score, p-value, metric or ``heat_scale`` is not a usable number.
    """
    _check_numbers(metrics, heat_scale)
    check_cases(cases)
    volumes = [case for case in cases if isinstance(case, VolumeCase)][:max_volumes]
    rows = rows_of(cases, volumes, heat_scale)
    return write_page(
        path,
        "report.html",
        title=title,
        date=(date or dt.date.today()).isoformat(),
        finding=headline.sentence(),
        summary=summary,
        splits=splits,
        metrics=[_formatted(metric) for metric in metrics],
        tables=tables,
        remarks=remarks,
        figures=[embedded_figure(caption, png) for caption, png in figures.items()],
        rows=rows,
        missed=[row for row in reversed(rows) if row.case.truth == "sick"][:MOST_HARD_CASES],
        alarmed=[row for row in rows if row.case.truth == "normal"][:MOST_HARD_CASES],
        columns=columns_of(cases),
        volumes=[packed_volume(case, heat_scale) for case in volumes],
        viewer={"heat": heat_colours(), "alpha": ALPHA, "outline": OUTLINE},
        heat_gradient=",".join("#{:02x}{:02x}{:02x}".format(*c) for c in heat_colours()[::15]),
        heat_scale=f"{heat_scale:.3g}",
        scale_source=scale_source,
        heat_name=heat_name,
        config_yaml=config_yaml,
        versions=versions,
    )


def _check_numbers(metrics: Sequence[MetricRow], heat_scale: float) -> None:
    check_heat_scale(heat_scale)
    for metric in metrics:
        numbers = [v for v in (metric.value, metric.low, metric.high) if v is not None]
        if not all(map(math.isfinite, numbers)):
            raise UserError(f"metric {metric.name!r}: {metric} is not finite; leave it out")


def _formatted(metric: MetricRow) -> dict[str, str]:
    interval = ""
    if metric.low is not None and metric.high is not None:
        interval = f"{four_digits(metric.low)} – {four_digits(metric.high)}"
    value = four_digits(metric.value)
    return {"name": metric.name, "value": value, "interval": interval, "note": metric.note}
