"""All that a preprocessed volume depends on besides its files."""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

import nibabel
import numpy as np
from numpy.typing import NDArray

from vaelab.data.volumes.intensity import Standardised
from vaelab.errors import UserError

CROP_CENTRE, CROP_BRAIN = "centre", "brain"


@dataclass(frozen=True)
class VolumeSettings:
    """How the series of a record become one sample.

    A subclass with other intensities overrides ``intensity``, and has a field for everything that
    it depends on: fields are the name of a sample in the cache.

    Raises:
        UserError: for a value that cannot work.
    """

    modalities: tuple[str, ...]
    """Keys of the series, in the order of the channels of ``image``."""
    roi_size: tuple[int, ...] = (128, 128, 128)
    """(D, H, W) of a sample in voxels, by centred padding or cropping."""
    spacing: tuple[float, ...] = (1.0, 1.0, 1.0)
    """Size of a voxel in mm, for each axis."""
    orientation: str = "RAS"
    """Axis codes."""
    align_to: str | None = None
    """Modality onto whose grid the others are resampled; None demands one grid."""
    with_seg: bool = True
    """Whether records have a ``seg``."""
    nonzero: bool = False
    """Standardise voxels that are not 0 among themselves and leave the others at 0.

    The squared error of a stripped volume is largely the outline of the brain; this gives the
    weight to what is in it: ``exp1_stable`` without it told tumour volume with an R² of 0.00
    instead of 0.50 (seed 0), with a squared error in the brain of 0.75 instead of 0.45 of its
    variance.
    """
    crop: str = CROP_CENTRE
    """About the "centre" of the volume, or that of the "brain": the box of what is not 0 in the
    first series. Planes of background that this puts out of the way are not standardised over."""

    label_map: tuple[tuple[int, int], ...] = ()
    """(label in a file, label in ``seg``)."""

    labels: ClassVar[Collection[int] | None] = None
    """That a ``seg`` may have, for what examines it; None: any."""

    def __post_init__(self) -> None:
        for key in ("modalities", "roi_size", "spacing"):  # lists, from a config
            object.__setattr__(self, key, tuple(getattr(self, key)))
        modalities, roi_size, spacing = list(self.modalities), list(self.roi_size), self.spacing
        if not modalities or len(set(modalities)) < len(modalities):
            raise UserError(
                f"dataset.modalities={modalities}: different names are needed; "
                "try [t1c,t1n,t2f,t2w]"
            )
        if len(roi_size) != 3 or not all(side > 0 for side in roi_size):
            raise UserError(
                f"dataset.roi_size={roi_size}: three sides in voxels are needed; try [128,128,128]"
            )
        if len(spacing) != 3 or not all(0 < size < math.inf for size in spacing):
            raise UserError(
                f"dataset.spacing={list(spacing)}: three sizes in mm above 0 are needed; "
                "try [1,1,1]"
            )
        axes = sorted({"L": "R", "P": "A", "I": "S"}.get(code, code) for code in self.orientation)
        if axes != ["A", "R", "S"]:
            raise UserError(
                f"dataset.orientation={self.orientation}: three axis codes, one each of L/R, P/A "
                "and I/S, are needed; try RAS"
            )
        if self.crop not in (CROP_CENTRE, CROP_BRAIN):
            raise UserError(f"dataset.crop={self.crop}: must be {CROP_CENTRE} or {CROP_BRAIN}")
        if self.align_to is not None and self.align_to not in modalities:
            raise UserError(
                f"dataset.align_to={self.align_to}: must be one of dataset.modalities={modalities}"
            )

    @property
    def known_labels(self) -> Collection[int] | None:
        """That a file of labels may have; None: any."""
        return None if self.labels is None else {*self.labels, *dict(self.label_map)}

    @property
    def keys(self) -> list[str]:
        """Keys of a record's files: the modalities and, if there is one, the segmentation."""
        return [*self.modalities, *(["seg"] if self.with_seg else [])]

    def intensity(self) -> list[Any]:
        """MONAI dict transforms of the modalities, each of (1, D, H, W) and on one grid.

        Here: mean 0 and standard deviation 1 of each. What is padded afterwards is 0.
        """
        return [Standardised(self.modalities, self.roi_size, self.nonzero)]

    def as_dict(self) -> dict[str, Any]:
        """As JSON can hold it; names a subclass whose intensities are others."""
        other = type(self).intensity is not VolumeSettings.intensity
        values = asdict(self) | ({"class": type(self).__qualname__} if other else {})
        # Samples in caches of before there was a choice stay in use.
        if self.crop == CROP_CENTRE:
            del values["crop"]
        if not self.label_map:
            del values["label_map"]
        return values

    def affine(self, shape: tuple[int, ...]) -> NDArray[np.float64]:
        """Voxel indices of a sample → mm, its centre at 0: (4, 4)."""
        axes = nibabel.orientations.axcodes2ornt(tuple(self.orientation))
        affine = np.zeros((4, 4))
        affine[3, 3] = 1
        for axis, ((world, direction), size) in enumerate(zip(axes, self.spacing, strict=True)):
            affine[int(world), axis] = direction * size
        affine[:3, 3] = -affine[:3, :3] @ ((np.array(shape) - 1) / 2)
        return affine
