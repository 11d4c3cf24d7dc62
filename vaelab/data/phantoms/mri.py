"""Brain MRI with a meningioma, drawn from a seed and written as a BraTS-MEN tree.

For everybody who wants to see the real loader run and has no data. The anatomy is real: the
ICBM 152 2009a average brain (Fonov et al. 2011), which nilearn carries inside its wheel. Each
patient gets a head of their own by a smooth random deformation; the tumour, the four contrasts,
the bias field and the noise are drawn. Nothing is downloaded.

``head`` and ``scan`` beside this file draw; the order of axes on disk is applied here, on writing.
"""

from __future__ import annotations

import csv
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import nibabel as nib
import numpy as np

from vaelab.atomic import write_folder_once
from vaelab.data.phantoms.head import (
    ENHANCING,
    NON_ENHANCING_CORE,
    AverageBrain,
    ScanGrid,
    grid_of,
    load_average_brain,
)
from vaelab.data.phantoms.scan import CONTRASTS, Phantom, draw_phantom
from vaelab.errors import UserError
from vaelab.progress import progress

GENERATOR_VERSION = 2  # part of the folder's name: raise it whenever the written bytes change


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
    isointense: Sequence[str] = ()  # series in which lesions look like grey matter

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
        if set(self.isointense) - set(CONTRASTS):
            cure = f"series are {', '.join(CONTRASTS)}; try [t2f]"
            raise _refusal("isointense", list(self.isointense), cure)

    def with_patients(self, count: int) -> PhantomMRI:
        """As many patients, seen once each, in files as small as can be."""
        return replace(self, num_patients=count, num_followups=0, voxel_size=6.0)

    def prepare(self, root_dir: str | os.PathLike[str], progress_bar: bool = False) -> Path:
        """Return the cohort's folder below ``root_dir``, writing it whole on first use."""
        name = (
            f"phantom_mri-v{GENERATOR_VERSION}-{self.num_patients}patients"
            f"-{self.num_followups}followups-{float(self.voxel_size)}mm-seed{self.seed}"
            + "".join(f"-isointense_{name}" for name in sorted(set(self.isointense)))
        )
        return write_folder_once(
            Path(root_dir) / name, lambda folder: _write_cohort(folder, self, progress_bar)
        )


def _refusal(key: str, value: object, cure: str) -> UserError:
    return UserError(f"dataset.phantoms.{key}={value}: {cure}")


def _write_cohort(folder: Path, cohort: PhantomMRI, progress_bar: bool) -> None:
    """Write every subject folder and, beside them, ``factors.csv``: the truth behind each."""
    subjects = [
        (number, time_point)
        for number in range(1, cohort.num_patients + 1)
        for time_point in range(2 if number <= cohort.num_followups else 1)
    ]
    average = load_average_brain()
    seen: dict[tuple[float, ...], AverageBrain] = {}  # by spacing; a cohort has up to four
    rows = []
    for number, time_point in progress(
        subjects, "writing MRI phantoms", shown=progress_bar, unit="subject"
    ):
        grid = grid_of(number, cohort.voxel_size)
        spacing = tuple(grid.spacing.tolist())
        if spacing not in seen:
            seen[spacing] = average.seen_by(grid)
        phantom = draw_phantom(
            seen[spacing], grid, cohort.seed, number, time_point, cohort.isointense
        )
        subject_id = f"BraTS-MEN-{number:05d}-{time_point:03d}"
        _write_subject(folder / subject_id, phantom, grid)
        rows.append(_factors(subject_id, number, time_point, phantom, grid))
    with (folder / "factors.csv").open("w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, fieldnames=list(rows[0]), lineterminator="\n")
        table.writeheader()
        table.writerows(rows)


def _write_subject(folder: Path, phantom: Phantom, grid: ScanGrid) -> None:
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
    subject_id: str, number: int, time_point: int, phantom: Phantom, grid: ScanGrid
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
