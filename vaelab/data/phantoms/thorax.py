"""The parts of a drawn thorax.

Coordinates: y runs from -1 (top) to 1 (bottom), x from the image's left, which is the patient's
right, through 0 at the spine. Thicknesses are in units of the chest's, about 1 in the middle.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from scipy.ndimage import gaussian_filter

Field = NDArray[np.float64]


def coordinates(rng: np.random.Generator, image_size: int) -> tuple[Field, Field]:
    """Patient coordinates x, y (H, W) of an image as wide as 1.0 to 1.35 times its height."""
    aspect = rng.uniform(1.0, 1.35)
    height, width = round(image_size / aspect**0.5), round(image_size * aspect**0.5)
    half_width = aspect**0.5
    y, x = np.meshgrid(
        np.linspace(-1, 1, height),
        np.linspace(-half_width, half_width, width),
        indexing="ij",
    )
    turn, zoom = np.deg2rad(rng.normal(0, 2.0)), rng.uniform(0.86, 1.0)
    cos, sin = np.cos(turn) * zoom, np.sin(turn) * zoom
    shift_x, shift_y = rng.normal(0, 0.03, 2)
    return cos * x - sin * y + shift_x, sin * x + cos * y + shift_y


class Anatomy(NamedTuple):
    """What a patient keeps from one image to the next; lengths in half image heights."""

    chest_width: float  # outer half-width of the lungs at their base
    body_margin: float  # soft tissue outside the ribs
    apex: float  # y of the top of the lungs
    dome: float  # y of the top of the diaphragm on the patient's left
    dome_rise: float  # how much higher it stands on the right
    dome_drop: float  # from the dome down to the costophrenic angle
    heart_left: float  # how far the heart reaches to the patient's left
    heart_right: float
    heart_top: float  # y where the heart's borders leave the great vessels
    spine_width: float
    rib_spacing: float
    rib_slope: float
    rib_density: float
    clavicle: float  # y of the inner end
    clavicle_rise: float
    arm_angle: float  # radians below the horizontal
    chin: float  # y of the lower edge of the jaw; under -1 it is out of the image
    inflation: float  # thickness of air in the lungs
    stomach_gas: float  # radius of the bubble under the left dome; not above 0: none


def draw_anatomy(rng: np.random.Generator) -> Anatomy:
    """Draw the shape of one chest."""

    def vary(mean: float, spread: float) -> float:
        return mean + spread * float(np.clip(rng.standard_normal(), -2, 2))

    return Anatomy(
        chest_width=vary(0.69, 0.04),
        body_margin=vary(0.16, 0.035),
        apex=vary(-0.66, 0.04),
        dome=vary(0.46, 0.06),
        dome_rise=vary(0.06, 0.025),
        dome_drop=vary(0.22, 0.04),
        heart_left=vary(0.39, 0.04),
        heart_right=vary(0.21, 0.025),
        heart_top=vary(-0.22, 0.05),
        spine_width=vary(0.10, 0.01),
        rib_spacing=vary(0.152, 0.01),
        rib_slope=vary(0.42, 0.08),
        rib_density=vary(0.19, 0.035),
        clavicle=vary(-0.60, 0.035),
        clavicle_rise=vary(0.12, 0.05),
        arm_angle=vary(0.5, 0.5),
        chin=vary(-1.0, 0.09),
        inflation=vary(0.62, 0.045),
        stomach_gas=vary(0.05, 0.07),
    )


def chest_wall(a: Anatomy, y: Field) -> Field:
    """Inner half-width (H, W) of the rib cage at height y: a round apex, then nearly straight."""
    depth = np.clip((y - a.apex) / (1.3 * (a.dome - a.apex)), 0, 1)
    return a.chest_width * np.sqrt(1 - (1 - depth) ** 3.4)


def diaphragm(a: Anatomy, x: Field) -> Field:
    """Height y (H, W) of the diaphragm's dome over x; the patient's right stands higher."""
    middle = 0.45 * a.chest_width
    offset = (np.abs(x) - middle) / (a.chest_width - middle)
    drop = np.where(offset > 0, a.dome_drop, 0.3 * a.dome_drop) * offset**2
    return a.dome + drop - a.dome_rise * step(-x, 0.03)


def soft_tissue(a: Anatomy, x: Field, y: Field) -> Field:
    """Thickness (H, W) of trunk, neck, jaw and arms, the lungs counted as filled."""
    side = np.abs(x)
    half_width = a.chest_width + a.body_margin + 0.5 * step(-0.5 - y, 0.06)
    trunk = np.maximum(0, 1 - (x / half_width) ** 2) ** 0.7 * step(half_width - side, 0.008)
    shoulder_line = -1.12 + 0.5 * np.clip(side - 0.2, 0, 1)
    trunk = trunk * step(y - shoulder_line, 0.02) * (1 - 0.4 * step(-0.58 - y, 0.1))
    trunk = trunk + 0.16 * step(y - diaphragm(a, x), 0.009) * step(a.chest_width - side, 0.03)
    shoulder = (a.chest_width + a.body_margin - 0.05, -0.62)
    hand = (shoulder[0] + 1.2 * np.cos(a.arm_angle), shoulder[1] + 1.2 * np.sin(a.arm_angle))
    arms = 0.45 * capsule(side, y, shoulder, hand, 0.2)
    jaw = 0.5 * step(1 - np.hypot(x / 0.36, (y - a.chin + 0.4) / 0.4), 0.02)
    tissue: Field = np.maximum(trunk, arms) + jaw
    if a.stomach_gas > 0:
        from_bubble = np.hypot(x - 0.34, 1.4 * (y - a.dome - 0.1 - a.stomach_gas))
        tissue = tissue - 0.25 * step(a.stomach_gas - from_bubble, 0.015)
    return tissue


def heart(a: Anatomy, x: Field, y: Field) -> Field:
    """Heart and great vessels (H, W), 0..1, between two borders that swell towards the dome."""
    down = np.clip((y - a.heart_top) / (a.dome - a.heart_top), 0, 1.3)
    vessel_width = a.spine_width + 0.045
    left = vessel_width + (a.heart_left - vessel_width) * np.sin(1.75 * down) ** 1.6
    left = left + 0.05 * bump(y - a.heart_top + 0.17, 0.06)  # aortic knob
    right = vessel_width + (a.heart_right - vessel_width) * np.sin(1.5 * down) ** 2
    return step(left - x, 0.013) * step(right + x, 0.013)


def vessels(rng: np.random.Generator, a: Anatomy, x: Field, y: Field) -> Field:
    """Vessel trees (H, W), 0..1, that leave both hila, fork and fade to the outside."""
    height, width = x.shape
    scale = 2  # drawn twice as fine, or thin branches would be as thick as thick ones
    canvas = Image.new("L", (width * scale, height * scale))
    pen = ImageDraw.Draw(canvas)
    per_unit = scale * (height - 1) / float(y[-1, 0] - y[0, 0])
    # (x, y, heading, length, calibre), the heading in radians from the patient's outside
    for side in (-1, 1):
        hilum = (side * 0.16, a.dome - 0.45 + rng.normal(0, 0.03))
        branches = [
            (*hilum, angle + rng.normal(0, 0.2), 0.1, 1.0) for angle in np.linspace(-1.3, 1.4, 7)
        ]
        while branches:
            x0, y0, heading, length, calibre = branches.pop()
            x1 = x0 + side * length * np.cos(heading)
            y1 = y0 + length * np.sin(heading)
            column = [(px - float(x[0, 0])) * per_unit for px in (x0, x1)]
            row = [(py - float(y[0, 0])) * per_unit for py in (y0, y1)]
            thick = max(1, round(0.022 * calibre * per_unit))
            pen.line((column[0], row[0], column[1], row[1]), int(200 * calibre), thick)
            if calibre > 0.28:
                fork = rng.uniform(0.1, 0.6)
                for turn, thinner in ((-fork, 0.78), (fork * 0.8, 0.66)):
                    length_next = length * rng.uniform(0.7, 1.05)
                    branches.append((x1, y1, heading + turn, length_next, calibre * thinner))
    drawn = np.asarray(canvas.resize((width, height), Image.Resampling.BOX), np.float64) / 255
    blurred: Field = gaussian_filter(drawn, 0.005 * height)
    hila = bump(np.abs(x) - 0.2, 0.055) * bump(y - a.dome + 0.42, 0.12)
    return np.maximum(blurred, 0.6 * hila)


class Lungs(NamedTuple):
    """Fields (H, W)."""

    inside: Field  # 1 inside the rib cage above the diaphragm, 0 outside, soft in between
    air: Field  # thickness of air, vessels taken away


def lungs(rng: np.random.Generator, a: Anatomy, x: Field, y: Field) -> Lungs:
    """Both lung fields of a chest on the grid of points (x, y)."""
    down = np.clip((y - a.apex) / (a.dome - a.apex), 0, 1)
    inner = a.spine_width + 0.02 + 0.11 * np.exp(-down / 0.1)
    inside = step(chest_wall(a, y) - np.abs(x), 0.010) * step(np.abs(x) - inner, 0.012)
    inside = inside * step(diaphragm(a, x) - y, 0.009)
    lateral = np.minimum(np.abs(x) / a.chest_width, 1)
    thickness = a.inflation * (0.72 + 0.28 * np.sqrt(down)) * (1 - 0.45 * lateral**3)
    thickness = thickness * (1 - 0.8 * heart(a, x, y))
    texture = 1 - 0.5 * vessels(rng, a, x, y) - 0.025 * smooth_noise(rng, x.shape, 2.0)
    return Lungs(inside, inside * thickness * np.clip(texture, 0, 1))


def ribs(rng: np.random.Generator, a: Anatomy, x: Field, y: Field) -> Field:
    """Thickness (H, W) of the ribs: bands by a periodic phase, denser where the cage turns away."""
    outward = np.abs(x) / np.maximum(chest_wall(a, y), 0.05)  # 1 where a rib turns to the front
    side_shift = np.where(x < 0, rng.normal(0, 0.1), rng.normal(0, 0.1))
    wobble = 0.12 * smooth_noise(rng, x.shape, 0.12 * x.shape[0])
    droop = a.rib_slope * (np.abs(x) / a.chest_width - 0.3) ** 2
    phase = (y - droop) / a.rib_spacing + side_shift + wobble

    def band(turns: Field, sharpness: float) -> Field:
        return np.exp(sharpness * (np.cos(2 * np.pi * turns) - 1))

    # A tube is brighter at its two edges (cortex) than inside.
    posterior = band(phase, 2.0) - 0.35 * band(phase, 12.0)
    front = (y + 0.5 * outward) / (1.2 * a.rib_spacing) - side_shift + wobble
    anterior = 0.45 * band(front, 2.5) * step(outward - 0.45, 0.06)
    rim = 1.0 * bump(outward - 1.0, 0.03) * (0.5 + band(phase, 1.5))
    cage = step(1.04 - outward, 0.012) * step(y - a.apex - 0.03, 0.015)
    below = 1 - 0.8 * step(y - a.dome - 0.15, 0.08)
    return a.rib_density * cage * below * (posterior + anterior + rim)


def other_bones(a: Anatomy, x: Field, y: Field) -> Field:
    """Thickness (H, W) of spine, clavicles, shoulder blades and upper arms."""
    side = np.abs(x)
    vertebra = np.cos(2 * np.pi * y / (0.85 * a.rib_spacing))
    spine = step(a.spine_width * (1 + 0.06 * vertebra) - side, 0.014) * (0.22 + 0.04 * vertebra)
    trachea = 0.16 * bump(x + 0.01, 0.035) * step(-0.3 - y, 0.06)
    along = np.clip((side - 0.1) / (a.chest_width - 0.1), 0, 1)  # a clavicle is a flat S
    course = a.clavicle + 0.05 - a.clavicle_rise * along - 0.04 * np.sin(2 * np.pi * along)
    ends = step(side - 0.1, 0.015) * step(a.chest_width - side, 0.015)
    clavicle = ends * bump(y - course, 0.024)
    shoulder = (a.chest_width + 0.14, -0.62)
    elbow = (shoulder[0] + np.cos(a.arm_angle), shoulder[1] + np.sin(a.arm_angle))
    humerus = capsule(side, y, shoulder, elbow, 0.07) + 0.4 * capsule(
        side, y, shoulder, (shoulder[0] + 0.02, shoulder[1]), 0.11
    )
    tip = (a.chest_width - 0.04, -0.05)
    blade = capsule(side, y, (a.chest_width + 0.06, -0.55), tip, 0.10)
    return spine - trachea + 0.26 * clavicle + 0.08 * blade + 0.18 * humerus


def consolidation(rng: np.random.Generator, lung: Lungs, x: Field, y: Field) -> Field:
    """Lobar pneumonia (H, W): share 0..1 of air turned to fluid in one or two ragged regions."""
    height = x.shape[0]
    candidates = np.flatnonzero(lung.air > 0.75 * np.quantile(lung.air[lung.inside > 0.5], 0.9))
    filled = np.zeros_like(x)
    for _ in range(1 + int(rng.random() < 0.3)):
        centre = int(rng.choice(candidates))
        dx = (x - x.flat[centre]) / rng.uniform(0.18, 0.48)
        dy = (y - y.flat[centre]) / rng.uniform(0.2, 0.6)
        ragged = 0.16 * smooth_noise(rng, x.shape, 0.05 * height)
        reach = 1.15 - np.hypot(dx, dy) + ragged
        same_lung = step(x * np.sign(x.flat[centre]), 0.01)
        filled = np.maximum(filled, same_lung * np.clip(reach / 0.55, 0, 1) ** 1.5)
    if rng.random() < 0.25:  # fluid that blunts a costophrenic angle
        level = np.quantile(y[lung.inside > 0.5], rng.uniform(0.86, 0.95))
        side = rng.choice((-1.0, 1.0))
        meniscus = y - level + 0.5 * np.maximum(0, side * x - 0.3) ** 2 - 0.03
        filled = np.maximum(filled, np.clip(meniscus / 0.1, 0, 1) * step(side * x, 0.01))
    return rng.uniform(0.3, 0.95) * filled


def interstitial_haze(rng: np.random.Generator, lung: Lungs, x: Field, y: Field) -> Field:
    """Viral pneumonia (H, W): share 0..1 of air lost in patches and streaks around both hila."""
    height = x.shape[0]
    patches = smooth_noise(rng, x.shape, 0.055 * height)
    streaks = smooth_noise(rng, x.shape, 0.009 * height)
    hilar_row = np.quantile(y[lung.inside > 0.5], rng.uniform(0.5, 0.7))
    near_hilum = bump(np.abs(x) - 0.27, 0.22) * bump(y - hilar_row, 0.36)
    share = np.clip(1.5 * near_hilum + 0.35 * patches - 0.55, 0, 1) * (0.8 + 0.2 * streaks)
    return rng.uniform(0.35, 0.85) * np.clip(share, 0, 1)


def step(distance: Field, softness: float) -> Field:
    """Smooth 0 → 1 where ``distance`` crosses zero."""
    rise: Field = 0.5 * (1 + np.tanh(distance / (2 * softness)))
    return rise


def bump(distance: Field, width: float) -> Field:
    """Gaussian profile with its peak of 1 at ``distance`` zero."""
    return np.exp(-0.5 * np.square(distance / width))


def capsule(
    x: Field, y: Field, start: tuple[float, float], end: tuple[float, float], radius: float
) -> Field:
    """Thickness (H, W), 0..1, of a round rod between two points, seen from the side."""
    dx, dy = end[0] - start[0], end[1] - start[1]
    along = np.clip(((x - start[0]) * dx + (y - start[1]) * dy) / (dx * dx + dy * dy), 0, 1)
    squared = np.square(x - start[0] - along * dx) + np.square(y - start[1] - along * dy)
    thickness: Field = np.sqrt(np.maximum(0, 1 - squared / radius**2))
    return thickness


def smooth_noise(rng: np.random.Generator, shape: tuple[int, int], sigma: float) -> Field:
    """Noise (H, W) of mean 0 and standard deviation 1; ``sigma`` is its grain in pixels."""
    noise = gaussian_filter(rng.standard_normal(shape), sigma, mode="wrap")
    standardised: Field = (noise - noise.mean()) / noise.std()
    return standardised
