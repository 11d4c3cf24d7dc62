"""Is an image file what it should be? Open it within limits, and tell what is odd about it."""

from __future__ import annotations

import hashlib
import os
import struct
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps
from PIL.ExifTags import Base as Exif

from vaelab.data.findings import Examination, Finding, errors, file_problem
from vaelab.errors import UserError

FORMATS = ("JPEG", "PNG")  # known by content, whatever the name
MAX_PIXELS = 80_000_000  # two spines at full length; decoded 80 MB, 320 MB as floats
HARD_LIMIT = 178_956_970  # where Pillow itself refuses
SMALL_SIDE = 32  # pixels; nothing of a lung is left
LONG_RATIO = 4.0
COLOUR = 12.0  # grey levels between channels, on average; a tinted scan stays below

# What Pillow raises for a file that is cut off, damaged or none of FORMATS.
UNREADABLE_IMAGE = (
    OSError, EOFError, SyntaxError, ValueError, OverflowError, MemoryError, struct.error,
)  # fmt: skip
TOO_LARGE = (Image.DecompressionBombError, Image.DecompressionBombWarning)
# The limit here is stricter and has a name.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)

REPLACE = "replace or remove it"
LOOK = "look whether it is an X-ray"


@contextmanager
def opened(path: str | Path, max_pixels: int = MAX_PIXELS) -> Iterator[Image.Image]:
    """An image file within limits; what goes wrong in the block is the file's fault too.

    Raises:
        UserError: for a file that cannot be decoded, or holds more pixels than ``max_pixels``.
    """
    problem = file_problem(path)
    if problem:
        raise UserError(_unreadable(path, problem.what))
    try:
        with Image.open(path, formats=FORMATS) as image:
            if image.width * image.height > max_pixels:
                raise UserError(str(_too_large(path, image.size, max_pixels)))
            yield image
    except UserError:
        raise
    except TOO_LARGE as error:
        raise UserError(str(_too_large(path, None, max_pixels))) from error
    except UNREADABLE_IMAGE as error:
        raise UserError(_unreadable(path, _told(error, path))) from error


def decode_grey(
    path: str | Path, at_least: tuple[int, int] | None = None, max_pixels: int = MAX_PIXELS
) -> Image.Image:
    """An image file as grey floats in its own unit, upright; a JPEG may shrink.

    Args:
        path: a JPEG or PNG, by content. Palettes, CMYK and colour become grey, alpha is ignored
            and the orientation that EXIF asks for is applied.
        at_least: (W, H) that a JPEG may be shrunk to while it is decoded.
        max_pixels: limit that keeps a small file from filling the memory.

    Raises:
        UserError: for a file that cannot be decoded, or holds more pixels.
    """
    with opened(path, max_pixels) as image:
        if at_least:
            image.draft("L", at_least[::-1] if _is_turned(image) else at_least)
        return upright_grey(image).convert("F")


def upright_grey(image: Image.Image) -> Image.Image:
    """Grey in the depth of the file: mode "L", or one of 16 or 32 bits."""
    if _orientation(image) > 1:
        ImageOps.exif_transpose(image, in_place=True)
    if image.mode.startswith(("I", "F")):  # 16-bit PNG: "L" would clip it
        return image
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")  # Pillow would warn of what it drops
    return image.convert("L")


def refuse_constant(path: str | Path, grey: Image.Image) -> None:
    """Raise ``UserError`` for an image of one grey level."""
    low, high = grey.getextrema()
    if low == high:
        raise UserError(str(_constant(path, float(low))))  # type: ignore[arg-type]


def examine_image(path: str, max_pixels: int = MAX_PIXELS) -> Examination:
    """All that an image file says.

    Facts are ``format``, ``mode`` (Pillow's name), ``width`` and ``height`` as it is seen, and its
    grey levels: ``darkest``, ``mean grey`` and ``brightest``.
    """
    missing = file_problem(path)
    if missing:
        return Examination([missing])
    try:
        with Image.open(path, formats=FORMATS) as image:
            if image.width * image.height > max_pixels:
                return Examination([_too_large(path, image.size, max_pixels)])
            facts: dict[str, str | float] = {"format": str(image.format), "mode": image.mode}
            findings = _mode_findings(path, image)
            if image.format == "JPEG" and not errors(findings):
                image.draft("L", image.size)  # a third of the memory
            grey = upright_grey(image)
    except TOO_LARGE:
        return Examination([_too_large(path, None, max_pixels)])
    except UNREADABLE_IMAGE as error:
        return Examination(
            [Finding("error", path, "not a readable image", REPLACE, _told(error, path))]
        )
    pixels = np.asarray(grey)
    low, high = float(pixels.min()), float(pixels.max())
    facts |= {"width": grey.width, "height": grey.height}
    facts |= {"darkest": low, "mean grey": float(pixels.mean()), "brightest": high}
    if low == high:
        findings.append(_constant(path, low))
    size = f"{grey.width}×{grey.height} pixels"
    if min(grey.size) < SMALL_SIDE:
        what = f"a side of less than {SMALL_SIDE} pixels"
        findings.append(Finding("warning", path, what, LOOK, size))
    if max(grey.size) > LONG_RATIO * min(grey.size):
        what = f"one side is more than {LONG_RATIO:g} times the other"
        findings.append(Finding("warning", path, what, LOOK, size))
    digest = hashlib.sha256(repr(grey.size).encode() + pixels.tobytes()).hexdigest()
    return Examination(findings, facts, {path: digest})


def _mode_findings(path: str, image: Image.Image) -> list[Finding]:
    found: list[Finding] = []
    if image.mode == "1":
        found.append(Finding("warning", path, "black and white only, 1 bit", LOOK))
    if image.mode == "CMYK":
        found.append(Finding("warning", path, "colours for print (CMYK), read as grey", LOOK))
    if image.has_transparency_data:
        alpha = image.convert("RGBA").getchannel("A").getextrema()
        if alpha[0] < 255:  # type: ignore[operator]
            what, cure = "transparent pixels, read as if they were not", "save it without alpha"
            found.append(Finding("warning", path, what, cure))
    if image.mode in ("RGB", "RGBA", "P", "CMYK"):
        small = image.convert("RGB").resize((64, 64))
        red, green, blue = np.moveaxis(np.asarray(small, dtype=np.float64), -1, 0)
        apart = max(np.abs(red - green).mean(), np.abs(green - blue).mean())
        if apart > COLOUR:
            detail = f"channels differ by {apart:.0f} grey levels on average"
            found.append(Finding("warning", path, "a colour picture, read as grey", LOOK, detail))
    return found


def _orientation(image: Image.Image) -> int:
    """As EXIF has it: 1 upright, 5 to 8 with width and height exchanged."""
    value = image.getexif().get(Exif.Orientation, 1)
    return value if isinstance(value, int) else 1


def _is_turned(image: Image.Image) -> bool:
    return _orientation(image) >= 5


def _unreadable(path: str | Path, why: str) -> str:
    return str(Finding("error", str(path), "not a readable image", REPLACE, why))


def _too_large(path: str | Path, size: tuple[int, int] | None, max_pixels: int) -> Finding:
    what = "more pixels than dataset.max_pixels"
    cure = "shrink it, or raise dataset.max_pixels if it is an X-ray"
    shown = f"{size[0]}×{size[1]}" if size else f"more than {Image.MAX_IMAGE_PIXELS:,}"
    return Finding("error", str(path), what, cure, f"{shown}, the limit is {max_pixels:,}")


def _constant(path: str | Path, level: float) -> Finding:
    what = "a constant image shows nothing"
    return Finding("error", str(path), what, "remove it", f"all pixels are {level:g}")


def _told(error: Exception, path: str | Path) -> str:
    """Pillow's words without the path, which stands in front already."""
    if isinstance(error, Image.UnidentifiedImageError):
        bits = _jpeg_bits(path)
        if bits is not None and bits != 8:
            return f"a JPEG of {bits} bits, where 8 can be decoded; save it as PNG of 16 bits"
        return "neither JPEG nor PNG"
    return str(error) or type(error).__name__


def _jpeg_bits(path: str | Path) -> int | None:
    """Bits of a sample, from the frame header of a JPEG (ITU T.81, B.2.2); None for other files."""
    with open(path, "rb") as file:
        if file.read(2) != b"\xff\xd8":
            return None
        while len(head := file.read(4)) == 4 and head[0] == 0xFF:
            kind, length = head[1], int.from_bytes(head[2:], "big")
            if 0xC0 <= kind <= 0xCF and kind not in (0xC4, 0xC8, 0xCC):  # a start of frame
                precision = file.read(1)
                return precision[0] if precision else None
            file.seek(length - 2, os.SEEK_CUR)
    return None
