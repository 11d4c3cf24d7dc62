"""Another machine, simulated: changes of a grey image that leave the patient as he was.

A shift takes a grey image, 0 (black) to 255, and a generator, and gives a floating-point image of
the same size and range. It is for judging, never for training: what a network was trained to
ignore says little about machines that nobody thought of.

Strengths are those at which films of one hospital still look like plausible films of another.
Lengths are shares of the image, so that they do not depend on how far a file was shrunk.
"""

from __future__ import annotations

import hashlib
import io
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from PIL import Image
from scipy.ndimage import gaussian_filter

Shift = Callable[[Image.Image, np.random.Generator], Image.Image]


@dataclass(frozen=True)
class Gamma:
    """255 · (x / 255)^exponent: above 1 darkens the middle greys, below 1 brightens them."""

    exponent: float

    def __call__(self, image: Image.Image, draw: np.random.Generator) -> Image.Image:
        """Nothing is drawn."""
        return _image(255 * (_pixels(image) / 255) ** self.exponent)


@dataclass(frozen=True)
class Contrast:
    """Distances from the mean grow by ``factor``; what leaves the range is clipped."""

    factor: float

    def __call__(self, image: Image.Image, draw: np.random.Generator) -> Image.Image:
        """Nothing is drawn."""
        pixels = _pixels(image)
        mean = pixels.mean()
        return _image(mean + self.factor * (pixels - mean))


@dataclass(frozen=True)
class Sharpness:
    """Unsharp mask, x + amount · (x − blurred x); an amount of −1 is the blurred image.

    ``sigma`` is of the Gaussian, a share of the shorter side.
    """

    amount: float
    sigma: float = 0.009

    def __call__(self, image: Image.Image, draw: np.random.Generator) -> Image.Image:
        """Nothing is drawn."""
        pixels = _pixels(image)
        blurred = gaussian_filter(pixels, self.sigma * min(image.size), mode="nearest")
        return _image(pixels + self.amount * (pixels - blurred))


@dataclass(frozen=True)
class Rotation:
    """By ``degrees`` to the left or to the right about the centre; black outside."""

    degrees: float

    def __call__(self, image: Image.Image, draw: np.random.Generator) -> Image.Image:
        """The side is drawn."""
        return _move(image, degrees=self.degrees * draw.choice((-1, 1)))


@dataclass(frozen=True)
class Zoom:
    """About the centre: below 1 the patient is smaller, within a black margin."""

    factor: float

    def __call__(self, image: Image.Image, draw: np.random.Generator) -> Image.Image:
        """Nothing is drawn."""
        return _move(image, zoom=self.factor)


@dataclass(frozen=True)
class Translation:
    """Along each axis by at most ``share`` of the side; black outside."""

    share: float

    def __call__(self, image: Image.Image, draw: np.random.Generator) -> Image.Image:
        """Both distances are drawn, uniformly."""
        right, down = self.share * draw.uniform(-1, 1, 2)
        return _move(image, right=right, down=down)


@dataclass(frozen=True)
class Jpeg:
    """Written as a JPEG of this quality, 1 to 95, and read again."""

    quality: int

    def __call__(self, image: Image.Image, draw: np.random.Generator) -> Image.Image:
        """Nothing is drawn."""
        file = io.BytesIO()
        Image.fromarray(np.rint(_pixels(image)).astype(np.uint8)).save(
            file, "JPEG", quality=self.quality
        )
        with Image.open(file) as read:
            return read.convert("F")


@dataclass(frozen=True)
class Vignette:
    """Darker with the squared distance from a centre, by ``strength`` in a far corner.

    The centre lies within 15 % of the side from the middle.
    """

    strength: float

    def __call__(self, image: Image.Image, draw: np.random.Generator) -> Image.Image:
        """The centre is drawn."""
        across, along = draw.uniform(-0.3, 0.3, 2)  # of a side that goes from -1 to 1
        width, height = image.size
        x = np.linspace(-1, 1, width)[None, :] - across
        y = np.linspace(-1, 1, height)[:, None] - along
        distance = np.minimum((x**2 + y**2) / 2, 1)
        return _image(_pixels(image) * (1 - self.strength * distance))


@dataclass(frozen=True)
class BlackFrame:
    """Each edge blackened by a width of its own, up to ``share`` of the side."""

    share: float

    def __call__(self, image: Image.Image, draw: np.random.Generator) -> Image.Image:
        """The four widths are drawn, uniformly."""
        width, height = image.size
        sides = np.array([width, height, width, height])
        left, top, right, bottom = (self.share * sides * draw.uniform(0, 1, 4)).astype(int)
        framed = np.zeros((height, width))
        inside = np.s_[top : height - bottom, left : width - right]
        framed[inside] = _pixels(image)[inside]
        return _image(framed)


@dataclass(frozen=True)
class Mixed:
    """All of it at once, each milder than alone, as a machine of its own for every image."""

    def __call__(self, image: Image.Image, draw: np.random.Generator) -> Image.Image:
        """All strengths are drawn, and whether there is a black frame (of 40 % of images)."""
        image = _move(
            image,
            degrees=draw.uniform(-8, 8),
            zoom=draw.uniform(0.87, 1.15),
            right=draw.uniform(-0.04, 0.04),
            down=draw.uniform(-0.04, 0.04),
        )
        steps: list[Shift] = [
            Gamma(math.exp(draw.uniform(-0.35, 0.35))),
            Contrast(draw.uniform(0.75, 1.3)),
            Sharpness(draw.uniform(-1, 1), sigma=0.007),
            Vignette(0.3),
            *([BlackFrame(0.12)] if draw.uniform() < 0.4 else []),
            Jpeg(50),
        ]
        for step in steps:
            image = step(image, draw)
        return image


SHIFTS: Mapping[str, Shift] = {
    "gamma_0.7": Gamma(0.7),
    "gamma_1.4": Gamma(1.4),
    "contrast_0.7": Contrast(0.7),
    "contrast_1.3": Contrast(1.3),
    "blur": Sharpness(-1.0),
    "sharpen": Sharpness(1.5),
    "rotation_8": Rotation(8.0),
    "zoom_0.85": Zoom(0.85),
    "zoom_1.15": Zoom(1.15),
    "translation": Translation(0.07),
    "jpeg_30": Jpeg(30),
    "vignette": Vignette(0.5),
    "black_frame": BlackFrame(0.16),
    "mixed": Mixed(),
}
"""Name → shift, in the order of a table."""


def shifted(image: Image.Image, name: str, seed: int, image_id: str) -> Image.Image:
    """An image as machine ``name`` would give it; a function of its arguments alone.

    Neither the order of images nor which other shifts are asked for matters.

    Args:
        image: grey, 0 to 255.
        name: of ``SHIFTS``.
        seed: of all that is drawn.
        image_id: tells one image's draws from another's.

    Returns:
        Mode "F", of the same size, 0 to 255.
    """
    digest = hashlib.sha256(f"{name}/{image_id}".encode()).digest()
    return SHIFTS[name](image, np.random.default_rng([seed, *digest[:8]]))


def _pixels(image: Image.Image) -> np.ndarray:
    return np.asarray(image, dtype=np.float64)


def _image(pixels: np.ndarray) -> Image.Image:
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.float32))


def _move(
    image: Image.Image,
    degrees: float = 0.0,
    zoom: float = 1.0,
    right: float = 0.0,
    down: float = 0.0,
) -> Image.Image:
    """Turned and zoomed about the centre, then moved by shares of the sides; black outside."""
    width, height = image.size
    # Pillow asks where in the old image a pixel of the new one comes from.
    cos = math.cos(math.radians(degrees)) / zoom
    sin = math.sin(math.radians(degrees)) / zoom
    x, y = width * (0.5 + right), height * (0.5 + down)  # where the old centre goes
    return image.convert("F").transform(
        image.size,
        Image.Transform.AFFINE,
        (cos, sin, width / 2 - cos * x - sin * y, -sin, cos, height / 2 + sin * x - cos * y),
        Image.Resampling.BILINEAR,
    )
