"""Brain MRI with a meningioma, drawn from a seed and written as a BraTS-MEN tree.

For everybody who wants to see the real loader run and has no data. The anatomy is real: the
ICBM 152 2009a average brain (Fonov et al. 2011), which nilearn carries inside its wheel. Each
patient gets a head of their own by a smooth random deformation; the tumour, the four contrasts,
the bias field and the noise are drawn. Nothing is downloaded.

Inside this file volumes lie on a right-anterior-superior grid (X, Y, Z), points are millimetres of
the patient's world (0 = the anterior commissure of an average head), and what is said of the brain
alone is a vector over its N voxels. The order of axes on disk is applied last, on writing.
"""

from __future__ import annotations

import csv
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import nibabel as nib
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial.transform import Rotation
from tqdm import tqdm

from vaelab.atomic import write_folder_once
from vaelab.errors import UserError

GENERATOR_VERSION = 2  # part of the folder's name: raise it whenever the written bytes change

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


@dataclass(frozen=True)
class PhantomMRI:
    """A cohort of phantoms; ``prepare`` writes it once and names its folder.

    Patient ``i`` depends on ``seed``, ``voxel_size`` and ``i`` alone, so cohorts of any size share
    their first patients. Patients 1 to ``num_followups`` were scanned twice, the second time with
    a larger tumour. Every fifth patient (3, 8, 13, ...) has another orientation and thick slices.
    """

    num_patients: int = 20
    num_followups: int = 4  # patients with a second time point, among num_patients
    voxel_size: float = 2.0  # mm, isotropic but for every fifth patient
    seed: int = 0

    def __post_init__(self) -> None:
        if self.num_patients < 2:
            raise _refusal("num_patients", self.num_patients, "at least 2 are needed; try 20")
        if not 0 <= self.num_followups <= self.num_patients:
            raise _refusal(
                "num_followups",
                self.num_followups,
                f"must lie between 0 and num_patients={self.num_patients}; try 0",
            )
        if not 0.5 <= self.voxel_size <= 6.0:
            raise _refusal("voxel_size", self.voxel_size, "must lie between 0.5 and 6 mm; try 2.0")
        if self.seed < 0:
            raise _refusal("seed", self.seed, "must not be negative; try 0")

    def with_patients(self, count: int) -> PhantomMRI:
        """As many patients, seen once each, in files as small as can be."""
        return replace(self, num_patients=count, num_followups=0, voxel_size=6.0)

    def prepare(self, root_dir: str | os.PathLike[str]) -> Path:
        """Return the cohort's folder below ``root_dir``, writing it whole on first use."""
        name = (
            f"phantom_mri-v{GENERATOR_VERSION}-{self.num_patients}patients"
            f"-{self.num_followups}followups-{float(self.voxel_size)}mm-seed{self.seed}"
        )
        return write_folder_once(Path(root_dir) / name, lambda folder: _write_cohort(folder, self))


def _refusal(key: str, value: object, cure: str) -> UserError:
    return UserError(f"dataset.phantoms.{key}={value}: {cure}")


# --------------------------------------------------------------------------- the files


def _write_cohort(folder: Path, cohort: PhantomMRI) -> None:
    """Write every subject folder and, beside them, ``factors.csv``: the truth behind each."""
    subjects = [
        (number, time_point)
        for number in range(1, cohort.num_patients + 1)
        for time_point in range(2 if number <= cohort.num_followups else 1)
    ]
    average = _load_average_brain()
    seen: dict[tuple[float, ...], AverageBrain] = {}  # by spacing; a cohort has up to four
    rows = []
    for number, time_point in tqdm(subjects, desc="writing MRI phantoms", unit="subject"):
        grid = _grid_of(number, cohort.voxel_size)
        spacing = tuple(grid.spacing.tolist())
        if spacing not in seen:
            seen[spacing] = average.seen_by(grid)
        phantom = _draw_phantom(seen[spacing], grid, cohort.seed, number, time_point)
        subject_id = f"BraTS-MEN-{number:05d}-{time_point:03d}"
        _write_subject(folder / subject_id, phantom, grid)
        rows.append(_factors(subject_id, number, time_point, phantom, grid))
    with (folder / "factors.csv").open("w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, fieldnames=list(rows[0]), lineterminator="\n")
        table.writeheader()
        table.writerows(rows)


def _write_subject(folder: Path, phantom: Phantom, grid: Grid) -> None:
    folder.mkdir()
    volumes = {**phantom.series, "seg": phantom.seg}
    for suffix, volume in volumes.items():
        image = nib.Nifti1Image(volume, grid.affine)
        image.header.set_xyzt_units("mm")
        stored = image.as_reoriented(
            nib.orientations.ornt_transform(
                nib.orientations.axcodes2ornt("RAS"),
                nib.orientations.axcodes2ornt(grid.orientation),
            )
        )
        stored.set_sform(stored.affine, code="scanner")  # both forms: ITK prefers the qform
        stored.set_qform(stored.affine, code="scanner")
        # nibabel compresses at level 1 and without a time stamp: equal volumes, equal files.
        nib.save(stored, folder / f"{folder.name}-{suffix}.nii.gz")


def _factors(
    subject_id: str, number: int, time_point: int, phantom: Phantom, grid: Grid
) -> dict[str, object]:
    """One row of ``factors.csv``. Volumes in mm^3 as segmented; the centre in world mm."""
    tumour = (phantom.seg == ENHANCING) | (phantom.seg == NON_ENHANCING_CORE)
    centroid = nib.affines.apply_affine(grid.affine, np.argwhere(tumour).mean(axis=0))
    voxel_volume = float(np.prod(grid.spacing))
    return {
        "id": subject_id,
        "patient": f"BraTS-MEN-{number:05d}",
        "time_point": time_point,
        "head_size": round(phantom.head_size, 4),
        "tumour_volume_mm3": round(int(tumour.sum()) * voxel_volume, 1),
        "whole_volume_mm3": round(int((phantom.seg > 0).sum()) * voxel_volume, 1),
        "tumour_x_mm": round(float(centroid[0]), 1),
        "tumour_y_mm": round(float(centroid[1]), 1),
        "tumour_z_mm": round(float(centroid[2]), 1),
        "orientation": grid.orientation,
        "spacing_mm": "x".join(f"{step:g}" for step in grid.stored_spacing),
    }


# --------------------------------------------------------------------------- the grid


class Grid(NamedTuple):
    """Where the voxels of one subject lie, in RAS order, and how they will be stored."""

    axes: tuple[Floats, ...]  # three vectors, mm
    spacing: Floats  # (3,), mm
    affine: Floats  # (4, 4), voxel to world
    orientation: str  # axis codes on disk, such as LPS
    stored_spacing: Floats  # (3,), mm, in the order on disk


def _grid_of(number: int, voxel_size: float) -> Grid:
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
    return Grid(axes, spacing, affine, orientation, stored_spacing)


def _smooth_field(grid: Grid, scale: float, random: np.random.Generator) -> Floats:
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

    def seen_by(self, grid: Grid) -> AverageBrain:
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


def _load_average_brain() -> AverageBrain:
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


def _draw_head(grid: Grid, random: np.random.Generator) -> Head:
    size = random.uniform(0.92, 1.08)
    proportions = size * random.uniform(0.97, 1.03, size=3)
    tilt = Rotation.from_euler("xyz", random.uniform(-5.0, 5.0, size=3), degrees=True)
    shift = random.uniform(-4.0, 4.0, size=3)
    bend = np.stack([2.5 * _smooth_field(grid, 40.0, random).ravel() for _ in range(3)])
    return Head(size, np.diag(1 / proportions) @ tilt.inv().as_matrix(), shift, bend)


def _read(
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


def _draw_tumour(grid: Grid, time_point: int, random: np.random.Generator) -> Tumour:
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
        lobes=_smooth_field(grid, 18.0, random),
        fingers=_smooth_field(grid, 12.0, random),
    )


def _seat(points: Floats, tumour: Tumour, spacing: Floats) -> Floats:
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


def _lowest(score: Floats, among: Mask, count: int) -> Mask:
    """The ``count`` voxels of lowest score among the given ones; (N,)."""
    count = min(count, int(among.sum()))
    if count == 0:
        return np.zeros_like(among)
    threshold = np.partition(score[among], count - 1)[count - 1]
    return np.asarray(among & (score <= threshold))


def _before_the_push(points: Floats, seat: Floats, reach: Floats, radius: float) -> Floats:
    """Mass effect: where the tissue now at ``points`` lay before the tumour; (3, N) mm.

    Tissue at the tumour's edge came from 0.4 radii; the push fades with distance, never folding.
    """
    beyond = np.maximum(reach - radius, 0.0)
    pull = 0.6 * radius * np.exp(-beyond / (1.2 * radius)) / np.maximum(reach, radius)
    return np.asarray(points - pull * (points - seat))


# --------------------------------------------------------------------------- the scan


class Contrast(NamedTuple):
    """Signal of each tissue in one series, in the arbitrary units of a scanner."""

    fluid: float
    grey: float
    white: float
    core: float
    oedema: float
    enhancing: float
    detail: float  # gain on what the average T1 shows beyond the three tissues


CONTRASTS = {
    "t1c": Contrast(260, 620, 850, 600, 700, 1400, 1000),
    "t1n": Contrast(260, 600, 850, 470, 690, 610, 1000),
    "t2f": Contrast(130, 720, 580, 900, 1080, 860, -300),
    "t2w": Contrast(1350, 820, 560, 1150, 1080, 860, -900),
}


class Phantom(NamedTuple):
    """One subject at one time point, on its RAS grid."""

    series: dict[str, NDArray[np.int16]]  # by contrast, (X, Y, Z); 0 outside the brain, else > 0
    seg: NDArray[np.uint8]  # (X, Y, Z)
    head_size: float


def _draw_phantom(
    average: AverageBrain, grid: Grid, seed: int, number: int, time_point: int
) -> Phantom:
    """Draw patient ``number`` at ``time_point``; head and seat of the tumour stay the same."""
    streams = np.random.SeedSequence((seed, number)).spawn(4)
    of_head, of_tumour, *of_scans = (np.random.default_rng(stream) for stream in streams)
    head = _draw_head(grid, of_head)
    tumour = _draw_tumour(grid, time_point, of_tumour)

    # The skull holds: the brain's outline is read before the tumour pushes, its tissues after.
    points = np.stack(np.meshgrid(*grid.axes, indexing="ij")).reshape(3, -1)  # (3, XYZ)
    inside = _read(average.brain, average, points, head, head.bend) > 0.5
    brain = inside.reshape([len(axis) for axis in grid.axes])
    points = points[:, inside]  # (3, N)

    seat = _seat(points, tumour, grid.spacing)
    lobes, fingers = tumour.lobes[brain].clip(-2, 2), tumour.fingers[brain]
    reach = np.linalg.norm(points - seat, axis=0) * (1 + 0.13 * lobes)  # (N,), mm
    voxels = round(tumour.volume / float(np.prod(grid.spacing)))
    blob = _lowest(reach, np.ones_like(reach, dtype=bool), voxels)
    radius = float(reach[blob].max())

    sources = _before_the_push(points, seat, reach, radius)
    t1, grey, white = (
        _read(volume, average, sources, head, head.bend[:, inside])
        for volume in (average.t1, average.grey, average.white)
    )

    depth = np.linalg.norm(points - points[:, blob].mean(axis=1, keepdims=True), axis=0)
    core = _lowest(depth + 2.0 * fingers, blob, round(tumour.core_share * voxels))
    # Oedema follows white matter, within 25 mm of the tumour.
    swelling = ~blob & (white > 0.4) & (reach < radius + 25.0)
    oedema = _lowest(reach + 4.0 * fingers, swelling, round(tumour.oedema_share * voxels))
    seg = np.zeros(brain.shape, np.uint8)
    seg[brain] = np.select([core, blob, oedema], [NON_ENHANCING_CORE, ENHANCING, OEDEMA])

    # What each voxel shares with a label, (N,): the edges of a tumour are partial volumes too.
    lesions = [
        (label, ndimage.gaussian_filter((seg == label).astype(np.float32), 0.5)[brain])
        for label in (OEDEMA, ENHANCING, NON_ENHANCING_CORE)
    ]
    series = {}
    for name, contrast in CONTRASTS.items():
        signal = _signal(contrast, t1, grey, white, lesions)
        series[name] = np.zeros(brain.shape, np.int16)
        series[name][brain] = _scan(signal, brain, grid, of_scans[time_point])
    return Phantom(series, seg, head.size)


def _signal(
    contrast: Contrast, t1: Floats, grey: Floats, white: Floats, lesions: list[tuple[int, Floats]]
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
    signal: Floats, brain: Mask, grid: Grid, random: np.random.Generator
) -> NDArray[np.int16]:
    """Receiver gain, bias field and Rician noise, (N,); at least 1, for 0 means background."""
    gain = random.uniform(0.85, 1.1)
    bias = np.exp(0.06 * _smooth_field(grid, 70.0, random)[brain])
    noise = random.uniform(14.0, 24.0) * random.standard_normal((2, len(signal)))
    magnitude = np.hypot(gain * bias * signal + noise[0], noise[1])
    return np.asarray(np.rint(magnitude).clip(1, 32767), dtype=np.int16)
