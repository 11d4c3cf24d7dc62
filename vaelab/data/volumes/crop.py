"""What of a volume the network's cube holds, and where the cube is put."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import nibabel
import numpy as np
from monai.transforms import MapTransform, SpatialCrop
from numpy.typing import NDArray

from vaelab.data.volumes.settings import CROP_BRAIN, VolumeSettings

Mask = NDArray[np.bool_]


def box_of(mask: Mask) -> list[tuple[int, int]]:
    """First and last index of what holds, along each axis; the whole array where nothing does."""
    ends = []
    for axis in range(mask.ndim):
        others = tuple(other for other in range(mask.ndim) if other != axis)
        places = np.flatnonzero(mask.any(others))
        ends.append((int(places[0]), int(places[-1])) if len(places) else (0, mask.shape[axis] - 1))
    return ends


class CentredOnBrain(MapTransform):
    """Crop volumes so that the box of what is not 0 has its centre in the middle.

    Only planes that are 0 in the first volume go, on one side of each axis; a crop about the centre
    then is one about the brain. Series that are not stripped of the skull are centred on the head.

    Args:
        keys: of volumes (1, D, H, W) on one grid; the box is that of the first.
    """

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Crop them all alike."""
        result = dict(data)
        mask = np.asarray(result[self.keys[0]][0] != 0)
        slices = []
        for (first, last), side in zip(box_of(mask), mask.shape, strict=True):
            reach = min(first + last, 2 * (side - 1) - first - last)  # twice the distance to an end
            start = (first + last - reach) // 2
            slices.append(slice(start, start + reach + 1))
        crop = SpatialCrop(roi_slices=slices)
        for key in self.key_iterator(result):
            result[key] = crop(result[key])
        return result


def cut_off(
    mask: Mask, brain_box: Sequence[tuple[int, int]], affine: np.ndarray, settings: VolumeSettings
) -> float:
    """Share of the voxels of ``mask`` whose centre lies outside of the network's cube, in [0, 1].

    Args:
        mask: on the grid of a file, (D, H, W).
        brain_box: of the brain on the same grid, see ``box_of``.
        affine: voxel indices of the file → mm, (4, 4).
        settings: of size and spacing, orientation and place of the cube.
    """
    sides = np.multiply(settings.roi_size, settings.spacing)  # mm, along the axes of the sample
    of_sample = nibabel.orientations.axcodes2ornt(tuple(settings.orientation))[:, 0].tolist()
    of_file = nibabel.orientations.io_orientation(affine)[:, 0].tolist()  # axis of the world
    kept = mask
    for axis, size in enumerate(nibabel.affines.voxel_sizes(affine)):
        middle = (mask.shape[axis] - 1) / 2
        if settings.crop == CROP_BRAIN:
            middle = sum(brain_box[axis]) / 2
        reach = sides[of_sample.index(of_file[axis])] / 2 / size
        first = max(int(np.ceil(middle - reach)), 0)
        last = min(int(np.floor(middle + reach)), mask.shape[axis] - 1)
        kept = kept[(slice(None),) * axis + (slice(first, last + 1),)]
    total = np.count_nonzero(mask)
    return 1 - np.count_nonzero(kept) / total if total else 0.0
