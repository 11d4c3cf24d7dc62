"""DICOM radiographs: recognised, and decoded as they are meant to be seen."""

from __future__ import annotations

import importlib.util
import logging
import struct
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vaelab.errors import UserError

SUFFIXES = {".dcm", ".dicom"}
INSTALL = "pip install -e '.[dicom]'"
JPEG_EXTENDED = "1.2.840.10008.1.2.4.51"  # with more than 8 bits, beyond Pillow and GDCM
MONOCHROME = ("MONOCHROME1", "MONOCHROME2")
CHEST = ("CHEST", "THORAX", "TORAX", "LUNG", "THX")
"""What a chest is called among body parts, also within longer names."""
RADIOGRAPHS = ("CR", "DX", "DR", "RG", "RF", "XA", "OT", "SC")
"""Modalities (PS3.3, C.7.3.1.1.1) of projections, and of what says nothing."""

# What pydicom raises for a file that is cut off, damaged, no image or in need of a decoder.
UNREADABLE = (
    OSError, EOFError, ValueError, KeyError, IndexError, TypeError, AttributeError, RuntimeError,
    struct.error, NotImplementedError,
)  # fmt: skip


def is_dicom(path: Path) -> bool:
    """Whether a file begins as DICOM does (PS3.10, section 7.1), or is called so.

    Files of before 1993, and of programs like theirs, begin with their first element.
    """
    if path.suffix.lower() in SUFFIXES:
        return True
    try:
        with path.open("rb") as file:
            head = file.read(132)
    except OSError:
        return False
    return head[128:] == b"DICM" or _is_element(head)


def _is_element(head: bytes) -> bool:
    """Whether bytes begin with a short element of group 2 or 8, little endian."""
    if len(head) < 132 or head[:2] not in (b"\x02\0", b"\x08\0"):
        return False
    explicit = head[4:6] in (b"UL", b"UI", b"CS", b"OB", b"DA", b"TM", b"SH", b"LO")
    _, element, length = struct.unpack("<HHI", head[:8])
    return explicit or (element <= 0x18 and 0 < length <= 64)


def is_installed() -> bool:
    """Whether there is a reader of DICOM files."""
    return importlib.util.find_spec("pydicom") is not None


def decode_dicom(path: Path) -> Image.Image:
    """A DICOM radiograph as it is meant to be seen: grey floats from 0, bone bright.

    Stored values go through the modality transformation and the window (PS3.3, C.11.1 and
    C.11.2), each if the file has one; MONOCHROME1, where small is bright, is turned around.
    What pads the image (C.7.5.1.1.2) is as dark as its darkest pixel.

    Raises:
        UserError: for a file that cannot be decoded or holds no single grey or colour image.
    """
    from pydicom.pixels import apply_modality_lut, apply_voi_lut, pixel_array

    with _faults_named(path):
        header = _header(path)
        _check_decoder(path, header)
        stored = pixel_array(header)
        kind = header.PhotometricInterpretation
        if kind in MONOCHROME and stored.ndim == 2:
            values = apply_voi_lut(apply_modality_lut(stored, header), header)
        elif stored.ndim == 3 and stored.shape[2] == 3:
            values = stored @ np.array([0.299, 0.587, 0.114])  # luma, as Pillow's convert("L")
        else:
            raise UserError(f"{path}: one radiograph is needed, this is {kind} {stored.shape}")
        shown = ~_padding(stored, header) if kind in MONOCHROME else np.ones(values.shape, bool)
    grey = values.astype(np.float64)
    if not shown.any():
        shown[:] = True
    low, high = grey[shown].min(), grey[shown].max()
    bright = high - grey if kind == "MONOCHROME1" else grey - low
    bright[~shown] = 0
    return Image.fromarray(bright.astype(np.float32))


def doubts_of_header(path: Path) -> list[str]:
    """What its header says that a radiograph of a person's chest would not.

    Raises:
        UserError: for a file without a readable header.
    """
    with _faults_named(path):
        header = _header(path)
        part = str(header.get("BodyPartExamined", "") or "").strip()
        species = str(header.get("PatientSpeciesDescription", "") or "").strip()
        modality = str(header.get("Modality", "") or "").strip()
    found = []
    if part and not any(name in part.upper() for name in CHEST):
        found.append(f"its body part is {part}, not a chest")
    if species and not any(name in species.upper() for name in ("HUMAN", "HOMO SAPIENS")):
        found.append(f"its patient is a {species}")
    if modality and modality.upper() not in RADIOGRAPHS:
        found.append(f"its modality is {modality}, no radiograph")
    return found


def _header(path: Path) -> Any:
    """All elements, with those filled in that an image cannot be decoded without."""
    import pydicom  # an extra: whoever has no DICOM needs none
    from pydicom.dataset import FileMetaDataset

    header = pydicom.dcmread(path, force=True)
    if "PixelData" not in header:
        raise UserError(f"{path}: not a readable DICOM image (it holds no pixels)")
    meta = getattr(header, "file_meta", None) or FileMetaDataset()
    if "TransferSyntaxUID" not in meta:
        implicit, little = header.original_encoding
        plain = pydicom.uid.ExplicitVRLittleEndian if little else pydicom.uid.ExplicitVRBigEndian
        meta.TransferSyntaxUID = pydicom.uid.ImplicitVRLittleEndian if implicit else plain
    header.file_meta = meta
    for key in ("RescaleSlope", "RescaleIntercept", "WindowCenter", "WindowWidth"):
        if key in header and header[key].is_empty:
            del header[key]
    width = header.get("WindowWidth")
    if width is not None and np.min(np.asarray(width, float)) < 1:  # no window (PS3.3, C.11.2.1.2)
        del header.WindowWidth
    if "WindowCenter" in header and "WindowWidth" not in header:
        del header.WindowCenter
    header.setdefault("SamplesPerPixel", 1)
    if not header.get("PhotometricInterpretation"):
        header.PhotometricInterpretation = "MONOCHROME2" if header.SamplesPerPixel == 1 else "RGB"
    return header


def _check_decoder(path: Path, header: Any) -> None:
    from pydicom.pixels import get_decoder

    syntax = header.file_meta.TransferSyntaxUID
    if not syntax.is_compressed:
        return
    try:
        available = get_decoder(syntax).is_available
    except NotImplementedError:
        raise UserError(
            f"{path}: not a readable DICOM image (compressed as {syntax.name}, which nothing here "
            "decodes); save it uncompressed"
        ) from None
    deep = syntax == JPEG_EXTENDED and header.get("BitsStored", 8) > 8
    if deep and importlib.util.find_spec("libjpeg") is None:
        raise UserError(
            f"{path}: its pixels are JPEG of {header.BitsStored} bits; save it uncompressed, or "
            "install a decoder under the GPL: pip install pylibjpeg pylibjpeg-libjpeg"
        )
    if not available:
        raise UserError(f"{path}: its pixels are {syntax.name}; to decode them {INSTALL}")


def _padding(stored: NDArray[Any], header: Any) -> NDArray[np.bool_]:
    """Where stored values are no image, (H, W).

    The value may be written as if it were signed where pixels are not, or the other way round.
    """
    value, limit = header.get("PixelPaddingValue"), header.get("PixelPaddingRangeLimit")
    if value is None:
        return np.zeros(stored.shape, bool)
    bounds = [_as_stored(bound, stored.dtype) for bound in (value, limit) if bound is not None]
    padding: NDArray[np.bool_] = (stored >= min(bounds)) & (stored <= max(bounds))
    return padding


def _as_stored(value: Any, kind: np.dtype[Any]) -> int:
    if isinstance(value, bytes):
        value = int.from_bytes(value, "little")
    number, limits = int(value), np.iinfo(kind)
    span = limits.max - limits.min + 1
    if number > limits.max:
        return number - span
    return number + span if number < limits.min else number


@contextmanager
def _faults_named(path: Path) -> Iterator[None]:
    """Turn what pydicom raises into one sentence, and keep what it logs and warns to itself."""
    logger = logging.getLogger("pydicom")
    level = logger.level
    logger.setLevel(logging.CRITICAL + 1)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except UserError:
        raise
    except UNREADABLE as error:
        words = " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"{path}: not a readable DICOM image ({words})") from error
    finally:
        logger.setLevel(level)
