"""Is a NIfTI file what it should be? Headers for nothing, voxels at the price of decoding them.

The limits are those of a head in an MRI scanner: outside of them a header is wrong, not unusual.
"""

from __future__ import annotations

import hashlib
import itertools
import math
import os
import struct
import zlib
from collections.abc import Collection, Hashable, Mapping, Sequence
from typing import Any, NamedTuple

import nibabel
import numpy as np
from isal import igzip_lib
from monai.transforms import Transform
from nibabel.openers import Opener

from vaelab.data.findings import Examination, Finding, errors, file_problem
from vaelab.data.volumes.voxels import decompressed, read_voxels, skip_to_end
from vaelab.errors import UserError

ISAL_ERROR: type[Exception] = igzip_lib.IsalError  # type: ignore[assignment]  # a slip of its stub

# What nibabel and isal raise for a file that is cut off, damaged or no NIfTI at all.
UNREADABLE: tuple[type[Exception], ...] = (
    OSError,
    EOFError,
    ValueError,
    OverflowError,
    MemoryError,
    zlib.error,
    ISAL_ERROR,
    nibabel.filebasedimages.ImageFileError,
    nibabel.spatialimages.HeaderDataError,
)

MAX_VOXELS = 2**30  # 4 GB as float32; a header that claims more is damaged
MAX_SPACING = 20.0  # mm
USUAL_SIDE = (50.0, 500.0)  # mm, of the field of view
POSSIBLE_SIDE = (5.0, 2000.0)  # mm; beyond, resampling would leave one voxel or fill the memory
FEW_VALUES = 10  # an MRI series has thousands

LEAVE_OUT = "replace the file or leave the subject out"
FETCH = "fetch the file again or leave the subject out"
HEADER = "mend the header or leave the subject out"


class Grid(NamedTuple):
    """Where the voxels of a file lie."""

    shape: tuple[int, ...]
    affine: np.ndarray
    """Voxel indices → mm, (4, 4)."""


def read_grid(path: str) -> Grid:
    """Shape and affine from a NIfTI header, without reading its voxels.

    Raises:
        UserError: for a header that cannot work, naming all that is wrong with it.
    """
    image, findings = examine_header(path)
    _refuse(findings)
    assert image is not None
    return grid_of(image)


def grid_of(image: Any) -> Grid:
    """The grid of a loaded file; a fourth axis of length 1 does not count."""
    return Grid(tuple(image.shape[:3]), np.asarray(image.affine))


def examine_header(path: str) -> tuple[Any, list[Finding]]:
    """A file opened by nibabel, or None, and what is wrong with its header."""
    missing = file_problem(path)
    if missing:
        return None, [missing]
    try:
        image: Any = nibabel.load(path)
        raw = _raw_header(path, image)
    except UNREADABLE as error:
        return None, [
            Finding("error", path, "not a readable NIfTI file", FETCH, _told(error, path))
        ]
    shape = image.shape
    if len(shape) < 3 or any(side != 1 for side in shape[3:]) or len(shape) > 4:
        what, cure = "a volume with 3 axes is needed", "split the series and keep one volume"
        return image, [Finding("error", path, what, cure, f"its shape is {shape}")]
    wrong = _type_findings(path, image)
    return image, wrong or [*_length_findings(path, image), *_affine_findings(path, image, raw)]


def examine_volume(
    path: str, is_seg: bool, labels: Collection[int] | None = None
) -> tuple[Examination, Grid | None]:
    """All that header and voxels say; the grid if there is one.

    Facts are ``shape``, ``spacing [mm]``, ``orientation`` and those of ``examine_voxels``.
    """
    image, findings = examine_header(path)
    if image is None or len(image.shape) < 3:
        return Examination(findings), None
    grid = grid_of(image)
    facts: dict[str, str | float] = {"shape": "×".join(str(side) for side in image.shape)}
    digest = {}
    if not errors(findings):
        sizes = nibabel.affines.voxel_sizes(grid.affine)
        facts["spacing [mm]"] = "×".join(f"{size:.3g}" for size in sizes)
        facts["orientation"] = "".join(str(code) for code in nibabel.aff2axcodes(grid.affine))
        try:
            voxels = read_voxels(image)
        except UNREADABLE as error:
            findings.append(_unreadable(path, error))
        else:
            more, values = examine_voxels(
                path, voxels, is_seg, abs(np.linalg.det(grid.affine)), labels
            )
            findings += more
            facts |= values
            # nibabel's arrays are in Fortran's order: transposed there is nothing to copy.
            digest[path] = hashlib.sha256(np.ascontiguousarray(voxels.T).data).hexdigest()
    return Examination(findings, facts, digest), grid if not errors(findings) else None


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
            _refuse([finding for one in whole for finding in one.findings])
            raise UserError(f"{data['id']}: cannot be loaded ({error})") from error
        voxels = {key: loaded[key].numpy() for key in self.keys}
        found = [
            examine_voxels(str(data[key]), voxels[key], key == "seg", labels=self.labels)
            for key in self.keys
        ]
        _refuse([finding for findings, _ in found for finding in findings])
        return loaded


def _refuse(findings: Sequence[Finding]) -> None:
    if errors(findings):
        raise UserError("; ".join(str(finding) for finding in errors(findings)))


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
    if low < 0 or high > 255 or not _are_whole(labels):
        return [Finding("error", path, what, LEAVE_OUT, detail)], {}
    flat = labels.ravel(order="K")
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
        cure = "look what they mean; they are kept"
        found.append(Finding("warning", path, what, cure, ", ".join(map(str, unknown))))
    if high == 0:
        what, cure = "an empty segmentation, no tumour", "look whether this is meant"
        found.append(Finding("warning", path, what, cure))
    elif low > 0:
        what, cure = "a segmentation without background", "look whether this is meant"
        found.append(Finding("warning", path, what, cure))
    return found, facts


def _stream_length(path: str) -> int:
    with decompressed(path) as stream:
        return skip_to_end(stream)


def _length_findings(path: str, image: Any) -> list[Finding]:
    """Whether the file is as long as its header says, without decompressing it.

    RFC 1952: the last four bytes are the length modulo 2^32, if there is one member. Where they
    differ the file is read to its end.
    """
    voxels = int(np.prod(image.shape, dtype=object)) * image.get_data_dtype().itemsize
    expected = int(image.dataobj.offset) + voxels
    with open(path, "rb") as file:
        file.seek(-4, os.SEEK_END)
        (length,) = struct.unpack("<I", file.read(4))
    if length == expected % 2**32:
        return []
    try:
        there = _stream_length(path)
    except UNREADABLE as error:
        return [_unreadable(path, error)]
    if there >= expected:
        return []
    return [_unreadable(path, EOFError(f"{there} bytes of {expected}"))]


def _type_findings(path: str, image: Any) -> list[Finding]:
    kind, count = image.get_data_dtype(), int(np.prod(image.shape, dtype=object))
    if kind.fields or kind.kind not in "iuf":
        shown = "RGB" if kind.fields else str(kind)
        what = "voxels are not real numbers"
        return [Finding("error", path, what, LEAVE_OUT, f"data type {shown}")]
    if count > MAX_VOXELS or count == 0:
        what = "a header with an impossible number of voxels"
        return [Finding("error", path, what, FETCH, f"shape {image.shape}")]
    return []


def _affine_findings(path: str, image: Any, raw: Any) -> list[Finding]:
    affine, header = np.asarray(image.affine), image.header
    if not np.isfinite(affine).all():
        return [Finding("error", path, "its affine is not finite", HEADER)]
    sizes = nibabel.affines.voxel_sizes(affine)
    zooms = np.asarray(raw["pixdim"][1:4], float)
    placed = header["sform_code"] > 0
    found: list[Finding] = []
    if not placed and (not np.isfinite(zooms).all() or (zooms == 0).any()):
        # nibabel reads 0 mm as 1 mm.
        detail = f"pixdim {tuple(zooms.tolist())}"
        return [Finding("error", path, "a voxel size of zero or NaN", HEADER, detail)]
    # Relative to the voxel, so that small voxels are not taken for none.
    if not abs(np.linalg.det(affine[:3, :3])) > 1e-6 * np.prod(sizes, initial=1.0) > 0:
        what = "its affine is singular, so its place is unknown"
        return [Finding("error", path, what, HEADER, f"voxel sizes {_mm(sizes)}")]
    sides = sizes * image.shape[:3]
    if sides.min() < POSSIBLE_SIDE[0] or sides.max() > POSSIBLE_SIDE[1]:
        what = "no scanner has such a field of view; are the units wrong?"
        found.append(Finding("error", path, what, HEADER, f"{_mm(sides)} of {_mm(sizes)} voxels"))
    elif sides.min() < USUAL_SIDE[0] or sides.max() > USUAL_SIDE[1]:
        what, cure = "an unusual field of view for a head", "look whether spacing and shape are so"
        found.append(Finding("warning", path, what, cure, f"{_mm(sides)}"))
    if sizes.max() > MAX_SPACING:
        what, cure = f"voxels of more than {MAX_SPACING:g} mm", "look whether spacing is so"
        found.append(Finding("warning", path, what, cure, _mm(sizes)))
    if not placed and not header["qform_code"] > 0:
        what = "neither sform nor qform says how it lies, so left and right are guessed"
        found.append(Finding("warning", path, what, "convert it again from DICOM"))
    elif placed and header["qform_code"] > 0:
        found += _form_findings(path, image)
    return found


def _form_findings(path: str, image: Any) -> list[Finding]:
    """A warning where the two affines of a header put a corner at different places."""
    what, cure = "sform and qform disagree; sform is used", "look which of them is right"
    try:
        one, other = image.header.get_sform(), image.header.get_qform()
    except UNREADABLE as error:
        return [Finding("warning", path, "its qform is invalid; sform is used", cure, str(error))]
    ends = itertools.product(*((0, side - 1) for side in image.shape[:3]))
    corners = np.array([(*end, 1) for end in ends], float)
    apart = float(np.linalg.norm(corners @ (one - other).T, axis=1).max())
    if apart <= 0.5 * nibabel.affines.voxel_sizes(one).min():
        return []
    return [Finding("warning", path, what, cure, f"by up to {apart:.1f} mm")]


def _raw_header(path: str, image: Any) -> Any:
    """The header as it is written, which nibabel mends when it loads a file."""
    with Opener(path) as file:
        return type(image.header).from_fileobj(file, check=False)


def _are_whole(voxels: np.ndarray) -> bool:
    return voxels.dtype.kind in "iu" or bool((voxels == np.rint(voxels)).all())


def _unreadable(path: str, error: Exception) -> Finding:
    return Finding("error", path, "its voxels are not readable", FETCH, _told(error, path))


def _told(error: Exception, path: str) -> str:
    """A library's words without the path, which stands in front already."""
    return (str(error) or type(error).__name__).replace(path, "it")


def _mm(sizes: np.ndarray) -> str:
    return "×".join(f"{size:.5g}" for size in sizes) + " mm"
