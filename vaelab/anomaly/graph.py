"""A trained run as modules of plain tensors, which can leave for ONNX and ``torch.export``."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from vaelab.anomaly.calibration import ConformalCalibration
from vaelab.anomaly.maps import residual_map, smoothed_map
from vaelab.anomaly.scores import Score
from vaelab.data.contract import OriginalsInGraph
from vaelab.models.vae import VAE


class Encoder(nn.Module):
    """The network's first half."""

    def __init__(self, model: VAE) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(B, C, ...) → mu and logvar, both (B, z)."""
        return self.model.encode(x)


class Decoder(nn.Module):
    """The network's second half."""

    def __init__(self, model: VAE) -> None:
        super().__init__()
        self.model = model

    def forward(self, z: Tensor) -> Tensor:
        """(B, z) → x_hat, (B, C, ...)."""
        return self.model.decode(z)


class Network(nn.Module):
    """All of it, with z = mu."""

    def __init__(self, model: VAE) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """(B, C, ...) → all that the model says, x_hat, mu and logvar first."""
        return tuple(self.model(x))


class Verdict(NamedTuple):
    """What a detector says of a batch; the last two are absent without a calibration."""

    score: Tensor
    """(B,), larger is more abnormal."""
    map: Tensor
    """Of the spatial shape of the input."""
    p_value: Tensor | None = None
    """Conformal, (B,)."""
    flag: Tensor | None = None
    """1 is abnormal at alpha, (B,) int64."""


class Detector(nn.Module):
    """An image in; score, map, p-value and flag out.

    Args:
        model: a trained one, in evaluation mode.
        score: fitted where it has to be.
        map_sigma: see ``AnomalyDetector``.
        originals: prepares what comes in; None: samples come in as the network sees them.
        calibration: of the score; None where there is none.
        alpha: tolerated share of healthy images flagged.
    """

    def __init__(
        self,
        model: VAE,
        score: Score,
        map_sigma: float,
        originals: OriginalsInGraph | None,
        calibration: ConformalCalibration | None,
        alpha: float,
    ) -> None:
        super().__init__()
        self.model = model
        self.score = score
        self.map_sigma = map_sigma
        self.originals = originals
        self.alpha = alpha
        self.healthy: Tensor | None = None
        if calibration is not None:
            self.healthy = torch.tensor(calibration.scores, dtype=torch.float32)

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """Originals (B, ...) or samples (B, C, ...) → a ``Verdict`` less what is None."""
        x, box = (image, image) if self.originals is None else self.originals.prepared(image)
        output = self.model(x)
        score = self.score(x, output).float()
        evidence = getattr(self.score, "map", None)
        heatmap = None if evidence is None else evidence(x, output)
        if heatmap is None:
            heatmap = residual_map(x, output.x_hat)
        heatmap = smoothed_map(heatmap.float(), self.map_sigma)
        if self.originals is not None:
            heatmap = self.originals.restored(heatmap, box, image)
        if self.healthy is None:
            return score, heatmap
        p_value = (1 + (self.healthy >= score[:, None]).sum(1)) / (len(self.healthy) + 1)
        return score, heatmap, p_value, (p_value <= self.alpha).long()
