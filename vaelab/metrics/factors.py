"""What a segmentation says of a patient: how large, where, of what shape.

Pure functions of a label volume. Sizes are in mm and mm³, and directions are the patient's,
whatever the orientation on disk: x to the right, y to the front, z to the top (RAS+, as NIfTI).
All labels together are the *segmented* region, whose place and shape are described.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import product

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial import ConvexHull, SphericalVoronoi
from scipy.spatial.distance import pdist

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]

SMALLEST_PART_MM3 = 50.0
"""Connected components below are specks and not counted, as in the lesion-wise scores of BraTS."""

FEWEST_VOXELS = 33
"""Below, a ball of two voxels' radius, elongation and sphericity are those of the grid: NaN."""

MIDLINE_MM = 5.0
"""A centre that is no farther from the middle of the brain is on neither side."""

LEFT, MIDLINE, RIGHT = -1.0, 0.0, 1.0
"""The patient's own, as numbers along x."""

CENTRE_MM = ("centre_x_mm", "centre_y_mm", "centre_z_mm")
CENTRE_SHARE = ("centre_x_share", "centre_y_share", "centre_z_share")
UNKNOWN = (np.nan, np.nan, np.nan)

# To the 26 neighbours of a voxel, of each opposite pair one.
_DIRECTIONS = np.array([step for step in product((-1, 0, 1), repeat=3) if step > (0, 0, 0)])
_TOUCHING = np.ones((3, 3, 3), dtype=bool)  # 26 neighbours


@dataclass(frozen=True)
class Factors:
    """What is known of one segmentation; NaN where nothing is segmented or there is no brain."""

    label_mm3: Mapping[int, float] = field(default_factory=dict)
    """Label → volume in mm³, of the labels that are there."""
    volume_mm3: float = 0.0
    """Of all labels together."""
    centre_mm: tuple[float, ...] = UNKNOWN
    """Centroid (x, y, z) in mm."""
    centre_share: tuple[float, ...] = UNKNOWN
    """The same relative to the brain's box: 0 is its left, back or bottom, 1 its right, front or
    top."""
    side: float = np.nan
    """``LEFT``, ``MIDLINE`` or ``RIGHT`` of the middle of the brain's box, or of x = 0."""
    extent_mm: float = np.nan
    """Largest distance of two points of the surface, the maximum Feret diameter."""
    elongation: float = np.nan
    """Longest over shortest principal axis, from the second moments: 1 for a ball, above for
    everything else."""
    sphericity: float = np.nan
    """Surface of the ball of that volume over the surface: 1 for a ball, below for everything
    else (Wadell 1935)."""
    parts: float = 0.0
    """Connected components, by 26 neighbours, of at least ``SMALLEST_PART_MM3``."""
    depth_mm: float = np.nan
    """Distance of the centroid from the brain's surface: positive inside, negative outside."""

    def columns(self) -> dict[str, float]:
        """As columns of a table. Logs are log(1 + V), V in mm³."""
        volumes = {"segmented": self.volume_mm3}
        volumes |= {f"label_{label}": volume for label, volume in self.label_mm3.items()}
        return {
            **{f"{name}_mm3": volume for name, volume in volumes.items()},
            **{f"{name}_log": float(np.log1p(volume)) for name, volume in volumes.items()},
            **dict(zip(CENTRE_MM, self.centre_mm, strict=True)),
            **dict(zip(CENTRE_SHARE, self.centre_share, strict=True)),
            "side": self.side,
            "extent_mm": self.extent_mm,
            "elongation": self.elongation,
            "sphericity": self.sphericity,
            "parts": self.parts,
            "depth_mm": self.depth_mm,
        }


NAMES = tuple(Factors().columns())
"""Columns that every segmentation has, beside those of its labels."""


def factors_of(seg: NDArray[np.integer], affine: Floats, brain: Mask | None = None) -> Factors:
    """The factors of a label volume.

    Args:
        seg: labels, (D, H, W); 0 is background.
        affine: voxel indices → mm of the patient's world, (4, 4).
        brain: where the image is not background, (D, H, W); None leaves out what needs it.
    """
    linear = np.asarray(affine, dtype=np.float64)[:3, :3]
    origin = np.asarray(affine, dtype=np.float64)[:3, 3]
    voxel_mm3 = abs(float(np.linalg.det(linear)))
    points = np.argwhere(seg > 0)  # (N, 3)
    if not len(points):
        return Factors()
    labels = seg[tuple(slice(*ends) for ends in zip(points.min(0), points.max(0) + 1, strict=True))]
    mask = labels > 0
    places = points @ linear.T + origin
    centre = places.mean(0)
    volume = len(points) * voxel_mm3
    numbers, counts = np.unique(labels[mask], return_counts=True)
    reach, middle, depth = _in_the_brain(brain, centre, linear, origin)
    off = centre[0] - middle
    enough = len(points) >= FEWEST_VOXELS
    return Factors(
        label_mm3={
            int(label): int(count) * voxel_mm3 for label, count in zip(numbers, counts, strict=True)
        },
        volume_mm3=volume,
        centre_mm=tuple(centre.tolist()),
        centre_share=reach,
        side=MIDLINE if abs(off) <= MIDLINE_MM else float(np.sign(off)),
        extent_mm=_extent(mask, linear),
        elongation=_elongation(places, linear) if enough else np.nan,
        sphericity=_sphericity(volume, surface_mm2(mask, linear)) if enough else np.nan,
        parts=float(_parts(mask, voxel_mm3)),
        depth_mm=depth,
    )


def faces(mask: Mask) -> Floats:
    """Centres of the faces between inside and outside, as voxel indices, (F, 3).

    Half-way between two voxels, where marching cubes puts the surface of a mask too.
    """
    padded = np.pad(mask, 1)
    found = []
    for axis in range(3):
        between = np.argwhere(np.diff(padded, axis=axis)).astype(np.float64)
        between[:, axis] += 0.5
        found.append(between - 1)
    return np.concatenate(found)


def surface_mm2(mask: Mask, linear: Floats) -> float:
    """Surface by Crofton's formula on 13 directions (Lehmann & Legland 2012, eq. 6).

    S is twice the mean over directions of the area that lines cross, here weighted by the solid
    angle around each direction in mm. Measured on balls at random places: -5 and -2 % at radii of
    2 and 3 voxels, within 1 % from 4 on, also with voxels of 0.75×0.75×2 mm. Planes along the axes,
    the worst case, come out 7.3 % small, a box of 17×25×33 voxels 9.5 %, turned boxes 2 %.
    Counting faces has +50 % on any ball.
    """
    steps = _DIRECTIONS @ linear.T  # (13, 3), mm
    lengths = np.linalg.norm(steps, axis=1)
    units = steps / lengths[:, None]
    solid = SphericalVoronoi(np.vstack([units, -units])).calculate_areas() / (4 * np.pi)
    weights = solid[: len(units)] + solid[len(units) :]
    voxel_mm3 = abs(float(np.linalg.det(linear)))
    padded = np.pad(mask, 1)
    crossings = [_crossings(padded, step) for step in _DIRECTIONS]
    return float(2 * (weights * np.array(crossings) * voxel_mm3 / lengths).sum())


def _crossings(mask: Mask, step: NDArray[np.int64]) -> int:
    """How often lines along ``step`` enter or leave the mask."""
    sides = list(zip(step.tolist(), mask.shape, strict=True))
    ahead = tuple(slice(max(by, 0), side + min(by, 0)) for by, side in sides)
    behind = tuple(slice(max(-by, 0), side + min(-by, 0)) for by, side in sides)
    return int(np.count_nonzero(mask[ahead] != mask[behind]))


def _sphericity(volume: float, surface: float) -> float:
    return float(np.cbrt(np.pi) * np.cbrt(6 * volume) ** 2 / surface)


def _extent(mask: Mask, linear: Floats) -> float:
    points = faces(mask) @ linear.T
    return float(pdist(points[ConvexHull(points).vertices]).max())


def _elongation(places: Floats, linear: Floats) -> float:
    # A voxel is no point: it has second moments of its own, a twelfth of its sides squared.
    moments = np.cov(places, rowvar=False, bias=True) + linear @ linear.T / 12
    values = np.linalg.eigvalsh(moments)
    return float(np.sqrt(values[-1] / values[0]))


def _parts(mask: Mask, voxel_mm3: float) -> int:
    components, _ = ndimage.label(mask, structure=_TOUCHING)
    sizes = np.bincount(components.ravel())[1:] * voxel_mm3
    return int((sizes >= SMALLEST_PART_MM3).sum())


def _in_the_brain(
    brain: Mask | None, centre: Floats, linear: Floats, origin: Floats
) -> tuple[tuple[float, ...], float, float]:
    """Place in the brain's box, x of its middle, depth below the brain's surface."""
    if brain is None or not brain.any():
        return UNKNOWN, 0.0, np.nan
    filled = _without_holes(brain)
    surface = faces(filled) @ linear.T + origin
    low, high = surface.min(0), surface.max(0)
    distance = float(np.sqrt(((surface - centre) ** 2).sum(1).min()))
    index = np.rint(np.linalg.solve(linear, centre - origin)).astype(int)
    inside = bool(((index >= 0) & (index < brain.shape)).all() and filled[tuple(index)])
    share = (centre - low) / (high - low)
    middle = float((low[0] + high[0]) / 2)
    return tuple(share.tolist()), middle, distance if inside else -distance


def _without_holes(mask: Mask) -> Mask:
    """The mask and all that it encloses, such as ventricles that are as dark as background."""
    outside, _ = ndimage.label(np.pad(~mask, 1, constant_values=True))
    result: Mask = outside[1:-1, 1:-1, 1:-1] != outside[0, 0, 0]
    return result
