"""The film that a drawn thorax is exposed on.

Scatter veils the dense parts, and a curve maps what is left of the beam (Beer-Lambert) to grey.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from scipy.ndimage import gaussian_filter

from vaelab.data.phantoms.thorax import Field, smooth_noise, step


def expose(
    rng: np.random.Generator, attenuation: Field, scattering: Field, visible: Field
) -> NDArray[np.uint8]:
    """Film (H, W) of an attenuation; scatter is taken from ``scattering``, the healthy chest.

    Were it taken from the sick chest, an opacity would change the image far from itself.
    """
    height = attenuation.shape[0]
    dose = rng.uniform(0.85, 1.15)
    scatter = 0.10 * gaussian_filter(np.exp(-1.6 * scattering), 0.12 * height)
    beam = np.exp(-1.6 * attenuation) + scatter + 0.02
    quanta = smooth_noise(rng, attenuation.shape, 0.6)  # detector blur correlates the noise
    signal = -np.log(beam) / 1.6 + rng.uniform(0.004, 0.012) * quanta / np.sqrt(beam)
    toe = np.clip(0.02 + dose * signal, 0, None) ** rng.uniform(0.85, 1.15)
    shoulder = 1 - np.exp(-1.1 * toe)  # dense parts approach white and never reach it
    grey = 255 * 1.22 * gaussian_filter(shoulder, 0.0022 * height) * visible
    film: NDArray[np.uint8] = np.round(np.clip(grey, 0, 255)).astype(np.uint8)
    return film


def collimation(rng: np.random.Generator, shape: tuple[int, int]) -> Field:
    """1 where the beam fell, 0 under the shutters (H, W); most images have none in view."""
    height, width = shape
    if rng.random() > 0.3:
        return np.ones(shape)
    left, right, top, bottom = rng.uniform(-0.02, 0.05, 4)
    row = np.linspace(0, 1, height)[:, None]
    column = np.linspace(0, 1, width)[None, :]
    skew = rng.normal(0, 0.01)
    inside_columns = np.minimum(column - left + skew * row, 1 - right - column - skew * row)
    inside_rows = np.minimum(row - top, 1 - bottom - row)
    return step(np.minimum(inside_columns, inside_rows), 0.003)


def print_marker(rng: np.random.Generator, film: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Most films carry an R at the patient's right side, in the upper half."""
    height, width = film.shape
    present, left, top = rng.random() < 0.7, rng.uniform(0.01, 0.06), rng.uniform(0.04, 0.5)
    size = max(6.0, rng.uniform(0.05, 0.09) * height)
    if not present:
        return film
    marked = Image.fromarray(film)
    font = ImageFont.load_default(size)
    ImageDraw.Draw(marked).text((left * width, top * height), "R", fill=240, font=font)
    return np.asarray(marked)
