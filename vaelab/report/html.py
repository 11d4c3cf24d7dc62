"""``report.html``: a run in one file that can be sent to a colleague.

Pictures, volumes, style and script are all inside, and a Content-Security-Policy forbids the page
to ask the network for anything. Every text is escaped: a case is named by a file, and a file may
be named ``<script>``. The page itself is ``template.html``, beside this file.
"""

import base64
import datetime as dt
import io
import math
import os
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt
from jinja2 import Environment, PackageLoader, StrictUndefined
from PIL import Image
from scipy import ndimage

from vaelab.atomic import replacing
from vaelab.errors import UserError
from vaelab.report.canvas import HEAT, Array, number
from vaelab.report.card import ALPHA, OUTLINE, overlay, tumour_slice
from vaelab.report.slices import axial, grey_window

TRUTHS: Final = ("normal", "sick", "")
MOST_PIXELS: Final = 160  # longest side of a picture
MOST_VOXELS: Final = 96  # longest side of a volume in the slice viewer
MOST_HARD_CASES: Final = 4  # of each kind
JPEG_QUALITY: Final = 88
PNG_SIGNATURE: Final = b"\x89PNG\r\n\x1a\n"


@dataclass(frozen=True)
class Case:
    """A 2D image and what the detector says of it.

    Args:
        id: any text; a file name as a rule.
        truth: "normal", "sick", or "" when nobody knows.
        score: anomaly score, larger is more abnormal.
        p_value: share of healthy images with such a score or a larger one, in [0, 1].
        flagged: did the detector raise an alarm? None when no threshold was chosen.
        group: a finer class such as "bacteria", or "".
        image, reconstruction: (H, W) in [0, 1].
        heatmap: (H, W) residual magnitudes, in the unit of the report's ``heat_scale``.
    """

    id: str
    truth: str
    score: float
    p_value: float | None
    flagged: bool | None
    group: str
    image: Array
    reconstruction: Array
    heatmap: Array


@dataclass(frozen=True)
class VolumeCase:
    """A volume and what the detector says of it; the first six fields as in :class:`Case`.

    Args:
        modalities: name → (D, H, W), RAS, in any unit. Grey levels span percentiles 0.5 to 99.9.
        reconstructions: the same names → (D, H, W), in the same units.
        heatmap: (D, H, W) residual magnitudes, in the unit of the report's ``heat_scale``.
        seg: (D, H, W) integer labels, 0 is no tumour; None when there is none.
        spacing: the sides of a voxel along D, H, W in mm; only their ratio is used.
    """

    id: str
    truth: str
    score: float
    p_value: float | None
    flagged: bool | None
    group: str
    modalities: Mapping[str, Array]
    reconstructions: Mapping[str, Array]
    heatmap: Array
    seg: Array | None = None
    spacing: tuple[float, float, float] = (1.0, 1.0, 1.0)


AnyCase: TypeAlias = Case | VolumeCase


@dataclass(frozen=True)
class MetricRow:
    """A headline number, with the ends of its interval where it has one."""

    name: str
    value: float
    low: float | None = None
    high: float | None = None
    note: str = ""


def write_report(
    path: str | os.PathLike[str],
    *,
    title: str,
    summary: Mapping[str, str],
    metrics: Sequence[MetricRow],
    figures: Mapping[str, bytes],
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
        summary: facts for the head of the page, label → text.
        metrics: the headline numbers.
        figures: caption → PNG file.
        cases: rows of the gallery, in any order. A 2D case of 128 × 128 pixels costs about
            17 KB, so a large test split is better thinned out by the caller.
        heat_scale: the magnitude with the brightest colour, the same for every case.
        scale_source: where it comes from, for example "99.5th percentile of healthy images".
        heat_name: what heat maps show, in words.
        config_yaml: the resolved config, shown literally.
        versions: package → version.
        splits: split → number of samples.
        max_volumes: the first so many volume cases can be leafed through; the others have
            pictures only. Four modalities of 96³ voxels cost about 3 MB.
        date: today when None.

    Raises:
        UserError: a score, p-value, metric or ``heat_scale`` is not a usable number.
    """
    _check(metrics, cases, heat_scale)
    volumes = [case for case in cases if isinstance(case, VolumeCase)][:max_volumes]
    rows = _rows(cases, volumes, heat_scale)
    return write_page(
        path,
        "template.html",
        title=title,
        date=(date or dt.date.today()).isoformat(),
        summary=summary,
        splits=splits,
        metrics=[_formatted(metric) for metric in metrics],
        figures=[embedded_figure(caption, png) for caption, png in figures.items()],
        rows=rows,
        missed=[row for row in reversed(rows) if row.case.truth == "sick"][:MOST_HARD_CASES],
        alarmed=[row for row in rows if row.case.truth == "normal"][:MOST_HARD_CASES],
        columns=_columns(cases),
        volumes=[_volume(case, heat_scale) for case in volumes],
        viewer={"heat": _heat_colours(), "alpha": ALPHA, "outline": OUTLINE},
        heat_gradient=",".join("#{:02x}{:02x}{:02x}".format(*c) for c in _heat_colours()[::15]),
        heat_scale=f"{heat_scale:.3g}",
        scale_source=scale_source,
        heat_name=heat_name,
        config_yaml=config_yaml,
        versions=versions,
    )


def write_page(path: str | os.PathLike[str], template: str, **content: Any) -> Path:
    """Render ``template``, a file beside this one, to ``path``, whole or not at all."""
    page = Environment(
        loader=PackageLoader("vaelab.report", ""),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    ).get_template(template)
    html = page.render(**content)
    target = Path(path)
    with replacing(target) as partial:
        # A name with undecodable bytes has lone surrogates, which no UTF-8 file can hold.
        partial.write_bytes(html.encode("utf-8", errors="replace"))
    return target


def _check(metrics: Sequence[MetricRow], cases: Sequence[AnyCase], heat_scale: float) -> None:
    if not (math.isfinite(heat_scale) and heat_scale > 0):
        raise UserError(
            f"heat_scale={heat_scale}: must be a positive number;"
            " take a high percentile of healthy residuals"
        )
    for metric in metrics:
        if not all(
            math.isfinite(v) for v in (metric.value, metric.low, metric.high) if v is not None
        ):
            raise UserError(f"metric {metric.name!r}: {metric} is not finite; leave it out")
    for case in cases:
        if not math.isfinite(case.score):
            raise UserError(f"case {case.id!r}: score={case.score}; did the run diverge?")
        if case.p_value is not None and not 0 <= case.p_value <= 1:
            raise UserError(
                f"case {case.id!r}: p_value={case.p_value} must lie in [0, 1]; None if unknown"
            )
        assert case.truth in TRUTHS, case.truth
        arrays = [case.heatmap]
        if isinstance(case, Case):
            arrays += [case.image, case.reconstruction]
        else:
            assert case.modalities, case.id
            assert case.modalities.keys() == case.reconstructions.keys(), case.id
            arrays += [*case.modalities.values(), *case.reconstructions.values()]
            arrays += [] if case.seg is None else [case.seg]
        shapes = {array.shape for array in arrays}
        assert len(shapes) == 1, (case.id, shapes)


# ---------------------------------------------------------------- numbers and figures


class _Metric(NamedTuple):
    name: str
    value: str
    interval: str
    note: str


def _formatted(metric: MetricRow) -> _Metric:
    interval = ""
    if metric.low is not None and metric.high is not None:
        interval = f"{_number(metric.low)} – {_number(metric.high)}"
    return _Metric(metric.name, _number(metric.value), interval, metric.note)


def _number(value: float) -> str:
    """Four significant digits, zeros kept so that columns align; large numbers to the unit."""
    return f"{value:,}" if isinstance(value, int) else number(value, "#.4g")


class EmbeddedFigure(NamedTuple):
    """A figure as a page carries it."""

    caption: str
    uri: str
    aspect: float  # width / height
    is_chart: bool  # on white, so that a dark page may turn it dark


def embedded_figure(caption: str, png: bytes) -> EmbeddedFigure:
    """A PNG file as a data URI, with what a page needs to lay it out."""
    assert png.startswith(PNG_SIGNATURE), caption
    with Image.open(io.BytesIO(png)) as image:
        corner = image.convert("RGB").getpixel((0, 0))
        aspect = image.width / image.height
    return EmbeddedFigure(caption, _uri("png", png), aspect, is_chart=corner == (255, 255, 255))


# ---------------------------------------------------------------- the gallery


class _Row(NamedTuple):
    number: int  # its place, the most abnormal case first
    case: AnyCase
    pictures: tuple[str, str, str]  # input, reconstruction, overlay; data URIs
    score: str
    p_value: str  # "" when unknown
    position: float  # of the score between the report's smallest and largest, in [0, 1]
    volume: int | None  # its place in the slice viewer


def _rows(cases: Sequence[AnyCase], volumes: Sequence[VolumeCase], heat_scale: float) -> list[_Row]:
    low = min((case.score for case in cases), default=0.0)
    reach = max((case.score for case in cases), default=0.0) - low
    places = {id(case): place for place, case in enumerate(volumes)}
    ordered = sorted(cases, key=lambda case: -case.score)
    return [
        _Row(
            number,
            case,
            _pictures(case, heat_scale),
            _number(float(case.score)),
            "" if case.p_value is None else f"{case.p_value:.2g}",
            (case.score - low) / reach if reach > 0 else 0.0,
            places.get(id(case)),
        )
        for number, case in enumerate(ordered)
    ]


class _Column(NamedTuple):
    key: str
    name: str
    numeric: bool


def _columns(cases: Sequence[AnyCase]) -> list[_Column]:
    """The columns that at least one case has something to say in."""
    columns = [_Column("id", "Case", False)]
    if any(case.truth for case in cases):
        columns.append(_Column("truth", "Truth", False))
    if any(case.group for case in cases):
        columns.append(_Column("group", "Group", False))
    columns.append(_Column("score", "Score", True))
    if any(case.p_value is not None for case in cases):
        columns.append(_Column("p", "p-value", True))
    if any(case.flagged is not None for case in cases):
        columns.append(_Column("flagged", "Flagged", False))
    return columns


def _pictures(case: AnyCase, heat_scale: float) -> tuple[str, str, str]:
    if isinstance(case, Case):
        image, reconstruction, heatmap = case.image, case.reconstruction, case.heatmap
    else:
        name, volume = next(iter(case.modalities.items()))
        z = volume.shape[2] // 2 if case.seg is None else tumour_slice(case.seg)
        low, high = _window(volume)
        image = (axial(volume, z) - low) / (high - low)
        reconstruction = (axial(case.reconstructions[name], z) - low) / (high - low)
        heatmap = axial(case.heatmap, z)
    return (
        _jpeg(_bytes(image, 0, 1)),
        _jpeg(_bytes(reconstruction, 0, 1)),
        _jpeg(overlay(image, heatmap, heat_scale, ALPHA)),
    )


def _jpeg(pixels: npt.NDArray[np.uint8]) -> str:
    picture = Image.fromarray(np.ascontiguousarray(pixels))
    picture.thumbnail((MOST_PIXELS, MOST_PIXELS))
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=JPEG_QUALITY, subsampling=0, optimize=True)
    return _uri("jpeg", file.getvalue())


def _uri(kind: str, content: bytes) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode('ascii')}"


def _bytes(values: Array, low: float, high: float) -> npt.NDArray[np.uint8]:
    """``values`` from black at ``low`` to white at ``high``; NaN is black."""
    scaled = np.clip((np.asarray(values, np.float32) - low) / (high - low), 0, 1)
    pixels: npt.NDArray[np.uint8] = np.rint(255 * np.nan_to_num(scaled)).astype(np.uint8)
    return pixels


def _window(volume: Array) -> tuple[float, float]:
    return grey_window(np.nan_to_num(np.asarray(volume, np.float32), posinf=0, neginf=0))


# ---------------------------------------------------------------- the slice viewer


def _volume(case: VolumeCase, heat_scale: float) -> dict[str, Any]:
    """A case as the script of the page reads it; volumes as in :func:`_packed`."""
    shape = case.heatmap.shape
    factor = min(1.0, MOST_VOXELS / max(shape))
    modalities = []
    for name, volume in case.modalities.items():
        window = _window(volume)
        pair = (volume, case.reconstructions[name])
        image, x_hat = (_packed(_bytes(_shrunk(v, factor), *window)) for v in pair)
        modalities.append({"name": name, "input": image, "reconstruction": x_hat})
    heat = _bytes(
        _shrunk(np.nan_to_num(case.heatmap, nan=heat_scale, posinf=heat_scale), factor),
        0,
        heat_scale,
    )
    seg = (
        None
        if case.seg is None
        else ndimage.zoom(
            (case.seg > 0).astype(np.uint8), factor, order=0, mode="nearest", grid_mode=True
        )
    )
    return {
        "id": case.id,
        "shape": heat.shape,
        "original": shape,
        "spacing": [float(side) for side in case.spacing],
        "start": [_widest(seg, heat.shape, axis) for axis in range(3)],
        "modalities": modalities,
        "heat": _packed(heat),
        "seg": None if seg is None else _packed(seg),
    }


def _shrunk(volume: Array, factor: float) -> Array:
    """``volume`` with ``factor`` times as many voxels a side, smoothed first against moiré."""
    values = np.nan_to_num(np.asarray(volume, np.float32), posinf=0, neginf=0)
    if factor == 1:
        return values
    smooth = ndimage.gaussian_filter(values, (1 / factor - 1) / 2, mode="nearest")
    small: Array = ndimage.zoom(smooth, factor, order=1, mode="nearest", grid_mode=True)
    return small


def _widest(seg: Array | None, shape: tuple[int, ...], axis: int) -> int:
    """The index along ``axis`` with most tumour; the centre if there is none."""
    if seg is None or not seg.any():
        return shape[axis] // 2
    others = tuple(other for other in range(3) if other != axis)
    return int(np.count_nonzero(seg, axis=others).argmax())


def _packed(volume: npt.NDArray[np.uint8]) -> str:
    """Base64 of a zlib stream of the bytes in C order, each less the one before it (mod 256)."""
    flat = volume.ravel()
    steps = np.diff(flat, prepend=np.uint8(0))  # uint8 wraps around; the script adds up again
    return base64.b64encode(zlib.compress(steps.tobytes(), 9)).decode("ascii")


def _heat_colours() -> list[list[int]]:
    """The 256 colours of the heat scale, RGB in 0 to 255."""
    colours: list[list[int]] = np.rint(255 * HEAT(np.arange(256))[:, :3]).astype(int).tolist()
    return colours
