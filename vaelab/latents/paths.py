"""Places in a latent space that are worth decoding: draws, ways between two, one unit at a time."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch

from vaelab.metrics.latent import active_units

LINEAR, SPHERICAL = "linear", "spherical"


class Means(NamedTuple):
    """Where subjects lie."""

    ids: list[str]
    mu: np.ndarray
    """(N, z)."""


class Places(NamedTuple):
    """Points of a latent space in rows and columns."""

    name: str
    z: np.ndarray
    """(rows, columns, z) float32."""
    rows: list[str]
    columns: list[str]
    title: str


def prior_samples(count: int, z_dim: int, temperature: float, seed: int) -> Places:
    """Draws from N(0, temperature² I), in one row."""
    draw = np.random.default_rng(seed).standard_normal((1, count, z_dim))
    prior = "N(0, I)" if temperature == 1 else f"N(0, {temperature:g}² I)"
    title = f"Samples from the prior, z ~ {prior}, seed {seed}"
    names = [str(number) for number in range(count)]
    return Places("samples", (temperature * draw).astype(np.float32), [""], names, title)


def interpolation(start: Means, end: Means, steps: int, path: str) -> Places:
    """From one subject's mu to another's, both ends included, in one row."""
    way = spherical if path == SPHERICAL else linear
    shares = np.linspace(0, 1, steps)
    z = np.stack([way(start.mu[0], end.mu[0], float(share)) for share in shares])[None]
    names = [f"{100 * share:.0f} %" for share in shares]
    title = f"From {start.ids[0]} to {end.ids[0]}, {path} in mu"
    return Places("interpolation", z.astype(np.float32), [""], names, title)


def traversal(subjects: Means, units: int, steps: int, reach: float, split: str) -> Places:
    """One row for each of the units whose mu varies most, the others at their mean.

    Activity is the variance of mu over subjects, in Burda et al. 2016 (arXiv:1509.00519),
    section 5.2. A row goes from ``-reach`` to ``+reach`` standard deviations of that unit's mu.
    """
    variance = subjects.mu.astype(np.float64).var(0, ddof=1)
    order = np.argsort(-variance, kind="stable")[:units]
    sizes = np.linspace(-reach, reach, steps)
    z = np.tile(subjects.mu.astype(np.float64).mean(0), (len(order), steps, 1))
    for row, unit in enumerate(order):
        z[row, :, unit] += sizes * np.sqrt(variance[unit])
    names = [f"{size:+.3g} sd" if size else "mean" for size in sizes]
    active = active_units(torch.from_numpy(subjects.mu))
    title = (
        f"The {len(order)} units whose mu varies most over {len(subjects.ids)} subjects of {split} "
        f"({active} of {len(variance)} units active)"
    )
    rows = [f"unit {unit}" for unit in order]
    return Places("traversal", z.astype(np.float32), rows, names, title)


def linear(start: np.ndarray, end: np.ndarray, share: float) -> np.ndarray:
    """The point at ``share`` of the way on the straight line from (z,) to (z,)."""
    point: np.ndarray = (1 - share) * start + share * end
    return point


def spherical(start: np.ndarray, end: np.ndarray, share: float) -> np.ndarray:
    """The point at ``share`` of the angle between two vectors, (z,); linear where there is none.

    Shoemake 1985, section 3.3; White 2016 (arXiv:1609.04468) for latent spaces.
    """
    lengths = float(np.linalg.norm(start) * np.linalg.norm(end))
    cosine = float(np.clip(start @ end / lengths, -1, 1)) if lengths else 1.0
    angle = float(np.arccos(cosine))
    if np.sin(angle) < 1e-6:
        return linear(start, end, share)
    weights = np.sin([(1 - share) * angle, share * angle]) / np.sin(angle)
    point: np.ndarray = weights[0] * start + weights[1] * end
    return point


def farthest(subjects: Means) -> list[str]:
    """Ids of the two subjects whose mu are farthest apart; none where there are not two."""
    mu = subjects.mu.astype(np.float64)
    squares = (mu**2).sum(1)
    apart = squares[:, None] + squares - 2 * mu @ mu.T
    first, second = np.unravel_index(apart.argmax(), apart.shape)
    return [subjects.ids[first], subjects.ids[second]] if first != second else []
