"""Anomaly scores: (x, what the VAE says of x) → (B,), larger is more abnormal.

A score is any callable of that signature. To add one, write a class like these and a file
in ``conf/score``. It may ask for more:

- ``fit``, of a score that has to know normal images first: it gets these and never a label;
- ``use``, of one that asks the network itself: it gets the trained network once;
- ``needs_gradients = True``: it is called with gradients enabled, which else are off;
- ``map``: where its evidence lies, (x, output) → (B, ...) of x's spatial shape: the share of each
  pixel or voxel, with the score's own sign, weights, standardisation and smoothing, so that a map
  adds up to the score. What has no place, such as the KL, has no map; pictures then show the plain
  residual and say so.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Protocol, runtime_checkable

import torch
from sklearn.covariance import LedoitWolf
from torch import Tensor
from torch.nn import functional

from vaelab.anomaly.maps import smoothed_map
from vaelab.errors import UserError
from vaelab.models.vae import VAE, VAEOutput
from vaelab.objective.elbo import kl_divergence, squared_error


class Score(Protocol):
    """What every score is."""

    def __call__(self, x: Tensor, output: VAEOutput) -> Tensor:
        """Score of each sample, (B,)."""
        ...


@runtime_checkable
class ModelScore(Protocol):
    """A score that asks the network itself."""

    def use(self, model: VAE, device: torch.device) -> None:
        """Take the trained network, in evaluation mode on its device."""
        ...

    def __call__(self, x: Tensor, output: VAEOutput) -> Tensor:
        """Score of each sample, (B,)."""
        ...


def score_of(score: Score, x: Tensor, output: VAEOutput) -> Tensor:
    """Score of each sample, (B,) float32, with the gradients that it needs."""
    with _gradients_for(score):
        return score(x, output).float().detach()


def map_of(score: Score, x: Tensor, output: VAEOutput) -> Tensor | None:
    """Where the evidence of a score lies, (B, ...); None where it has no place."""
    evidence: Callable[[Tensor, VAEOutput], Tensor | None] | None = getattr(score, "map", None)
    if evidence is None:
        return None
    with _gradients_for(score):
        values = evidence(x, output)
    return None if values is None else values.float().detach()


def _gradients_for(score: Score) -> torch.set_grad_enabled:
    return torch.set_grad_enabled(bool(getattr(score, "needs_gradients", False)))


Normals = Callable[[], Iterator[tuple[Tensor, VAEOutput]]]
"""Starts a pass over normal images: batches of x with what the VAE says of them."""


@runtime_checkable
class FittedScore(Protocol):
    """A score that learns from normal images before it judges."""

    def fit(self, train: Normals, held_out: Normals) -> None:
        """Learn from the images that the VAE was trained on and from others."""
        ...

    def __call__(self, x: Tensor, output: VAEOutput) -> Tensor:
        """Score of each sample, (B,)."""
        ...


class SquaredError:
    """Squared reconstruction error summed over the image (An & Cho 2015, with z = mu)."""

    def __call__(self, x: Tensor, output: VAEOutput) -> Tensor:
        """Score of each sample, (B,)."""
        return squared_error(x, output.x_hat)

    def map(self, x: Tensor, output: VAEOutput) -> Tensor:
        """Squared residual, summed over channels, (B, ...)."""
        return (x.float() - output.x_hat.float()).square().sum(1)


class KL:
    """KL of the posterior to the prior in nats (Zimmerer et al. 2018, arXiv:1812.05941).

    It has no place in the image, and so no map.
    """

    def __call__(self, x: Tensor, output: VAEOutput) -> Tensor:
        """Score of each sample, (B,)."""
        return kl_divergence(output.mu, output.logvar)


class NegativeELBO:
    """Squared error plus ``beta`` times the KL: minus the bound that was trained, per sample.

    The KL has no place: the map is that of the squared error.

    Args:
        beta: weight of the KL.
    """

    def __init__(self, beta: float = 1.0) -> None:
        self.beta = beta

    def __call__(self, x: Tensor, output: VAEOutput) -> Tensor:
        """Score of each sample, (B,)."""
        kl = kl_divergence(output.mu, output.logvar)
        return squared_error(x, output.x_hat) + self.beta * kl

    def map(self, x: Tensor, output: VAEOutput) -> Tensor:
        """Squared residual, summed over channels, (B, ...)."""
        return SquaredError().map(x, output)


class SmoothedResidual:
    """Mean absolute residual after averaging over blocks, summed over block sizes.

    Noise of single pixels is not evidence; structure of the size of an organ's part is. Averaging
    keeps what has one sign over a block (Baur et al. 2021, arXiv:2004.03271, section 3, on
    smoothing residuals).

    Args:
        blocks: sides of the blocks, in pixels or voxels.
    """

    def __init__(self, blocks: Sequence[int] = (4, 8, 16)) -> None:
        if not blocks or any(block < 1 for block in blocks):
            raise UserError(f"score.blocks={list(blocks)}: sides of at least 1 are needed; try [8]")
        self.blocks = list(blocks)

    def __call__(self, x: Tensor, output: VAEOutput) -> Tensor:
        """Score of each sample, (B,)."""
        return torch.stack([part.flatten(1).mean(1) for part in self._blocks(x, output)]).sum(0)

    def map(self, x: Tensor, output: VAEOutput) -> Tensor:
        """What each block adds to the score, evenly over its pixels, (B, ...)."""
        total = torch.zeros(x.shape[0], *x.shape[2:], device=x.device)
        for block, part in zip(self.blocks, self._blocks(x, output), strict=True):
            share = part.sum(1) / (part[0].numel() * block ** (x.dim() - 2))  # (B, cells)
            for axis in range(1, share.dim()):
                share = share.repeat_interleave(block, axis)
            # A margin narrower than a block is in none.
            total[(slice(None), *map(slice, share.shape[1:]))] += share
        return total

    def _blocks(self, x: Tensor, output: VAEOutput) -> list[Tensor]:
        """Absolute mean residual of each block, (B, C, cells) for each size."""
        residual = x.float() - output.x_hat.float()
        pool = functional.avg_pool3d if x.dim() == 5 else functional.avg_pool2d
        return [pool(residual, block).abs() for block in self.blocks]


class CentralResidual:
    """Smoothed residual of the centre of an X-ray, in units of the centre's own contrast.

    With r the residual, averaged down to a grid and smoothed, and w a weight of the centre,

        score = sum w (|r| + positive · max(r, 0)) / sd_w(x)

    The lungs lie in the centre; arms, text and collimation at the border tell of the machine.
    Division by the image's weighted standard deviation undoes a machine's contrast. ``positive``
    brings in what is known of pneumonia before any image is seen: it is brighter than the air that
    it replaces; 0 leaves this out.

    Args:
        grid: side of the grid that an image is averaged down to.
        sigma: of the Gaussian, in cells of the grid.
        width: of the weight exp(-(radius² / width)²), with the image's border at radius 1.
        positive: extra weight of what is brighter than its reconstruction.
    """

    def __init__(
        self, grid: int = 32, sigma: float = 1.5, width: float = 0.5, positive: float = 1.0
    ) -> None:
        if grid < 4 or not sigma > 0 or not width > 0 or positive < 0:
            raise UserError(
                f"score: grid={grid}, sigma={sigma}, width={width}, positive={positive}: a grid of "
                "at least 4, sigma and width above 0 and a positive of at least 0 are needed"
            )
        self.grid = grid
        self.sigma = sigma
        self.width = width
        self.positive = positive
        place = (torch.arange(grid) + 0.5) / (grid / 2) - 1  # centres of the cells, -1 to 1
        weight = torch.exp(-(((place[None] ** 2 + place[:, None] ** 2) / width) ** 2))
        self.weight = weight / weight.sum()  # (grid, grid)

    def __call__(self, x: Tensor, output: VAEOutput) -> Tensor:
        """Score of each image of (B, 1, H, W), (B,)."""
        return self._evidence(x, output).flatten(1).sum(1)

    def map(self, x: Tensor, output: VAEOutput) -> Tensor:
        """What each cell of the grid adds to the score, between cells linearly, (B, H, W)."""
        evidence = self._evidence(x, output)[:, None]
        height, width = x.shape[2:]
        smooth = functional.interpolate(
            evidence, (height, width), mode="bilinear", align_corners=False
        )
        return smooth[:, 0] * (self.grid**2 / (height * width))

    def _evidence(self, x: Tensor, output: VAEOutput) -> Tensor:
        """The terms of the sum, (B, grid, grid)."""
        image = functional.adaptive_avg_pool2d(x.float(), self.grid)[:, 0]  # (B, grid, grid)
        residual = functional.adaptive_avg_pool2d(x.float() - output.x_hat.float(), self.grid)
        residual = smoothed_map(residual[:, 0], self.sigma)
        mean = self._weighted(image)[:, None, None]
        contrast = self._weighted((image - mean).square()).sqrt().clamp_min(1e-3)
        evidence = residual.abs() + self.positive * residual.clamp_min(0)
        return self.weight.to(x.device) * evidence / contrast[:, None, None]

    def _weighted(self, values: Tensor) -> Tensor:
        return (values * self.weight.to(values.device)).flatten(1).sum(1)


class Mahalanobis:
    """Mahalanobis distance of mu to the latents of the training images.

    Lee et al. 2018 (arXiv:1807.03888), equation 2, with one class; the covariance is shrunk as
    Ledoit & Wolf 2004, since there may be as many units as images. It has no place in the image,
    and so no map.
    """

    def __init__(self) -> None:
        self.mean: Tensor | None = None
        self.precision: Tensor | None = None

    def fit(self, train: Normals, held_out: Normals) -> None:
        """Learn mean and covariance of the training latents."""
        mu = torch.cat([output.mu.double().cpu() for _, output in train()])
        estimate = LedoitWolf().fit(mu.numpy())
        self.mean = torch.from_numpy(estimate.location_)
        self.precision = torch.from_numpy(estimate.precision_)

    def __call__(self, x: Tensor, output: VAEOutput) -> Tensor:
        """Score of each sample, (B,)."""
        assert self.mean is not None, "fit comes first"
        assert self.precision is not None
        offset = output.mu.double().cpu() - self.mean  # (B, z)
        squared = ((offset @ self.precision) * offset).sum(1)
        return squared.clamp_min(0).sqrt().float().to(x.device)


class Fused:
    """Sum of scores, each standardised by its mean and deviation on held-out normal images.

    Args:
        scores: name → score.
    """

    def __init__(self, scores: Mapping[str, Score]) -> None:
        if not scores:
            raise UserError("score.scores: at least one score is needed")
        self.scores = dict(scores)
        self.scales: dict[str, tuple[float, float]] = {}

    def use(self, model: VAE, device: torch.device) -> None:
        """Hand the network to the members that ask for it."""
        for score in self.scores.values():
            if isinstance(score, ModelScore):
                score.use(model, device)

    def fit(self, train: Normals, held_out: Normals) -> None:
        """Fit every member, then learn its mean and deviation on images it was not fitted to."""
        for score in self.scores.values():
            if isinstance(score, FittedScore):
                score.fit(train, held_out)
        batches: dict[str, list[Tensor]] = {name: [] for name in self.scores}
        for x, output in held_out():
            for name, score in self.scores.items():
                batches[name].append(score_of(score, x, output).double().cpu())
        for name, values in batches.items():
            joined = torch.cat(values)
            self.scales[name] = (float(joined.mean()), max(float(joined.std()), 1e-12))

    def __call__(self, x: Tensor, output: VAEOutput) -> Tensor:
        """Score of each sample, (B,)."""
        assert self.scales, "fit comes first"
        total = torch.zeros(x.shape[0], device=x.device)
        for name, score in self.scores.items():
            mean, deviation = self.scales[name]
            total = total + (score_of(score, x, output) - mean) / deviation
        return total

    def map(self, x: Tensor, output: VAEOutput) -> Tensor | None:
        """The members' maps, each in its score's deviation, added up; None where none has one.

        Means of healthy images, which the score leaves out, have no place.
        """
        assert self.scales, "fit comes first"
        maps = {name: map_of(score, x, output) for name, score in self.scores.items()}
        parts = [part / self.scales[name][1] for name, part in maps.items() if part is not None]
        return torch.stack(parts).sum(0) if parts else None
