"""Factors of samples as columns of tables."""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vaelab.atomic import replacing
from vaelab.latents.table import Latents
from vaelab.metrics.factors import NAMES

FACTORS_TABLE = "factors.csv"


def is_factor(column: str) -> bool:
    """Whether a segmentation gives such a column."""
    return column in NAMES or is_of_label(column)


def is_of_label(column: str) -> bool:
    """Whether a column is there only for segmentations that have the label; 0 for others."""
    return re.fullmatch(r"label_\d+_(mm3|log)", column) is not None


def absent(column: str) -> float:
    """What a column is where a sample does not have it: no volume of a label, else unknown."""
    return 0.0 if is_of_label(column) else np.nan


def as_columns(rows: Sequence[Mapping[str, float]]) -> dict[str, NDArray[np.float64]]:
    """Rows, of which not all have all columns, as columns of N values."""
    names = dict.fromkeys(name for row in rows for name in row)
    return {name: np.array([row.get(name, absent(name)) for row in rows]) for name in names}


def write_factors(latents: Latents, path: Path) -> None:
    """Write all that is known of each sample but its latents: one row each, empty for unknown."""
    with replacing(path) as partial, partial.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "patient", "time_point", "split", *latents.covariates])
        for row, name in enumerate(latents.ids):
            own = (latents.patients[row], int(latents.time_points[row]), latents.splits[row])
            values = [float(column[row]) for column in latents.covariates.values()]
            known = [f"{value:.10g}" if np.isfinite(value) else "" for value in values]
            writer.writerow([name, *own, *known])
