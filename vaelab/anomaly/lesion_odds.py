"""Where is an opacity, and is there one? Evidence of each pixel times where opacities lie.

The score is of radiographs whose thoraces lie alike, see ``dataset.register``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from vaelab.anomaly.maps import smoothed_map
from vaelab.anomaly.scores import FittedScore, ModelScore, Normals, Score, map_of, score_of
from vaelab.data.xray.registration import read_thorax
from vaelab.errors import UserError
from vaelab.models.vae import VAE, VAEOutput

LIMIT = 6.0  # deviations that a single pixel's evidence is cut at
FLOOR = 0.03  # grey levels of [0, 1] below which local contrast is noise
NOISE = 0.01  # grey levels below which the variance of a window is not to be correlated
CORRELATED = 0.047  # sigma of that window, as a share of the side: 3 pixels of 64
LEAST_NORMALS = 10  # that a deviation of each pixel can be learned from


class LesionOdds:
    """Odds of a lesion, summed over the image.

    With c(x) the image in units of its own local contrast and r = c(x) - c(x̂) the residual,
    smoothed, and z its deviation, at each pixel, from those of normal images that the network did
    not see, in units of theirs,

        score = log sum over pixels of
                prior · exp(slope · (z(r) + z(r - mirrored r) + structure · z(-corr(x, x̂))))

    If z is Gaussian, and shifted by a lesion, exp(slope · z) is the likelihood ratio of a lesion up
    to a factor, and the terms are posterior odds. The sign counts: fluid is brighter than the air
    that it replaces. So does the other lung, the best reference that a patient has, and whether
    image and reconstruction go together (local correlation): an opacity hides borders of the heart
    and the diaphragm.

    Args:
        local: sigma, as a share of the image's side, of the window that contrast is local to.
        sigma: of the smoothing, as a share of the side.
        slope: of the log-likelihood ratio, per deviation; larger is closer to the maximum.
        structure: weight of the local correlation; 0 leaves it out.
        centre: (x, y) of the right half's prior as shares of the width and height.
        spread: its deviations, likewise; the left half's is its mirror image.

    Raises:
        UserError: for a value that is not positive.
    """

    def __init__(
        self,
        local: float = 0.19,
        sigma: float = 0.0625,
        slope: float = 0.2,
        structure: float = 0.5,
        centre: Sequence[float] = (0.73, 0.7),
        spread: Sequence[float] = (0.12, 0.2),
    ) -> None:
        values = {"local": local, "sigma": sigma, "slope": slope}
        values |= {"spread": min(spread), "centre": min(centre)}
        if not 0 <= structure < math.inf:
            raise UserError(f"score.structure={structure}: cannot be negative; 0 leaves it out")
        for key, value in values.items():
            if not 0 < value < math.inf:
                raise UserError(f"score.{key}={value}: must be above 0")
        self.local = local
        self.sigma = sigma
        self.slope = slope
        self.structure = structure
        self.centre = list(centre)
        self.spread = list(spread)
        self.normal: dict[str, tuple[Tensor, Tensor]] = {}

    def fit(self, train: Normals, held_out: Normals) -> None:
        """Learn mean and deviation of the evidence at each pixel, on images held out.

        Raises:
            UserError: for less than ten of these.
        """
        parts = [self._evidence(x, output) for x, output in held_out()]
        count = sum(len(x) for part in parts for x in list(part.values())[:1])
        if count < LEAST_NORMALS:
            raise UserError(
                f"score: {count} held-out normal images are too few for the deviation of each "
                f"pixel; at least {LEAST_NORMALS} are needed, raise dataset.val_split"
            )
        for name in parts[0]:
            values = torch.cat([part[name] for part in parts])  # (N, H, W)
            deviation = values.std(0) + 0.01 * values.std()
            self.normal[name] = values.mean(0), deviation.clamp_min(1e-6)

    def __call__(self, x: Tensor, output: VAEOutput) -> Tensor:
        """Logarithm of the sum for each image of (B, 1, H, W), (B,)."""
        return self.map(x, output).flatten(1).sum(1).log()

    def map(self, x: Tensor, output: VAEOutput) -> Tensor:
        """The terms of the sum, (B, H, W)."""
        assert self.normal, "fit comes first"
        total = torch.zeros_like(x[:, 0])
        for name, values in self._evidence(x, output).items():
            mean, deviation = (part.to(x.device) for part in self.normal[name])
            deviations = ((values - mean) / deviation).clamp(-LIMIT, LIMIT)
            total = total + (self.structure if name == "structure" else 1.0) * deviations
        return self.prior(x.shape[2:]).to(x.device) * (self.slope * total).exp()

    def prior(self, shape: Sequence[int]) -> Tensor:
        """Share of opacities at each pixel, (H, W), with sum 1."""
        (x, y), (wide, high) = self.centre, self.spread
        rows, columns = ((torch.arange(side) + 0.5) / side for side in shape)
        down = torch.exp(-0.5 * ((rows - y) / high) ** 2)
        across = sum(torch.exp(-0.5 * ((columns - middle) / wide) ** 2) for middle in (x, 1 - x))
        weight = down[:, None] * across
        return weight / weight.sum()

    def _evidence(self, x: Tensor, output: VAEOutput) -> dict[str, Tensor]:
        """Name → (B, H, W)."""
        side = min(x.shape[2:])
        residual = self._contrast(x, side) - self._contrast(output.x_hat, side)
        asymmetry = residual - residual.flip(-1)
        sigma = self.sigma * side
        return {
            "brightness": smoothed_map(residual, sigma),
            "asymmetry": smoothed_map(asymmetry, sigma),
            "structure": -_local_correlation(x, output.x_hat, CORRELATED * side),
        }

    def _contrast(self, image: Tensor, side: int) -> Tensor:
        """An image (B, 1, H, W) less its local mean, in local deviations, (B, H, W)."""
        grey, sigma = image[:, 0].float(), self.local * side
        offset = grey - smoothed_map(grey, sigma)
        return offset / (smoothed_map(offset.square(), sigma) + FLOOR**2).sqrt()


def _local_correlation(x: Tensor, x_hat: Tensor, sigma: float) -> Tensor:
    """Of two images, both (B, 1, H, W), within a Gaussian window, (B, H, W) in [-1, 1]."""
    first, second = x[:, 0].float(), x_hat[:, 0].float()
    mean, other = smoothed_map(first, sigma), smoothed_map(second, sigma)
    together = smoothed_map(first * second, sigma) - mean * other
    variance, other_variance = (
        (smoothed_map(image.square(), sigma) - centre.square()).clamp_min(0) + NOISE**2
        for image, centre in ((first, mean), (second, other))
    )
    return together / (variance * other_variance).sqrt()


class ByRegistration:
    """One score where a run registers its radiographs, another where it leaves them as they are.

    So a recipe follows ``dataset.register=auto``, which decides on normal images alone.

    Args:
        scores: ``registered`` and ``otherwise``.
        thorax: the run's file that says which it is, ``thorax.json`` beside its splits.
    """

    def __init__(self, scores: Mapping[str, Score], thorax: str) -> None:
        self.scores = dict(scores)
        # Not kept as ``thorax``: where a run folder lies is nothing that its scores depend on.
        self._path = Path(thorax)
        self._chosen: Score | None = None

    @property
    def chosen(self) -> Score:
        """The one that the run uses."""
        if self._chosen is None:
            registered = read_thorax(self._path) is not None
            self._chosen = self.scores["registered" if registered else "otherwise"]
        return self._chosen

    def use(self, model: VAE, device: torch.device) -> None:
        """Hand the network on."""
        for score in self.scores.values():
            if isinstance(score, ModelScore):
                score.use(model, device)

    def fit(self, train: Normals, held_out: Normals) -> None:
        """Fit the score in use."""
        if isinstance(self.chosen, FittedScore):
            self.chosen.fit(train, held_out)

    def __call__(self, x: Tensor, output: VAEOutput) -> Tensor:
        """Score of each sample, (B,)."""
        return score_of(self.chosen, x, output)

    def map(self, x: Tensor, output: VAEOutput) -> Tensor | None:
        """Its evidence, (B, ...)."""
        return map_of(self.chosen, x, output)
