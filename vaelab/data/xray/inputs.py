"""Radiographs from elsewhere: found, read as training does, shown at full size with their heat."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torchvision.transforms.v2.functional import resize

from vaelab.atomic import replacing
from vaelab.data.contract import InputSample, Paint
from vaelab.data.index import walk_files
from vaelab.data.inputs import Input, find_inputs
from vaelab.data.xray import dicom
from vaelab.data.xray.grey_image import LoadGreyImage
from vaelab.data.xray.image_checks import MAX_PIXELS, decode_grey, refuse_constant
from vaelab.data.xray.index import SUFFIXES
from vaelab.data.xray.thorax import uncrop
from vaelab.errors import UserError

log = logging.getLogger(__name__)

FINE_ENOUGH = 1024  # pixels along the longer side at which a heat map is placed
ROWS_AT_ONCE = 256  # of an overlay, whose colours take 100 times the bytes of a grey image


def images_below(folder: Path) -> Iterator[Path]:
    """JPEG, PNG and DICOM files; the latter by content too, as they often have no suffix."""
    for current, names in walk_files(folder):
        for name in names:
            path = current / name
            suffix = path.suffix.lower()
            if suffix in SUFFIXES | dicom.SUFFIXES or (name != "DICOMDIR" and dicom.is_dicom(path)):
                yield path


def check_can_read(inputs: Sequence[Input]) -> None:
    """Raise ``UserError`` when DICOM files are among the inputs and pydicom is missing."""
    if not dicom.is_installed() and any(dicom.is_dicom(one.path) for one in inputs):
        raise UserError(f"task.inputs: has DICOM files, which need pydicom; {dicom.INSTALL}")


def find_radiographs(inputs: str | Sequence[str], output_dir: Path) -> list[Input]:
    """Image files that can be read here; see ``find_inputs``."""
    suffixes = SUFFIXES | dicom.SUFFIXES
    found = find_inputs(inputs, images_below, "JPEG, PNG or DICOM files", output_dir, suffixes)
    check_can_read(found)
    return found


def read_radiograph(path: Path, loader: LoadGreyImage) -> InputSample:
    """An image as the run's ``loader`` would have read it for training.

    What is no chest by its DICOM header is read all the same, with a warning.

    Raises:
        UserError: for a file that cannot be decoded.
    """
    is_dicom = dicom.is_dicom(path)
    for doubt in dicom.doubts_of_header(path) if is_dicom else ():
        log.warning("%s: %s; judged all the same", path, doubt)
    grey = dicom.decode_dicom(path) if is_dicom else loader.decode(path)
    refuse_constant(path, grey)
    pixels, placement = loader.fit(grey)
    return InputSample(torch.from_numpy(pixels)[None], path, placement=placement)


def read_full_size(path: Path, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """An image as large as it is, (H, W) float32, scaled to [0, 1] by its minimum and maximum.

    Raises:
        UserError: for a file that cannot be decoded, or holds more than ``max_pixels``.
    """
    grey = dicom.decode_dicom(path) if dicom.is_dicom(path) else decode_grey(path, None, max_pixels)
    pixels = np.asarray(grey)
    low, high = pixels.min(), pixels.max()
    scaled: np.ndarray = (pixels - low) / max(high - low, np.float32(1e-6))
    return scaled


def save_overlay(
    heatmap: np.ndarray, sample: InputSample, path: Path, max_pixels: int, paint: Paint
) -> None:
    """Write the heat over the original at its full size, as PNG.

    Args:
        heatmap: (h, w), of what ``sample.placement`` shows.
        sample: of which ``original`` is shown.
        path: ends in ``.png``.
        max_pixels: limit beyond which a file is refused.
        paint: lays heat over a grey image.
    """
    assert sample.placement is not None
    original = read_full_size(sample.original, max_pixels)
    heat = at_full_size(heatmap, sample.placement, original.shape)
    picture = Image.new("RGB", original.shape[::-1])
    for top in range(0, len(original), ROWS_AT_ONCE):
        rows = slice(top, top + ROWS_AT_ONCE)
        picture.paste(Image.fromarray(paint(original[rows], heat[rows])), (0, top))
    with replacing(path) as unfinished:
        # Level 6 takes four times as long to save a tenth.
        picture.save(unfinished, format="PNG", compress_level=1)


def at_full_size(heatmap: np.ndarray, placement: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """A heat map over the part of an image that it is about, 0 elsewhere.

    Args:
        heatmap: (h, w).
        placement: (2, 3), of that part; see ``vaelab.data.xray.thorax.Thorax``.
        shape: (H, W) of the image.

    Returns:
        float32 (H, W).
    """
    shrunk = max(1.0, max(shape) / FINE_ENOUGH)
    small = uncrop(heatmap, placement, [round(side / shrunk) for side in shape])
    return np.asarray(resize(Image.fromarray(small), list(shape)))
