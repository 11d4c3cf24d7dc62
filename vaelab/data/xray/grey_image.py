"""Grey image files as a model sees them: resized, without dark margins, in [0, 1]."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.transforms import Transform
from PIL import Image
from torch import Tensor
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2.functional import resized_crop

from vaelab.data.index import Record
from vaelab.data.xray.image_checks import HARD_LIMIT, MAX_PIXELS, decode_grey, refuse_constant
from vaelab.data.xray.thorax import SIDE, Thorax, crop, crop_mask
from vaelab.errors import UserError

# A margin is a run of rows or columns of which 85 % is darker than 12 % of the image's maximum.
MARGIN_QUANTILE, MARGIN_SHARE, MARGIN_LIMIT = 0.85, 0.12, 0.3


@dataclass(frozen=True)
class ImageSettings:
    """How an image file becomes a sample; see ``LoadGreyImage``."""

    image_size: tuple[int, ...] = (128, 128)
    """(H, W) in pixels."""
    trim_border: bool = False
    max_pixels: int = MAX_PIXELS

    def __post_init__(self) -> None:
        object.__setattr__(self, "image_size", tuple(self.image_size))  # a list, from a config
        if len(self.image_size) != 2 or not all(side > 0 for side in self.image_size):
            raise UserError(
                f"dataset.image_size={list(self.image_size)}: two sides in pixels; try [128,128]"
            )
        if not 1 <= self.max_pixels <= HARD_LIMIT:
            raise UserError(
                f"dataset.max_pixels={self.max_pixels}: from 1 to {HARD_LIMIT}; try 80000000"
            )

    def loader(self, thorax: Thorax | None = None) -> LoadGreyImage:
        """What reads the files."""
        return LoadGreyImage(self.image_size, self.trim_border, self.max_pixels, thorax)


class LoadGreyImage(Transform):
    """Read an image file as (1, H, W) float32, grey, resized, min–max scaled to [0, 1].

    Args:
        image_size: (H, W) in pixels. The aspect ratio is not kept.
        trim_border: cut dark margins off first, see ``trim_dark_border``.
        max_pixels: limit beyond which a file is refused.
        thorax: to which the image is fitted, and what is shown of it; None shows all.
    """

    def __init__(
        self,
        image_size: Sequence[int],
        trim_border: bool = False,
        max_pixels: int = MAX_PIXELS,
        thorax: Thorax | None = None,
    ) -> None:
        self.height, self.width = image_size
        self.trim_border = trim_border
        self.max_pixels = max_pixels
        self.thorax = thorax

    def __call__(self, data: Mapping[str, Any]) -> dict[str, Any]:
        """Add ``image`` in place of ``path``; a ``mask`` goes from a path to uint8, as ``image``.

        Raises:
            UserError: for a file that cannot be decoded, or shows nothing.
        """
        result = {key: value for key, value in data.items() if key != "path"}
        grey = self.decode(data["path"])
        pixels, placement = self.fit(grey)
        result["image"] = torch.from_numpy(pixels)[None]
        if "mask" in data:
            mask = np.asarray(decode_grey(data["mask"], None, self.max_pixels))
            shown = crop_mask(mask > 0, placement, (self.height, self.width))
            result["mask"] = torch.from_numpy(shown)[None]
        return result

    def decode(self, path: str | Path) -> Image.Image:
        """A file as ``fit`` takes it.

        Raises:
            UserError: for a file that cannot be decoded, or shows nothing.
        """
        # A JPEG decodes at 1/2, 1/4 or 1/8 for a fraction of the cost; twice the target leaves the
        # resize enough to average over.
        grey = decode_grey(path, (2 * self.width, 2 * self.height), self.max_pixels)
        refuse_constant(path, grey)
        return grey

    def fit(self, grey: Image.Image) -> tuple[np.ndarray, np.ndarray]:
        """What the model sees of a decoded image, (H, W) in [0, 1], and its placement.

        The placement, (2, 3), leads from what is seen to the image; see ``Thorax``.
        """
        box = trim_dark_border(np.asarray(grey)) if self.trim_border else (0, 0, *grey.size)
        placement = _placement_of(box, grey.size)
        if self.thorax is None:
            pixels = _resized(grey, box, (self.height, self.width))
        else:
            inner = self.thorax.place(_resized(grey, box, (SIDE, SIDE)))
            finer = _resized(grey, box, (2 * self.height, 2 * self.width))
            pixels = crop(finer, inner, (self.height, self.width))
            placement = placement @ np.vstack([inner, [0, 0, 1]])
        return _scaled(pixels), placement

    def look(self, path: str | Path) -> np.ndarray:
        """All of a file that ``thorax`` would be fitted to, (64, 64) in [0, 1]."""
        grey = self.decode(path)
        box = trim_dark_border(np.asarray(grey)) if self.trim_border else (0, 0, *grey.size)
        return _scaled(_resized(grey, box, (SIDE, SIDE)))

    def original(self, record: Record) -> Image.Image:
        """The image of a record to simulate another machine on, mode "L".

        Twice as large as training decodes it: shifts such as JPEG blocks then stay finer than a
        pixel of the network's, as they are in a file of full size.
        """
        enough = (4 * self.width, 4 * self.height)
        return eight_bit(decode_grey(record["path"], enough), enough)

    def prepared(self, image: Image.Image) -> Tensor:
        """What the network sees of a grey image, (1, H, W)."""
        pixels, _ = self.fit(image)
        return torch.from_numpy(pixels)[None]


def _resized(
    grey: Image.Image, box: tuple[int, int, int, int], size: tuple[int, int]
) -> np.ndarray:
    """A part of an image, (h, w) float32; the box is left, top, right and bottom in pixels."""
    left, top, right, bottom = box
    small = resized_crop(
        grey, top, left, bottom - top, right - left, list(size), InterpolationMode.BILINEAR
    )
    return np.array(small, dtype=np.float32)  # a copy: PyTorch warns of what cannot be written


def _scaled(pixels: np.ndarray) -> np.ndarray:
    """Min–max scaled to [0, 1]; what is left of an image may be constant and becomes black."""
    low, high = pixels.min(), pixels.max()
    scaled: np.ndarray = (pixels - low) / max(high - low, np.float32(1e-6))
    return scaled


def _placement_of(box: tuple[int, int, int, int], size: tuple[int, int]) -> np.ndarray:
    """The placement that shows a box of an image of (W, H) pixels."""
    (left, top, right, bottom), (width, height) = box, size
    return np.array(
        [
            [(right - left) / width, 0.0, (left + right) / width - 1],
            [0.0, (bottom - top) / height, (top + bottom) / height - 1],
        ]
    )


def trim_dark_border(pixels: np.ndarray) -> tuple[int, int, int, int]:
    """The (left, top, right, bottom) of an X-ray without its collimated, dark margins.

    How much of a film is exposed differs from one machine to the next and says nothing of the
    patient. At most 30 % is cut on each side.

    Args:
        pixels: (H, W), non-negative.
    """
    limit = MARGIN_SHARE * float(pixels.max())
    top, bottom = _exposed(np.quantile(pixels, MARGIN_QUANTILE, axis=1) >= limit)
    left, right = _exposed(np.quantile(pixels, MARGIN_QUANTILE, axis=0) >= limit)
    return left, top, right, bottom


def _exposed(bright: np.ndarray) -> tuple[int, int]:
    """First and last-but-one index that is bright, within the share that may be cut."""
    most = int(MARGIN_LIMIT * len(bright))
    return min(int(bright.argmax()), most), len(bright) - min(int(bright[::-1].argmax()), most)


def eight_bit(grey: Image.Image, at_least: tuple[int, int]) -> Image.Image:
    """A decoded image in the unit that shifts take, shrunk while both sides stay ``at_least``.

    What is brighter than 255 (16 bit) is scaled to that maximum.

    Args:
        grey: non-negative floats, as ``decode_grey`` gives them.
        at_least: (W, H) in pixels.

    Returns:
        Mode "L", a quarter of the memory.
    """
    factor = min(side // least for side, least in zip(grey.size, at_least, strict=True))
    pixels = np.asarray(grey.reduce(factor) if factor > 1 else grey)
    brightest = max(float(pixels.max()), 255.0)
    return Image.fromarray(np.rint(pixels * (255 / brightest)).astype(np.uint8))
