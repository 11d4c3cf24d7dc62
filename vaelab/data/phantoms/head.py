"""A head with a meningioma, drawn from a seed, on the grid of its scan.

Volumes lie on a right-anterior-superior grid (X, Y, Z), points are millimetres of the patient's
world (0 = the anterior commissure of an average head), and what is said of the brain alone is a
vector over its N voxels.
"""

from __future__ import annotations

from typing import NamedTuple

import nibabel as nib
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial.transform import Rotation

NON_ENHANCING_CORE, OEDEMA, ENHANCING = 1, 2, 3  # the labels of BraTS 2023

ODD_ONE_IN = 5  # of so many patients one is stored unlike the rest
# Orientation and spacing, the latter relative to voxel_size in stored order, so that the thick
# slices are axial, sagittal and coronal in turn.
USUAL_STORAGE = ("RAS", (1.0, 1.0, 1.0))
ODD_STORAGES = (
    ("LPS", (0.75, 0.75, 2.0)),
    ("PSR", (0.75, 0.75, 2.0)),
    ("RSA", (0.75, 0.75, 2.0)),
)

FIELD_OF_VIEW = np.array([192.0, 224.0, 192.0])  # mm; holds the largest head of the cohort
HEAD_CENTRE = np.array([0.0, -17.0, 5.0])  # mm; middle of the average brain's bounding box

Floats = NDArray[np.float32] | NDArray[np.float64]
Mask = NDArray[np.bool_]


# --------------------------------------------------------------------------- the grid


class ScanGrid(NamedTuple):
    """Where the voxels of one subject lie, in RAS order, and how they will be stored."""

    axes: tuple[Floats, ...]  # three vectors, mm
    spacing: Floats  # (3,), mm
    affine: Floats  # (4, 4), voxel to world
    orientation: str  # axis codes on disk, such as LPS
    stored_spacing: Floats  # (3,), mm, in the order on disk


def grid_of(number: int, voxel_size: float) -> ScanGrid:
    """The grid on which patient ``number`` is scanned, at about ``voxel_size`` mm."""
    orientation, relative_spacing = USUAL_STORAGE
    if number % ODD_ONE_IN == 3:  # 3, so that a cohort of three already holds one
        orientation, relative_spacing = ODD_STORAGES[number // ODD_ONE_IN % len(ODD_STORAGES)]
    stored_spacing = voxel_size * np.array(relative_spacing)
    spacing = np.empty(3)
    spacing[nib.orientations.axcodes2ornt(orientation)[:, 0].astype(int)] = stored_spacing
    shape = np.ceil(FIELD_OF_VIEW / spacing).astype(int)
    affine = np.diag([*spacing, 1.0])
    affine[:3, 3] = HEAD_CENTRE - (shape - 1) / 2 * spacing
    axes = tuple(affine[i, 3] + spacing[i] * np.arange(shape[i]) for i in range(3))
    return ScanGrid(axes, spacing, affine, orientation, stored_spacing)


def smooth_field(grid: ScanGrid, scale: float, random: np.random.Generator) -> Floats:
    """Gaussian random field of zero mean, unit variance and ``scale`` mm between knots, (X, Y, Z).

    The knots stand still in the world, so one stream gives one field on whatever grid.
    """
    knots = [
        centre + scale * np.arange(-(half := np.ceil(extent / 2 / scale) + 1), half + 1)
        for centre, extent in zip(HEAD_CENTRE, FIELD_OF_VIEW, strict=True)
    ]
    field = random.standard_normal([len(along) for along in knots])
    for positions, along in zip(grid.axes, knots, strict=True):
        weights = np.exp(-0.5 * ((positions[:, None] - along) / (0.6 * scale)) ** 2)
        weights /= np.linalg.norm(weights, axis=1, keepdims=True)  # variance 1 everywhere
        field = np.tensordot(field, weights, axes=(0, 1))  # done axis goes last, next comes first
    return field


# --------------------------------------------------------------------------- the head


class AverageBrain(NamedTuple):
    """ICBM 152 2009a at 1 mm, each (197, 233, 189) float32 in [0, 1]."""

    t1: Floats
    grey: Floats
    white: Floats
    brain: Floats
    world_to_voxel: Floats  # (4, 4)

    def seen_by(self, grid: ScanGrid) -> AverageBrain:
        """The same through voxels of a grid: a scanner shows their mean and no point of them.

        A box of width s has a variance of s²/12, of which the average brain's own millimetre is a
        part. The outline stays sharp; whoever stripped the skull decided voxel by voxel.
        """
        sigma = np.sqrt(np.maximum(grid.spacing**2 - 1.0, 0.0) / 12)
        t1, grey, white = (
            ndimage.gaussian_filter(volume, sigma, truncate=3.0, mode="nearest")
            for volume in (self.t1, self.grey, self.white)
        )
        return self._replace(t1=t1, grey=grey, white=white)


def load_average_brain() -> AverageBrain:
    """ICBM 152, from nilearn's wheel."""
    from nilearn import datasets  # two seconds, which only the first preparation should cost

    loaders = (
        datasets.load_mni152_template,
        datasets.load_mni152_gm_template,
        datasets.load_mni152_wm_template,
        datasets.load_mni152_brain_mask,
    )
    images = [load(resolution=1) for load in loaders]
    t1, grey, white, brain = (np.asarray(image.dataobj, dtype=np.float32) for image in images)
    return AverageBrain(t1, grey, white, brain, np.linalg.inv(images[0].affine))


class Head(NamedTuple):
    """One patient's map from their own world to the average brain's."""

    size: float  # 1 = average
    linear: Floats  # (3, 3), about HEAD_CENTRE
    shift: Floats  # (3,), mm
    bend: Floats  # (3, XYZ), mm, added after the linear part


def draw_head(grid: ScanGrid, random: np.random.Generator) -> Head:
    """Size and proportions of a head, and how its tissue is bent."""
    size = random.uniform(0.92, 1.08)
    proportions = size * random.uniform(0.97, 1.03, size=3)
    tilt = Rotation.from_euler("xyz", random.uniform(-5.0, 5.0, size=3), degrees=True)
    shift = random.uniform(-4.0, 4.0, size=3)
    bend = np.stack([2.5 * smooth_field(grid, 40.0, random).ravel() for _ in range(3)])
    return Head(size, np.diag(1 / proportions) @ tilt.inv().as_matrix(), shift, bend)


def read_at(
    volume: Floats, average: AverageBrain, points: Floats, head: Head, bend: Floats
) -> Floats:
    """Trilinear reading of an average volume at a patient's ``points``; (3, N) mm to (N,)."""
    centre = HEAD_CENTRE[:, None]
    in_average = head.linear @ (points - centre - head.shift[:, None]) + centre + bend
    voxels = average.world_to_voxel[:3, :3] @ in_average + average.world_to_voxel[:3, 3:]
    return np.asarray(ndimage.map_coordinates(volume, voxels, order=1))


# --------------------------------------------------------------------------- the tumour


class Tumour(NamedTuple):
    """A meningioma before it meets a brain."""

    direction: Floats  # (3,), unit vector from the middle of the brain to the seat
    first_volume: float  # mm^3 of labels 1 and 3 at the first time point
    volume: float  # mm^3 of labels 1 and 3 now
    core_share: float  # label 1 over that volume; 0 in many
    oedema_share: float  # label 2 over that volume; 0 in some
    lobes: Floats  # (X, Y, Z), unit variance: the surface
    fingers: Floats  # (X, Y, Z), unit variance: the ragged edge of oedema and core


def draw_tumour(grid: ScanGrid, time_point: int, random: np.random.Generator) -> Tumour:
    """Direction, size and outline; at a later time point it is larger."""
    azimuth = random.uniform(0, 2 * np.pi)
    height = random.uniform(-0.15, 0.9)  # sine of the elevation: none on the brain stem
    across = np.sqrt(1 - height**2)
    first_volume = float(np.exp(random.uniform(np.log(3_000), np.log(35_000))))
    growth = random.uniform(1.3, 1.8)
    return Tumour(
        direction=np.array([across * np.cos(azimuth), across * np.sin(azimuth), height]),
        first_volume=first_volume,
        volume=first_volume * growth**time_point,
        core_share=max(0.0, random.uniform(-0.2, 0.15)),
        oedema_share=max(0.0, random.uniform(-0.15, 1.5)),
        lobes=smooth_field(grid, 18.0, random),
        fingers=smooth_field(grid, 12.0, random),
    )


def seat_of(points: Floats, tumour: Tumour, spacing: Floats) -> Floats:
    """The point (3, 1) just below the dura from which the tumour grows, at every time point."""
    middle = points.mean(axis=1, keepdims=True)
    along = tumour.direction @ (points - middle)
    aside = np.linalg.norm(points - middle - np.outer(tumour.direction, along), axis=0)
    on_ray = aside < 4.0
    if not on_ray.any():  # it slipped between thick slices: half a voxel's diagonal catches it
        on_ray = aside <= np.linalg.norm(spacing) / 2
    to_dura = along[on_ray].max()
    radius = (3 * tumour.first_volume / (4 * np.pi)) ** (1 / 3)
    return np.asarray(middle + tumour.direction[:, None] * (to_dura - 0.4 * radius))


def lowest(score: Floats, among: Mask, count: int) -> Mask:
    """The ``count`` voxels of lowest score among the given ones; (N,)."""
    count = min(count, int(among.sum()))
    if count == 0:
        return np.zeros_like(among)
    threshold = np.partition(score[among], count - 1)[count - 1]
    return np.asarray(among & (score <= threshold))


def before_the_push(points: Floats, seat: Floats, reach: Floats, radius: float) -> Floats:
    """Mass effect: where the tissue now at ``points`` lay before the tumour; (3, N) mm.

    Tissue at the tumour's edge came from 0.4 radii; the push fades with distance, never folding.
    """
    beyond = np.maximum(reach - radius, 0.0)
    pull = 0.6 * radius * np.exp(-beyond / (1.2 * radius)) / np.maximum(reach, radius)
    return np.asarray(points - pull * (points - seat))
