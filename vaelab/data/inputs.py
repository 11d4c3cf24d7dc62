"""New images to judge: find them, read them as training did, know where they came from.

Nothing here needs labels or a split. A file that cannot be read is a ``UserError`` of its own, so
that a caller can go on with the next.
"""

from __future__ import annotations

import csv
import importlib.util
import logging
import os
import struct
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from vaelab.data.index import ENCODING, walk_files
from vaelab.data.volumes.grids import sound_preprocessing
from vaelab.data.volumes.volume_checks import read_grid
from vaelab.data.xray.grey_image import LoadGreyImage
from vaelab.data.xray.image_checks import MAX_PIXELS, decode_grey
from vaelab.data.xray.index import SUFFIXES
from vaelab.errors import UserError

log = logging.getLogger(__name__)

DICOM_SUFFIXES = {".dcm", ".dicom"}
LISTS = (".txt", ".csv")
HINT = "task.inputs=<a file, a folder, a .txt or .csv list of them, or [several]>"
# What pydicom raises for a file that is cut off, damaged, no image or in need of a decoder.
UNREADABLE_DICOM = (
    OSError, EOFError, ValueError, KeyError, IndexError, TypeError, AttributeError, RuntimeError,
    struct.error,
)  # fmt: skip


@dataclass(frozen=True)
class Input:
    """One image or subject to judge."""

    path: Path
    """Where it is: a file, or the folder of a subject."""
    name: str
    """Its path below what all inputs have in common, with ``/``."""
    place: str
    """``name`` without an image's suffix, unless two inputs would then be one."""


Expand = Callable[[Path], Iterator[Path]]
"""The images or subjects in a folder and below it, in order."""


def find_inputs(
    inputs: str | Sequence[str], expand: Expand, expected: str, output_dir: Path
) -> list[Input]:
    """Everything that the user asked to judge, each once, in the order given.

    What does not exist stays among the inputs, to be reported when it is read.

    Args:
        inputs: a file or folder, a ``.txt`` or ``.csv`` list of such, or several of these.
        expand: finds inputs in a folder.
        expected: what ``expand`` looks for, in words.
        output_dir: where results go; what lies below it is no input.

    Raises:
        UserError: when there is no input, none exists, or results would lie among the inputs.
    """
    entries = list(_entries([inputs] if isinstance(inputs, str) else inputs))
    output = Path(os.path.abspath(output_dir))
    found: dict[Path, None] = {}
    roots: list[Path] = []
    for entry in entries:
        if not entry.is_dir():
            found[entry] = None
            roots.append(entry.parent)
            continue
        members = [path for path in expand(entry) if not path.is_relative_to(output)]
        if not members:
            log.warning("%s: nothing to judge; expected %s", entry, expected)
        found |= dict.fromkeys(members)
        roots.append(entry.parent if entry in members else entry)
    if not found:
        raise UserError(
            f"task.inputs={_shown(inputs)}: nothing to judge; expected {expected}, as {HINT}"
        )
    if not any(path.exists() for path in found):
        raise UserError(
            f"task.inputs={_shown(inputs)}: does not exist, looked for {next(iter(found))}"
        )
    for root in roots:
        if root.is_relative_to(output):
            raise UserError(
                f"task.output_dir={output_dir}: the inputs lie in it; choose another folder"
            )
    base = Path(os.path.commonpath(roots))
    return _placed({path: path.relative_to(base).as_posix() for path in found})


def _placed(names: Mapping[Path, str]) -> list[Input]:
    """Inputs with places that differ, on file systems that ignore case too."""
    shortened = {path: _without_suffix(name) for path, name in names.items()}
    count = Counter(short.casefold() for short in shortened.values())
    full = {name.casefold() for path, name in names.items() if shortened[path] != name}
    return [
        Input(
            path, name, name if count[short.casefold()] > 1 or short.casefold() in full else short
        )
        for (path, name), short in zip(names.items(), shortened.values(), strict=True)
    ]


def _without_suffix(name: str) -> str:
    stem, suffix = os.path.splitext(name)
    return stem if suffix.lower() in SUFFIXES | DICOM_SUFFIXES else name


def _entries(inputs: Sequence[str]) -> Iterator[Path]:
    """Absolute paths that were named, directly or in a list; those in a list are relative to it."""
    for name in inputs:
        path = Path(os.path.abspath(os.path.expanduser(name)))
        if path.suffix.lower() in LISTS and path.is_file():
            for line in _lines(path):
                yield Path(os.path.abspath(path.parent / os.path.expanduser(line)))
        else:
            yield path


def _lines(path: Path) -> list[str]:
    """Paths in a list: one a line, or the column ``file`` or ``path`` of a table."""
    encoding = ENCODING | {"encoding": "utf-8-sig"}  # Excel puts a mark in front
    if path.suffix.lower() == ".txt":
        return [line.strip() for line in path.read_text(**encoding).splitlines() if line.strip()]
    with path.open(newline="", **encoding) as file:
        table = csv.DictReader(file)
        columns = list(table.fieldnames or [])
        column = next((name for name in ("file", "path") if name in columns), None)
        if column is None:
            raise UserError(
                f"task.inputs={path}: a column 'file' or 'path' is needed, this has {columns}"
            )
        return [row[column] for row in table if row[column]]


def _shown(inputs: str | Sequence[str]) -> str:
    return inputs if isinstance(inputs, str) else f"[{','.join(inputs)}]"


# --------------------------------------------------------------------------- 2D images


class Radiograph(NamedTuple):
    """What the model sees of an image, and which part of the image that is."""

    image: Tensor
    """(1, H, W) in [0, 1], as in training."""
    box: tuple[float, float, float, float]
    """Left, top, right and bottom of what it shows, as shares of the image's width and height."""


def images_below(folder: Path) -> Iterator[Path]:
    """JPEG, PNG and DICOM files; the latter by content too, as they often have no suffix."""
    for current, names in walk_files(folder):
        for name in names:
            path = current / name
            suffix = path.suffix.lower()
            if suffix in SUFFIXES | DICOM_SUFFIXES or (name != "DICOMDIR" and is_dicom(path)):
                yield path


def is_dicom(path: Path) -> bool:
    """Whether a file begins as DICOM does (PS3.10, section 7.1), or is called so."""
    if path.suffix.lower() in DICOM_SUFFIXES:
        return True
    try:
        with path.open("rb") as file:
            return file.read(132)[128:] == b"DICM"
    except OSError:
        return False


def check_can_read(inputs: Sequence[Input]) -> None:
    """Raise ``UserError`` when DICOM files are among the inputs and pydicom is missing."""
    if importlib.util.find_spec("pydicom") is None and any(is_dicom(one.path) for one in inputs):
        raise UserError(
            "task.inputs: has DICOM files, which need pydicom; pip install 'vaelab[dicom]'"
        )


def find_radiographs(inputs: str | Sequence[str], output_dir: Path) -> list[Input]:
    """Image files that can be read here; see ``find_inputs``."""
    found = find_inputs(inputs, images_below, "JPEG, PNG or DICOM files", output_dir)
    check_can_read(found)
    return found


def find_subjects(
    inputs: str | Sequence[str], modalities: Sequence[str], output_dir: Path
) -> list[Input]:
    """Subject folders with all modalities in BraTS naming; see ``find_inputs``."""
    expected = "subject folders with " + ", ".join(f"*-{key}.nii.gz" for key in modalities)
    return find_inputs(inputs, partial(subjects_below, modalities=modalities), expected, output_dir)


def read_radiograph(path: Path, loader: LoadGreyImage) -> Radiograph:
    """An image as the run's ``loader`` would have read it for training.

    Raises:
        UserError: for a file that cannot be decoded.
    """
    grey = decode_dicom(path) if is_dicom(path) else loader.decode(path)
    pixels, (left, top, right, bottom) = loader.fit(grey)
    width, height = grey.size
    box = (left / width, top / height, right / width, bottom / height)
    return Radiograph(torch.from_numpy(pixels)[None], box)


def read_full_size(path: Path, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """An image as large as it is, (H, W) float32, scaled to [0, 1] by its minimum and maximum.

    Raises:
        UserError: for a file that cannot be decoded, or holds more than ``max_pixels``.
    """
    grey = decode_dicom(path) if is_dicom(path) else decode_grey(path, None, max_pixels)
    pixels = np.asarray(grey)
    low, high = pixels.min(), pixels.max()
    scaled: np.ndarray = (pixels - low) / max(high - low, np.float32(1e-6))
    return scaled


def decode_dicom(path: Path) -> Image.Image:
    """A DICOM radiograph as it is meant to be seen: grey floats from 0, bone bright.

    Stored values go through the modality transformation and the window (PS3.3, C.11.1 and
    C.11.2), each if the file has one; MONOCHROME1, where small is bright, is turned around.

    Raises:
        UserError: for a file that cannot be decoded or holds no single grey or colour image.
    """
    import pydicom  # an extra: whoever has no DICOM needs none
    from pydicom.errors import InvalidDicomError
    from pydicom.pixels import apply_modality_lut, apply_voi_lut, pixel_array

    try:
        header = pydicom.dcmread(path)
        kind = header.PhotometricInterpretation
        stored = pixel_array(header)
        if kind in ("MONOCHROME1", "MONOCHROME2") and stored.ndim == 2:
            grey = apply_voi_lut(apply_modality_lut(stored, header), header)
        elif stored.ndim == 3 and stored.shape[2] == 3:
            grey = stored @ np.array([0.299, 0.587, 0.114])  # luma, as Pillow's convert("L")
        else:
            raise UserError(f"{path}: one radiograph is needed, this is {kind} {stored.shape}")
    except UserError:
        raise
    except (InvalidDicomError, *UNREADABLE_DICOM) as error:
        raise UserError(f"{path}: not a readable DICOM image ({error})") from error
    grey = grey.astype(np.float64)
    bright_from = grey.max() - grey if kind == "MONOCHROME1" else grey - grey.min()
    return Image.fromarray(bright_from.astype(np.float32))


# --------------------------------------------------------------------------- 3D subjects


class Volume(NamedTuple):
    """A preprocessed subject, and where it lies."""

    image: Tensor
    """(C, D, H, W), as in training."""
    affine: np.ndarray
    """Voxel indices of ``image`` → mm of the scanner's space, (4, 4)."""
    original: Path
    """The file on whose grid the subject is its own: the first modality's, or align_to's."""


def subjects_below(folder: Path, modalities: Sequence[str]) -> Iterator[Path]:
    """Folders with at least one series in BraTS naming, complete or not."""
    endings = tuple(f"-{key}.nii.gz" for key in modalities)
    for current, names in walk_files(folder):
        if any(name.endswith(endings) for name in names):
            yield current


def read_subject(folder: Path, settings: Mapping[str, Any]) -> Volume:
    """One subject through the run's preprocessing, without a segmentation.

    Args:
        folder: holds one ``*-<modality>.nii.gz`` for each modality.
        settings: arguments of ``preprocessing``.

    Raises:
        UserError: for a series that is missing, ambiguous, unreadable or on a grid of its own.
    """
    if not folder.is_dir():
        what = "a file; its folder is needed" if folder.exists() else "does not exist"
        raise UserError(f"{folder}: {what}")
    item: dict[Any, Any] = {"id": folder.name}
    for key in settings["modalities"]:
        files = sorted(folder.glob(f"[!.]*-{key}.nii.gz"))
        if len(files) != 1:
            what = f"no *-{key}.nii.gz" if not files else f"more than one file for {key}"
            raise UserError(f"{folder}: {what}")
        item[key] = str(files[0])
        read_grid(item[key])
    original = Path(item[settings["align_to"] or settings["modalities"][0]])
    for step in sound_preprocessing(dict(settings) | {"with_seg": False}):
        item = step(item)
    image = item["image"]
    return Volume(image.as_tensor(), np.asarray(image.affine, dtype=np.float64), original)
