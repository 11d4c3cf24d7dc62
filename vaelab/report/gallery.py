"""Rows of a report's gallery: pictures, score and detection of each case."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

from vaelab.report.canvas import Array
from vaelab.report.card import ALPHA, overlay, tumour_slice
from vaelab.report.cases import AnyCase, Case, VolumeCase
from vaelab.report.page import data_uri
from vaelab.report.slices import axial, grey_window
from vaelab.text import number

MOST_PIXELS: Final = 160  # longest side of a picture
JPEG_QUALITY: Final = 88


class Row(NamedTuple):
    """A case as the gallery shows it."""

    number: int  # its place, the most abnormal case first
    case: AnyCase
    pictures: tuple[str, str, str]  # input, reconstruction, overlay; data URIs
    score: str
    p_value: str  # "" when unknown
    position: float  # of the score between the report's smallest and largest, in [0, 1]
    volume: int | None  # its place in the slice viewer


def rows_of(
    cases: Sequence[AnyCase], volumes: Sequence[VolumeCase], heat_scale: float
) -> list[Row]:
    """Rows of all cases, the most abnormal first; ``volumes`` are those of the slice viewer."""
    low = min((case.score for case in cases), default=0.0)
    reach = max((case.score for case in cases), default=0.0) - low
    places = {id(case): place for place, case in enumerate(volumes)}
    ordered = sorted(cases, key=lambda case: -case.score)
    return [
        Row(
            position,
            case,
            _pictures(case, heat_scale),
            four_digits(float(case.score)),
            "" if case.p_value is None else f"{case.p_value:.2g}",
            (case.score - low) / reach if reach > 0 else 0.0,
            places.get(id(case)),
        )
        for position, case in enumerate(ordered)
    ]


class Column(NamedTuple):
    """A column of the gallery."""

    key: str
    name: str
    numeric: bool


def columns_of(cases: Sequence[AnyCase]) -> list[Column]:
    """The columns in which at least one case has an entry."""
    columns = {
        Column("id", "Case", False): True,
        Column("truth", "Truth", False): any(case.truth for case in cases),
        Column("group", "Group", False): any(case.group for case in cases),
        Column("score", "Score", True): True,
        Column("p", "p-value", True): any(case.p_value is not None for case in cases),
        Column("flagged", "Flagged", False): any(case.flagged is not None for case in cases),
    }
    return [column for column, is_used in columns.items() if is_used]


def _pictures(case: AnyCase, heat_scale: float) -> tuple[str, str, str]:
    if isinstance(case, Case):
        image, reconstruction, heatmap = case.image, case.reconstruction, case.heatmap
    else:
        name, volume = next(iter(case.modalities.items()))
        z = volume.shape[2] // 2 if case.seg is None else tumour_slice(case.seg)
        low, high = grey_levels(volume)
        image = (axial(volume, z) - low) / (high - low)
        reconstruction = (axial(case.reconstructions[name], z) - low) / (high - low)
        heatmap = axial(case.heatmap, z)
    return (
        _jpeg(to_bytes(image, 0, 1)),
        _jpeg(to_bytes(reconstruction, 0, 1)),
        _jpeg(overlay(image, heatmap, heat_scale, ALPHA)),
    )


def _jpeg(pixels: npt.NDArray[np.uint8]) -> str:
    picture = Image.fromarray(np.ascontiguousarray(pixels))
    picture.thumbnail((MOST_PIXELS, MOST_PIXELS))
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=JPEG_QUALITY, subsampling=0, optimize=True)
    return data_uri("jpeg", file.getvalue())


def to_bytes(values: Array, low: float, high: float) -> npt.NDArray[np.uint8]:
    """``values`` from black at ``low`` to white at ``high``; NaN is black."""
    scaled = np.clip((np.asarray(values, np.float32) - low) / (high - low), 0, 1)
    pixels: npt.NDArray[np.uint8] = np.rint(255 * np.nan_to_num(scaled)).astype(np.uint8)
    return pixels


def grey_levels(volume: Array) -> tuple[float, float]:
    """Black and white points of a volume that may hold NaN."""
    return grey_window(np.nan_to_num(np.asarray(volume, np.float32), posinf=0, neginf=0))


def four_digits(value: float) -> str:
    """Four significant digits, zeros kept so that columns align; large numbers to the unit."""
    return f"{value:,}" if isinstance(value, int) else number(value, "#.4g")
