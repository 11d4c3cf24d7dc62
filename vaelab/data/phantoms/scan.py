"""A head with a tumour as four MRI series: what a scanner makes of it."""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from vaelab.data.phantoms.head import (
    ENHANCING,
    NON_ENHANCING_CORE,
    OEDEMA,
    AverageBrain,
    Floats,
    Mask,
    ScanGrid,
    before_the_push,
    draw_head,
    draw_tumour,
    lowest,
    read_at,
    seat_of,
    smooth_field,
)


class TissueSignals(NamedTuple):
    """Signal of each tissue in one series, in the arbitrary units of a scanner."""

    fluid: float
    grey: float
    white: float
    core: float
    oedema: float
    enhancing: float
    detail: float  # gain on what the average T1 shows beyond the three tissues


CONTRASTS = {
    "t1c": TissueSignals(260, 620, 850, 600, 700, 1400, 1000),
    "t1n": TissueSignals(260, 600, 850, 470, 690, 610, 1000),
    "t2f": TissueSignals(130, 720, 580, 900, 1080, 860, -300),
    "t2w": TissueSignals(1350, 820, 560, 1150, 1080, 860, -900),
}


class Phantom(NamedTuple):
    """One subject at one time point, on its RAS grid."""

    series: dict[str, NDArray[np.int16]]  # by contrast, (X, Y, Z); 0 outside the brain, else > 0
    seg: NDArray[np.uint8]  # (X, Y, Z)
    head_size: float


def draw_phantom(
    average: AverageBrain,
    grid: ScanGrid,
    seed: int,
    number: int,
    time_point: int,
    isointense: Collection[str] = (),
) -> Phantom:
    """Draw patient ``number`` at ``time_point``; head and seat of the tumour stay the same.

    In the series ``isointense`` lesions have the signal of grey matter: their place in a brain, and
    the other series, give them away, but no threshold does.
    """
    streams = np.random.SeedSequence((seed, number)).spawn(4)
    of_head, of_tumour, *of_scans = (np.random.default_rng(stream) for stream in streams)
    head = draw_head(grid, of_head)
    tumour = draw_tumour(grid, time_point, of_tumour)

    # The skull holds: the brain's outline is read before the tumour pushes, its tissues after.
    points = np.stack(np.meshgrid(*grid.axes, indexing="ij")).reshape(3, -1)  # (3, XYZ)
    inside = read_at(average.brain, average, points, head, head.bend) > 0.5
    brain = inside.reshape([len(axis) for axis in grid.axes])
    points = points[:, inside]  # (3, N)

    seat = seat_of(points, tumour, grid.spacing)
    lobes, fingers = tumour.lobes[brain].clip(-2, 2), tumour.fingers[brain]
    reach = np.linalg.norm(points - seat, axis=0) * (1 + 0.13 * lobes)  # (N,), mm
    voxels = round(tumour.volume / float(np.prod(grid.spacing)))
    blob = lowest(reach, np.ones_like(reach, dtype=bool), voxels)
    radius = float(reach[blob].max())

    sources = before_the_push(points, seat, reach, radius)
    t1, grey, white = (
        read_at(volume, average, sources, head, head.bend[:, inside])
        for volume in (average.t1, average.grey, average.white)
    )

    depth = np.linalg.norm(points - points[:, blob].mean(axis=1, keepdims=True), axis=0)
    core = lowest(depth + 2.0 * fingers, blob, round(tumour.core_share * voxels))
    # Oedema follows white matter, within 25 mm of the tumour.
    swelling = ~blob & (white > 0.4) & (reach < radius + 25.0)
    oedema = lowest(reach + 4.0 * fingers, swelling, round(tumour.oedema_share * voxels))
    seg = np.zeros(brain.shape, np.uint8)
    seg[brain] = np.select([core, blob, oedema], [NON_ENHANCING_CORE, ENHANCING, OEDEMA])

    # What each voxel shares with a label, (N,): the edges of a tumour are partial volumes too.
    lesions = [
        (label, ndimage.gaussian_filter((seg == label).astype(np.float32), 0.5)[brain])
        for label in (OEDEMA, ENHANCING, NON_ENHANCING_CORE)
    ]
    series = {}
    for name, contrast in CONTRASTS.items():
        if name in isointense:
            grey_matter = contrast.grey
            contrast = contrast._replace(
                core=grey_matter, oedema=grey_matter, enhancing=grey_matter
            )
        signal = _signal(contrast, t1, grey, white, lesions)
        series[name] = np.zeros(brain.shape, np.int16)
        series[name][brain] = _scan(signal, brain, grid, of_scans[time_point])
    return Phantom(series, seg, head.size)


def _signal(
    contrast: TissueSignals,
    t1: Floats,
    grey: Floats,
    white: Floats,
    lesions: list[tuple[int, Floats]],
) -> Floats:
    """What a perfect scanner would see, (N,)."""
    fluid = np.clip(1 - grey - white, 0, 1)
    # 0.31, 0.65 and 0.87 are the mean values of pure tissue in the average T1.
    detail = np.clip(t1 - (0.31 * fluid + 0.65 * grey + 0.87 * white), -0.12, 0.12)
    signal = contrast.fluid * fluid + contrast.grey * grey + contrast.white * white
    signal = signal + contrast.detail * detail
    value = {
        OEDEMA: contrast.oedema,
        ENHANCING: contrast.enhancing,
        NON_ENHANCING_CORE: contrast.core,
    }
    for label, share in lesions:
        signal = signal + share * (value[label] - signal)
    return signal


def _scan(
    signal: Floats, brain: Mask, grid: ScanGrid, random: np.random.Generator
) -> NDArray[np.int16]:
    """Receiver gain, bias field and Rician noise, (N,); at least 1, for 0 means background."""
    gain = random.uniform(0.85, 1.1)
    bias = np.exp(0.06 * smooth_field(grid, 70.0, random)[brain])
    noise = random.uniform(14.0, 24.0) * random.standard_normal((2, len(signal)))
    magnitude = np.hypot(gain * bias * signal + noise[0], noise[1])
    return np.asarray(np.rint(magnitude).clip(1, 32767), dtype=np.int16)
