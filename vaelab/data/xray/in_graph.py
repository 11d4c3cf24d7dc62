"""The preparation of a grey image, and the way back, as tensors that can leave for ONNX.

What Pillow does to a decoded image, written as products with matrices whose size follows the
image's own. What comes before is not here: decoding, EXIF and DICOM, and that a JPEG much larger
than the network sees it is decoded at 1/2, 1/4 or 1/8 of its size.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor

from vaelab.data.contract import Original
from vaelab.data.index import Record
from vaelab.data.xray.grey_image import (
    MARGIN_LIMIT,
    MARGIN_QUANTILE,
    MARGIN_SHARE,
    ImageSettings,
)
from vaelab.data.xray.thorax import uncrop


@dataclass(frozen=True)
class GreyImagesInGraph:
    """``LoadGreyImage.fit`` without a thorax, and ``uncrop``, for a batch of images of one size.

    ``at_full_size`` goes by way of a smaller map where an image has more than 1024 pixels a side.

    Args:
        settings: of the run.
    """

    settings: ImageSettings

    @property
    def unit(self) -> str:
        """Decoding is not in the graph."""
        height, width = self.settings.image_size
        return (
            "decoded grey image in any unit, upright, bone bright, (batch, height, width); vaelab "
            f"has Pillow decode a JPEG by draft('L', ({2 * width}, {2 * height})), and one that is "
            "decoded whole gives slightly other numbers"
        )

    def prepared(self, original: Tensor) -> tuple[Tensor, Tensor]:
        """(B, H, W), grey in any unit → (B, 1, h, w) in [0, 1], and the boxes shown, (B, 4).

        A box is left, top, right and bottom in pixels.
        """
        box = _trimmed(original) if self.settings.trim_border else _whole(original)
        left, top, right, bottom = box.unbind(1)
        height, width = self.settings.image_size
        rows = _shrink(original.shape[1], height, top, bottom)  # (B, h, H)
        columns = _shrink(original.shape[2], width, left, right)  # (B, w, W)
        small = rows @ original @ columns.transpose(1, 2)  # (B, h, w)
        low, high = small.amin((1, 2), keepdim=True), small.amax((1, 2), keepdim=True)
        return ((small - low) / (high - low).clamp_min(1e-6))[:, None], box

    def restored(self, heatmap: Tensor, box: Tensor, original: Tensor) -> Tensor:
        """(B, h, w) → (B, H, W), 0 outside the box."""
        left, top, right, bottom = box.unbind(1)
        rows = _spread(heatmap.shape[1], original.shape[1], top, bottom)  # (B, H, h)
        columns = _spread(heatmap.shape[2], original.shape[2], left, right)  # (B, W, w)
        return rows @ heatmap @ columns.transpose(1, 2)

    def examples(self, records: Sequence[Record]) -> Iterator[Original]:
        """Images of the run, prepared by its own code."""
        loader = self.settings.loader()
        for record in records:
            grey = loader.decode(record["path"])
            pixels, placement = loader.fit(grey)
            restored = partial(uncrop, placement=placement, shape=grey.size[::-1])
            yield Original(np.asarray(grey), torch.from_numpy(pixels)[None], restored)


def _whole(image: Tensor) -> Tensor:
    height, width = image.shape[1:]
    zeros = torch.zeros_like(image[:, 0, 0])
    return torch.stack([zeros, zeros, zeros + width, zeros + height], 1)


def _trimmed(image: Tensor) -> Tensor:
    """``trim_dark_border`` of each image, (B, 4)."""
    limit = MARGIN_SHARE * image.amax((1, 2))[:, None]
    top, bottom = _exposed(_quantile(image) >= limit)
    left, right = _exposed(_quantile(image.transpose(1, 2)) >= limit)
    return torch.stack([left, top, right, bottom], 1)


def _quantile(lines: Tensor) -> Tensor:
    """Of each line, (B, L, N) → (B, L), between neighbours linearly, as NumPy's."""
    place = MARGIN_QUANTILE * torch.full((1,), lines.shape[2] - 1.0)
    below = place.floor()
    values = lines.sort(2).values
    low = values.index_select(2, below.long())[..., 0]
    high = values.index_select(2, place.ceil().long())[..., 0]
    return low + (high - low) * (place - below)


def _exposed(bright: Tensor) -> tuple[Tensor, Tensor]:
    """First and last-but-one index that is bright, (B, L) → (B,) each, within what may be cut."""
    length = bright.shape[1]
    places = torch.arange(length, dtype=torch.float32)
    most = torch.full((1,), MARGIN_LIMIT * length).floor()
    # Where none is bright, nothing is cut: as argmax, which then says 0.
    first = torch.where(bright, places, float(2**24)).amin(1)
    last = torch.where(bright, places, -1.0).amax(1)
    nothing = last < 0
    start = torch.where(nothing, 0.0, torch.minimum(first, most))
    cut = torch.where(nothing, 0.0, torch.minimum(length - 1 - last, most))
    return start, length - cut


def _shrink(size: int, out: int, start: Tensor, end: Tensor) -> Tensor:
    """Pillow's bilinear resize of ``start`` to ``end`` along one axis as matrices, (B, out, size).

    A triangle, as wide as a pixel of the result where that is larger, over the pixels of the part.
    """
    scale = ((end - start) / out)[:, None, None]
    centre = start[:, None, None] + (torch.arange(out)[:, None] + 0.5) * scale
    place = torch.arange(size) + 0.5
    inside = (place > start[:, None, None]) & (place < end[:, None, None])
    return _triangles((place - centre) / scale.clamp_min(1.0), inside)


def _spread(size: int, out: int, start: Tensor, end: Tensor) -> Tensor:
    """Linear interpolation of ``size`` pixels onto ``start`` to ``end``, (B, out, size)."""
    row = torch.arange(out)[:, None] + 0.5
    centre = (row - start[:, None, None]) * (size / (end - start))[:, None, None]
    place = torch.arange(size) + 0.5
    # Beyond the outermost centres the outermost value.
    weights = _triangles(place - centre.clamp(0.5, size - 0.5), torch.ones_like(place) > 0)
    return weights * ((row > start[:, None, None]) & (row < end[:, None, None]))


def _triangles(distance: Tensor, inside: Tensor) -> Tensor:
    """Rows of weights that add up to 1."""
    weights = (1 - distance.abs()).clamp_min(0) * inside
    return weights / weights.sum(2, keepdim=True).clamp_min(1e-12)
