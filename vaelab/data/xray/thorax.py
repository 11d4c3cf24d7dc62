"""Thoraces brought to one place: each radiograph is fitted to the mean of normal ones.

Adults are filmed with more or less of their arms, neck and belly, nearer and further away. A
network then learns where the patient stood before it learns what a lung looks like, and a pixel of
one image has no counterpart in another.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

SIDE = 64  # pixels of the template
LEVELS = (16, 32, 64)  # sides that a fit goes through, coarse to fine
ITERATIONS = 12  # at most, on each of them
ROUNDS = 2  # of fitting all and averaging again
# A priori deviation of shift in x and y (half sides), logarithms of both sizes and angle (radians).
DEVIATION = torch.tensor([0.2, 0.2, 0.25, 0.25, 0.12])
PRIOR = 0.02  # weight of the squared deviations beside 1 - correlation
WINDOW = 0.6  # of the weight exp(-(radius² / WINDOW)²) that keeps arms and collimation out
THORAX = (0.0, -0.08, 0.8, 0.72)  # of the template, what is shown: centre and half sides, x and y
STEP = 1e-2  # of the differences that a fit is steered by

IDENTITY = np.eye(2, 3)
"""A placement that shows the whole image."""


@dataclass(frozen=True, eq=False)
class Thorax:
    """The mean normal radiograph, and the fit of others to it.

    A *placement* is a (2, 3) matrix from what is shown to the image: (x, y, 1) ↦ (x, y), both from
    -1 at the left or upper border to 1 at the other.

    Args:
        template: mean of registered normal images, (64, 64).
    """

    template: NDArray[np.float32]

    @cached_property
    def digest(self) -> str:
        """Of all that a placement depends on besides the image."""
        return hashlib.sha256(np.ascontiguousarray(self.template).tobytes()).hexdigest()[:16]

    def place(self, image: NDArray[np.float32]) -> NDArray[np.float64]:
        """The placement that shows the thorax of an image.

        Args:
            image: (64, 64).
        """
        fitted = _matrix(self._fit(torch.from_numpy(image)[None, None])).double().numpy()
        x, y, half_width, half_height = THORAX
        shown = np.array([[half_width, 0, x], [0, half_height, y], [0, 0, 1]])
        placement: NDArray[np.float64] = fitted[0] @ shown
        return placement

    def _fit(self, image: Tensor) -> Tensor:
        """Shift, log sizes and angle, (5,), that fit one image, (1, 1, 64, 64), best.

        Maximises the weighted correlation with the template less a Gaussian prior, by
        Levenberg–Marquardt: of vectors a, b of length one, 1 - a·b = |a - b|² / 2.
        """
        parameters = torch.zeros(5)
        template = torch.from_numpy(self.template)[None, None]
        for side in LEVELS:
            small = functional.adaptive_avg_pool2d(image, side)
            weight = _window(side).sqrt()
            target = _unit(functional.adaptive_avg_pool2d(template, side), weight)
            parameters = _descend(small, target, weight, parameters)
        return parameters


def learn_thorax(images: NDArray[np.float32]) -> Thorax:
    """The mean of normal images and the fit of each to it, in turn.

    The mean fit is taken off, so that the template lies where thoraces lie on average.

    Args:
        images: (N, 64, 64) in [0, 1].
    """
    stack = torch.from_numpy(images)[:, None]
    thorax = Thorax(images.mean(0))
    for _ in range(ROUNDS):
        fits = torch.stack([thorax._fit(image[None]) for image in stack])
        fits = fits - fits.mean(0)
        registered = [_warp(image[None], fit[None]) for image, fit in zip(stack, fits, strict=True)]
        thorax = Thorax(torch.cat(registered).mean(0)[0].numpy())
    return thorax


def crop(
    image: NDArray[np.float32], placement: NDArray[np.float64], size: Sequence[int]
) -> NDArray[np.float32]:
    """What a placement shows, bilinear; beyond the border its outermost value.

    Args:
        image: (H, W), not much finer than the result.
        placement: see ``Thorax``.
        size: (h, w) of the result.
    """
    # Twice as fine and averaged, so that nothing is skipped where the image is shrunk.
    grid = _grid(placement, 2 * size[0], 2 * size[1])
    fine = functional.grid_sample(
        torch.from_numpy(image)[None, None], grid, padding_mode="border", align_corners=False
    )
    result: NDArray[np.float32] = functional.avg_pool2d(fine, 2)[0, 0].numpy()
    return result


def crop_mask(
    mask: NDArray[np.bool_], placement: NDArray[np.float64], size: Sequence[int]
) -> NDArray[np.uint8]:
    """What a placement shows of a mask of any scale, (h, w), nearest; 0 beyond the border."""
    shown = functional.grid_sample(
        torch.from_numpy(mask.astype(np.float32))[None, None], _grid(placement, *size),
        mode="nearest", align_corners=False,
    )  # fmt: skip
    result: NDArray[np.uint8] = shown[0, 0].numpy().astype(np.uint8)
    return result


def uncrop(
    heatmap: NDArray[np.float32], placement: NDArray[np.float64], shape: Sequence[int]
) -> NDArray[np.float32]:
    """A map over the part of an image that it is about, 0 elsewhere, (H, W).

    Args:
        heatmap: (h, w).
        placement: see ``Thorax``.
        shape: (H, W) of the image.
    """
    back = np.linalg.inv(np.vstack([placement, [0, 0, 1]]))[:2]
    grid = _grid(back, *shape)
    inside = (grid.abs() <= 1).all(-1)
    full = functional.grid_sample(
        torch.from_numpy(heatmap.astype(np.float32))[None, None], grid,
        padding_mode="border", align_corners=False,
    )  # fmt: skip
    result: NDArray[np.float32] = (full[0] * inside)[0].numpy()
    return result


def spread(images: NDArray[np.float32], mean: NDArray[np.float32]) -> float:
    """Mean squared distance of images (N, H, W) to a mean (H, W), over pixels and images."""
    return float(np.square(images - mean).mean())


def _grid(placement: NDArray[np.float64], height: int, width: int) -> Tensor:
    matrix = torch.from_numpy(placement).float()[None]
    return functional.affine_grid(matrix, [1, 1, height, width], align_corners=False)


def _matrix(parameters: Tensor) -> Tensor:
    """(N, 5) or (5,) → (N, 2, 3)."""
    x, y, width, height, angle = parameters.reshape(-1, 5).unbind(1)
    cos, sin, wide, high = angle.cos(), angle.sin(), width.exp(), height.exp()
    rows = [
        torch.stack([cos * wide, -sin * high, x], 1),
        torch.stack([sin * wide, cos * high, y], 1),
    ]
    return torch.stack(rows, 1)


def _warp(image: Tensor, parameters: Tensor) -> Tensor:
    """(1, 1, S, S) under each of (N, 5), (N, 1, S, S)."""
    shape = [len(parameters), *image.shape[1:]]
    grid = functional.affine_grid(_matrix(parameters), shape, align_corners=False)
    return functional.grid_sample(
        image.expand(shape), grid, padding_mode="border", align_corners=False
    )


def _window(side: int) -> Tensor:
    """Weight of each pixel, (side, side), with sum 1."""
    place = (torch.arange(side) + 0.5) / (side / 2) - 1
    weight = torch.exp(-(((place[None] ** 2 + place[:, None] ** 2) / WINDOW) ** 2))
    return weight / weight.sum()


def _unit(images: Tensor, root: Tensor) -> Tensor:
    """(N, 1, S, S) → (N, S²), centred, weighted, of length 1; ``root`` is that of the weights."""
    mean = (images * root.square()).sum((2, 3), keepdim=True)
    vectors = ((images - mean) * root).flatten(1)
    return functional.normalize(vectors, dim=1, eps=1e-6)


def _descend(image: Tensor, target: Tensor, root: Tensor, start: Tensor) -> Tensor:
    """Levenberg–Marquardt on |a - b|² / 2 + PRIOR · |p / DEVIATION|² from ``start``, (5,)."""
    pull = math.sqrt(2 * PRIOR) / DEVIATION
    moves = torch.cat([torch.zeros(1, 5), STEP * torch.eye(5)])

    def residuals(parameters: Tensor) -> Tensor:
        """(N, 5) → (N, S² + 5)."""
        return torch.cat([_unit(_warp(image, parameters), root) - target, parameters * pull], 1)

    parameters, damping = start, 1e-2
    for _ in range(ITERATIONS):
        values = residuals(parameters + moves)
        slope = (values[1:] - values[0]) / STEP  # (5, S² + 5)
        normal, gradient = slope @ slope.T, slope @ values[0]
        change = torch.linalg.solve(normal + damping * torch.diag(normal.diagonal()), -gradient)
        better = residuals((parameters + change)[None])[0].square().sum() < values[0].square().sum()
        if better:
            parameters, damping = parameters + change, damping / 5
        else:
            damping *= 10
        if (change / DEVIATION).abs().max() < 1e-3 or damping > 1e4:
            break
    return parameters
