"""Anomaly maps of volumes on the grid of the file that they are about.

The map is resampled once, from where the affine says that each voxel of the network's grid lies.
Running MONAI's transforms backwards gave the same map to 1e-5 mm, with more that has to be kept.
"""

from __future__ import annotations

import gzip
from pathlib import Path

import nibabel
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from vaelab.atomic import replacing

# Rounding in the two affines must not put a voxel on the face of the grid outside of it.
SLACK = 1e-3


def to_native(
    heatmap: np.ndarray, affine: np.ndarray, shape: tuple[int, ...], native_affine: np.ndarray
) -> NDArray[np.float32]:
    """Resample a map, linearly, onto another grid in the same space.

    Args:
        heatmap: (D, H, W).
        affine: voxel indices of ``heatmap`` → mm, (4, 4).
        shape: of the result.
        native_affine: voxel indices of the result → mm, (4, 4).

    Returns:
        float32 of ``shape``; voxels whose centre lies in no voxel of ``heatmap`` are 0.
    """
    index = np.linalg.inv(affine) @ native_affine  # voxel of the result → place in heatmap
    native: NDArray[np.float32] = ndimage.affine_transform(
        heatmap.astype(np.float32),
        index[:3, :3],
        index[:3, 3],
        output_shape=shape,
        order=1,
        mode="nearest",  # half a voxel beyond the outer centres belongs to the outer voxels
    )
    i, j, k = np.ogrid[: shape[0], : shape[1], : shape[2]]
    for row, side in zip(index[:3], heatmap.shape, strict=True):
        place = row[0] * i + row[1] * j + row[2] * k + row[3]
        native[(place < -0.5 - SLACK) | (place > side - 0.5 + SLACK)] = 0
    return native


def save_native(heatmap: np.ndarray, affine: np.ndarray, original: Path, path: Path) -> None:
    """Write a map as NIfTI that lies on ``original`` in any viewer: its shape, qform and sform.

    Args:
        heatmap: (D, H, W).
        affine: voxel indices of ``heatmap`` → mm, (4, 4).
        original: the NIfTI file whose grid to take.
        path: ends in ``.nii.gz``.
    """
    reference = nibabel.load(original)
    assert isinstance(reference, nibabel.Nifti1Image)
    native = to_native(heatmap, affine, reference.shape, reference.affine)
    header = reference.header.copy()
    header.extensions.clear()  # they tell of the scan
    header.set_data_dtype(np.float32)
    header.set_intent("none")
    header["descrip"] = b"anomaly map of vaelab"
    header["cal_min"], header["cal_max"] = 0, 0  # the scan's window would hide the map
    image = type(reference)(native, reference.affine, header)
    with (
        replacing(path) as partial,
        partial.open("wb") as file,
        # No name and no time inside: equal maps, equal files.
        gzip.GzipFile("", "wb", compresslevel=1, fileobj=file, mtime=0) as packed,
    ):
        image.to_stream(packed)
