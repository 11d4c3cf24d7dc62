"""Folders of series from elsewhere: found, and read as training does."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from vaelab.data.contract import InputSample
from vaelab.data.index import walk_files
from vaelab.data.inputs import Input, find_inputs
from vaelab.data.volumes.grids import sound_preprocessing
from vaelab.data.volumes.headers import read_grid
from vaelab.data.volumes.layouts import FindSeries
from vaelab.data.volumes.settings import VolumeSettings
from vaelab.errors import UserError


def folders_with_series(
    folder: Path, find_series: FindSeries, modalities: Sequence[str]
) -> Iterator[Path]:
    """Folders with at least one series, complete or not."""
    for current, names in walk_files(folder):
        if names:
            series = find_series(current)
            if any(series[key] for key in modalities):
                yield current


def find_volumes(
    inputs: str | Sequence[str],
    find_series: FindSeries,
    modalities: Sequence[str],
    expected: str,
    output_dir: Path,
) -> list[Input]:
    """Folders of series; see ``find_inputs``."""
    expand = partial(folders_with_series, find_series=find_series, modalities=modalities)
    return find_inputs(inputs, expand, f"subject folders with {expected}", output_dir)


def read_volume(folder: Path, find_series: FindSeries, settings: VolumeSettings) -> InputSample:
    """One folder through the run's preprocessing, without a segmentation.

    Args:
        folder: holds one file for each modality.
        find_series: finds them.
        settings: of a run.

    Raises:
        UserError: for a series that is missing, ambiguous, unreadable or on a grid of its own.
    """
    if not folder.is_dir():
        what = "a file; its folder is needed" if folder.exists() else "does not exist"
        raise UserError(f"{folder}: {what}")
    series = find_series(folder)
    item: dict[Any, Any] = {"id": folder.name}
    for key in settings.modalities:
        if len(series[key]) != 1:
            what = f"no {key}" if not series[key] else f"more than one file for {key}"
            raise UserError(f"{folder}: {what}")
        item[key] = str(series[key][0])
        read_grid(item[key])
    original = Path(item[settings.align_to or settings.modalities[0]])
    for step in sound_preprocessing(replace(settings, with_seg=False)):
        item = step(item)
    image = item["image"]
    return InputSample(image.as_tensor(), original, np.asarray(image.affine, dtype=np.float64))
