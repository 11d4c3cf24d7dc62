"""Is the header of a NIfTI file what it should be? For next to nothing, no voxel is read.

The limits are those of a head in an MRI scanner: outside of them a header is wrong, not unusual.
"""

from __future__ import annotations

import itertools
import os
import struct
import zlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import nibabel
import numpy as np
from isal import igzip_lib
from nibabel.openers import Opener

from vaelab.data.findings import Finding, errors, file_problem
from vaelab.data.volumes.voxels import decompressed, skip_to_end
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
    refuse(findings)
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
            Finding("error", path, "not a readable NIfTI file", FETCH, _content(path, error))
        ]
    shape = image.shape
    if len(shape) < 3 or any(side != 1 for side in shape[3:]) or len(shape) > 4:
        what, cure = "a volume with 3 axes is needed", "split the series and keep one volume"
        return image, [Finding("error", path, what, cure, f"its shape is {shape}")]
    wrong = _type_findings(path, image)
    return image, wrong or [*_length_findings(path, image), *_affine_findings(path, image, raw)]


def _content(path: str, error: Exception) -> str:
    """What a file is instead, by how it begins; else what the library says."""
    with open(path, "rb") as file:
        head = file.read(352)
    packed = path.lower().endswith(".gz")
    if head[:2] == b"\x1f\x8b" and not packed:
        return "it is compressed: call it .nii.gz"
    if packed and (head[344:347] in (b"n+1", b"ni1") or head[4:7] == b"n+2"):
        return "it is not compressed: call it .nii"
    if head.lstrip()[:14].lower().startswith((b"<!doctype html", b"<html")):
        return "it is a web page, as a download without permission leaves it"
    if head.startswith((b"version https://git-lfs", b"/annex/objects", b"../.git/annex")):
        return "it is a pointer to the file: git lfs pull, or git annex get"
    return _told(error, path)


def refuse(findings: Sequence[Finding]) -> None:
    """Raise ``UserError`` with all errors among the findings."""
    if errors(findings):
        raise UserError("; ".join(str(finding) for finding in errors(findings)))


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
    if not path.lower().endswith(".gz"):
        there = os.path.getsize(path)
        if there >= expected:
            return []
        return [unreadable(path, EOFError(f"{there} bytes of {expected}"))]
    with open(path, "rb") as file:
        file.seek(-4, os.SEEK_END)
        (length,) = struct.unpack("<I", file.read(4))
    if length == expected % 2**32:
        return []
    try:
        there = _stream_length(path)
    except UNREADABLE as error:
        return [unreadable(path, error)]
    if there >= expected:
        return []
    return [unreadable(path, EOFError(f"{there} bytes of {expected}"))]


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


def unreadable(path: str, error: Exception) -> Finding:
    """For voxels that cannot be decoded."""
    return Finding("error", path, "its voxels are not readable", FETCH, _told(error, path))


def _told(error: Exception, path: str) -> str:
    """A library's words without the path, which stands in front already."""
    return (str(error) or type(error).__name__).replace(path, "it")


def _mm(sizes: np.ndarray) -> str:
    return "×".join(f"{size:.5g}" for size in sizes) + " mm"
