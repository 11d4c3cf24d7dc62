"""AnomalyDetector: an image in; a reconstruction, a heat map and a score out."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor

from vaelab.anomaly.maps import residual_map, smoothed_map
from vaelab.anomaly.scores import ModelScore, Score, map_of, score_of
from vaelab.errors import UserError
from vaelab.models.vae import VAE


class Prediction(NamedTuple):
    """What the detector says of a batch."""

    x_hat: Tensor
    """Reconstruction, (B, C, ...)."""
    heatmap: Tensor
    """The score's own map, or |x - x_hat| averaged over channels where it has none; smoothed,
    (B, ...)."""
    score: Tensor
    """Anomaly score, (B,), larger is more abnormal."""
    output: Any
    """All that the VAE said, a NamedTuple that begins with ``x_hat, mu, logvar``."""
    shows_score: bool
    """Whether ``heatmap`` is the score's own."""


class AnomalyDetector:
    """Judges images by what a VAE of healthy anatomy cannot explain.

    Args:
        model: a trained VAE; it is put into evaluation mode, so that results are deterministic.
        score: turns an image and the VAE's output into a number.
        device: where to compute.
        map_sigma: of the Gaussian that smooths heat maps, in pixels or voxels; 0 leaves them.

    Raises:
        UserError: for a ``map_sigma`` that is negative or not finite.
    """

    def __init__(
        self,
        model: VAE,
        score: Score,
        device: torch.device | str = "cpu",
        map_sigma: float = 0.0,
    ) -> None:
        if not 0 <= map_sigma < math.inf:
            raise UserError(f"map_sigma={map_sigma}: pixels or voxels, from 0 on; try 1.5")
        self.map_sigma = map_sigma
        self.model = model.to(device).eval()
        self.score = score
        self.device = torch.device(device)
        if isinstance(score, ModelScore):
            score.use(self.model, self.device)

    def __call__(self, x: Tensor) -> Prediction:
        """Judge a batch, (B, C, ...); the result is on the CPU."""
        output = self.reconstruct(x)
        own = map_of(self.score, x, output)
        with torch.no_grad():
            heatmap = residual_map(x, output.x_hat) if own is None else own
            heatmap = smoothed_map(heatmap, self.map_sigma)
        score = score_of(self.score, x, output)
        return Prediction(output.x_hat, heatmap, score, output, own is not None)

    def reconstruct(self, x: Tensor) -> Any:
        """What the VAE says of a batch, (B, C, ...), in float32 on the CPU."""
        return reconstruct(self.model, x, self.device)


@torch.no_grad()  # not inference mode, whose tensors a score with gradients could not use
def reconstruct(model: VAE, x: Tensor, device: torch.device) -> Any:
    """What a VAE on ``device`` says of a batch, (B, C, ...), in float32 on the CPU."""
    output = model(x.to(device))
    return type(output)(*(part.float().cpu() for part in output))
