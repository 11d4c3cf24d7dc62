"""Are the voxels of a NIfTI file what they should be? At the price of decoding them."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Collection, Hashable, Mapping, Sequence
from typing import Any

import nibabel
import numpy as np
from monai.transforms import Transform

from vaelab.data.findings import Examination, Finding, errors
from vaelab.data.volumes.headers import (
    LEAVE_OUT,
    UNREADABLE,
    Grid,
    examine_header,
    grid_of,
    refuse,
    unreadable,
)
from vaelab.data.volumes.voxels import read_voxels
from vaelab.errors import UserError

FEW_VALUES = 10  # an MRI series has thousands
SLACK = 1e-3  # by which labels miss whole numbers after scaling and interpolation


def examine_volume(
    path: str, is_seg: bool, labels: Collection[int] | None = None
) -> tuple[Examination, Grid | None, np.ndarray | None]:
    """All that header and voxels say; the grid if there is one, and where voxels are not 0.

    Facts are ``shape``, ``spacing [mm]``, ``orientation`` and those of ``examine_voxels``.
    """
    image, findings = examine_header(path)
    if image is None or len(image.shape) < 3:
        return Examination(findings), None, None
    grid = grid_of(image)
    facts: dict[str, str | float] = {"shape": "×".join(str(side) for side in image.shape)}
    digest = {}
    mask = None
    if not errors(findings):
        sizes = nibabel.affines.voxel_sizes(grid.affine)
        facts["spacing [mm]"] = "×".join(f"{size:.3g}" for size in sizes)
        facts["orientation"] = "".join(str(code) for code in nibabel.aff2axcodes(grid.affine))
        try:
            voxels = read_voxels(image)
        except UNREADABLE as error:
            findings.append(unreadable(path, error))
        else:
            more, values = examine_voxels(
                path, voxels, is_seg, abs(np.linalg.det(grid.affine)), labels
            )
            findings += more
            facts |= values
            mask = voxels.reshape(image.shape[:3]) != 0
            # nibabel's arrays are in Fortran's order: transposed there is nothing to copy.
            digest[path] = hashlib.sha256(np.ascontiguousarray(voxels.T).data).hexdigest()
    if errors(findings):
        return Examination(findings, facts, digest), None, None
    return Examination(findings, facts, digest), grid, mask


def examine_voxels(
    path: str,
    voxels: np.ndarray,
    is_seg: bool,
    voxel_volume: float = 1.0,
    labels: Collection[int] | None = None,
) -> tuple[list[Finding], dict[str, float]]:
    """What is wrong with decoded values, and facts about them.

    Args:
        path: for the messages.
        voxels: any real dtype.
        is_seg: whether they should be labels.
        voxel_volume: mm³.
        labels: that a segmentation may have; None: any.

    Returns:
        Findings, and ``minimum``, ``maximum`` of a series or ``label <n> [mL]`` of labels.
    """
    low, high = float(voxels.min()), float(voxels.max())  # NaN if there is a single one
    if not (math.isfinite(low) and math.isfinite(high)):
        detail = f"{voxels.size - np.count_nonzero(np.isfinite(voxels))} of {voxels.size}"
        what = "holds voxels that are NaN or infinite"
        return [Finding("error", path, what, LEAVE_OUT, detail)], {}
    if is_seg:
        return _examine_labels(path, voxels, (low, high), voxel_volume, labels)
    facts = {"minimum": low, "maximum": high}
    if low == high:
        what = "a constant volume shows nothing"
        return [Finding("error", path, what, LEAVE_OUT, f"all voxels are {low:g}")], facts
    if max(-low, high) > float(np.finfo(np.float32).max):
        what = "holds voxels that are infinite as float32"
        return [Finding("error", path, what, LEAVE_OUT, f"up to {max(-low, high):.3g}")], facts
    if low >= 0 and high <= FEW_VALUES and _are_whole(voxels):
        what = "looks like a segmentation in the place of a series"
        detail = f"whole numbers from {low:g} to {high:g}"
        return [Finding("warning", path, what, "look whether files are swapped", detail)], facts
    return [], facts


class LoadSoundVolumesd(Transform):
    """MONAI's loader with a sentence for each file that is damaged or holds no usable values.

    Args:
        load: the ``LoadImaged`` that loads one key after another, with a reader that tells damage.
        keys: what it loads; ``seg`` holds labels.
        labels: that it may have; None: any.
    """

    def __init__(
        self, load: Transform, keys: Sequence[str], labels: Collection[int] | None = None
    ) -> None:
        self.load = load
        self.keys = list(keys)
        self.labels = labels

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Load all keys.

        Raises:
            UserError: listing what is wrong with each file of the record.
        """
        try:
            loaded: dict[Hashable, Any] = self.load(dict(data))
        except Exception as error:
            # MONAI wraps and reformats what its readers raise: ask each file instead.
            whole = [examine_volume(str(data[key]), key == "seg")[0] for key in self.keys]
            refuse([finding for one in whole for finding in one.findings])
            raise UserError(f"{data['id']}: cannot be loaded ({error})") from error
        voxels = {key: loaded[key].numpy() for key in self.keys}
        found = [
            examine_voxels(str(data[key]), voxels[key], key == "seg", labels=self.labels)
            for key in self.keys
        ]
        refuse([finding for findings, _ in found for finding in findings])
        if "seg" in self.keys and loaded["seg"].is_floating_point():
            loaded["seg"] = loaded["seg"].round()
        return loaded


def _examine_labels(
    path: str,
    labels: np.ndarray,
    limits: tuple[float, float],
    voxel_volume: float,
    known: Collection[int] | None,
) -> tuple[list[Finding], dict[str, float]]:
    low, high = limits
    what = "a segmentation needs whole numbers from 0 to 255; is a series in its place?"
    detail = f"values from {low:g} to {high:g}"
    if low < -SLACK or high > 255 + SLACK or not _are_whole(labels, SLACK):
        return [Finding("error", path, what, LEAVE_OUT, detail)], {}
    flat = np.rint(labels.ravel(order="K"))
    marked = flat[flat != 0].astype(np.uint8)  # few: the rest need not be counted one by one
    counts = np.bincount(marked, minlength=1)
    counts[0] = flat.size - marked.size
    present = [label for label, count in enumerate(counts) if count]
    facts = {
        f"label {label} [mL]": float(counts[label]) * voxel_volume / 1000
        for label in present
        if label
    }
    unknown = [label for label in present if known is not None and label not in known]
    if len(unknown) > FEW_VALUES:
        return [Finding("error", path, what, LEAVE_OUT, f"{len(present)} different")], {}
    found: list[Finding] = []
    if unknown:
        what = f"labels beside the known {', '.join(map(str, sorted(known or ())))}"
        cure = "look what they mean, they are kept; in BraTS before 2023, 4 is what is 3 now: "
        cure += "dataset.label_map={4:3}"
        found.append(Finding("warning", path, what, cure, ", ".join(map(str, unknown))))
    if not marked.size:
        what, cure = "an empty segmentation, no tumour", "look whether this is meant"
        found.append(Finding("warning", path, what, cure))
    elif not counts[0]:
        what, cure = "a segmentation without background", "look whether this is meant"
        found.append(Finding("warning", path, what, cure))
    return found, facts


def _are_whole(voxels: np.ndarray, slack: float = 0.0) -> bool:
    if voxels.dtype.kind in "iu":
        return True
    return bool((np.abs(voxels - np.rint(voxels)) <= slack).all())
