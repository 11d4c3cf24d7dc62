"""Volumes for the slice viewer of a report: reduced in size, 8 bits, compressed."""

from __future__ import annotations

import base64
import zlib
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from vaelab.report.canvas import Array
from vaelab.report.cases import VolumeCase
from vaelab.report.gallery import grey_levels, to_bytes
from vaelab.report.style import HEAT

MOST_VOXELS: Final = 96  # longest side of a volume in the slice viewer


def packed_volume(case: VolumeCase, heat_scale: float) -> dict[str, Any]:
    """A case as JSON for the script of the page; volumes as in :func:`packed`."""
    shape = case.heatmap.shape
    factor = min(1.0, MOST_VOXELS / max(shape))
    modalities = []
    for name, volume in case.modalities.items():
        window = grey_levels(volume)
        pair = (volume, case.reconstructions[name])
        image, x_hat = (packed(to_bytes(_shrunk(v, factor), *window)) for v in pair)
        modalities.append({"name": name, "input": image, "reconstruction": x_hat})
    heatmap = np.nan_to_num(case.heatmap, nan=heat_scale, posinf=heat_scale)
    heat = to_bytes(_shrunk(heatmap, factor), 0, heat_scale)
    seg = None
    if case.seg is not None:
        tumour = (case.seg > 0).astype(np.uint8)
        seg = ndimage.zoom(tumour, factor, order=0, mode="nearest", grid_mode=True)
    return {
        "id": case.id,
        "shape": heat.shape,
        "original": shape,
        "spacing": [float(side) for side in case.spacing],
        "start": [_widest(seg, heat.shape, axis) for axis in range(3)],
        "modalities": modalities,
        "heat": packed(heat),
        "seg": None if seg is None else packed(seg),
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
    """The index along ``axis`` with most tumour; the centre without tumour."""
    if seg is None or not seg.any():
        return shape[axis] // 2
    others = tuple(other for other in range(3) if other != axis)
    return int(np.count_nonzero(seg, axis=others).argmax())


def packed(volume: npt.NDArray[np.uint8]) -> str:
    """Base64 of a zlib stream of the bytes in C order, each less the one before it (mod 256)."""
    flat = volume.ravel()
    steps = np.diff(flat, prepend=np.uint8(0))  # uint8 wraps around; the script adds up again
    return base64.b64encode(zlib.compress(steps.tobytes(), 9)).decode("ascii")


def heat_colours() -> list[list[int]]:
    """The 256 colours of the heat scale, RGB in 0 to 255."""
    colours: list[list[int]] = np.rint(255 * HEAT(np.arange(256))[:, :3]).astype(int).tolist()
    return colours
