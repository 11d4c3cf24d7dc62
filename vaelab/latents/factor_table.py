"""Factors of samples as columns of tables."""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vaelab.atomic import replacing
from vaelab.data.contract import DatasetContract
from vaelab.latents.factors import NAMES, factors_of
from vaelab.latents.table import Latents
from vaelab.metrics.image import foreground

FACTORS_TABLE = "factors.csv"


def sample_factors(sample: Mapping[str, Any], data: DatasetContract) -> dict[str, float]:
    """The factors of a sample's ``seg`` by column; empty where there is none.

    Millimetres are along the patient's axes, from the centre of what the network sees. The brain
    is where the image is not background.

    Args:
        sample: ``image`` (C, D, H, W) and ``seg`` (1, D, H, W).
        data: the dataset that it is of.
    """
    if "seg" not in sample:
        return {}
    affine = data.affine(sample["image"].shape[1:])
    if affine is None:
        return {}
    brain = foreground(sample["image"][None])[0, 0].numpy()
    return factors_of(sample["seg"][0].numpy(), affine, brain).columns()


def is_factor(column: str) -> bool:
    """Whether ``sample_factors`` has such a column."""
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
