"""An ELBO whose squared error weighs bright voxels more, so that what is bright is in the code."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from vaelab.errors import UserError
from vaelab.objective.contract import Step
from vaelab.objective.elbo import kl_divergence


def brightness_weight(x: Tensor, gain: float, start: float, span: float) -> Tensor:
    """1 + gain · clamp(x - start, 0, span), of x's shape, in float32: from 1 to 1 + gain · span."""
    return 1 + gain * (x.float() - start).clamp(0, span)


class BrightELBOLoss(nn.Module):
    """``objective=bright_elbo``: sum w (x - x_hat)^2 + beta · KL, w of the input's brightness.

    A small tumour is a small part of the squared error of a brain, and the code leaves it out. No
    label is looked at: w = 1 + gain · clamp(x - start, 0, span), on series standardised within the
    brain, is above 1 where a voxel is brighter than ``start`` standard deviations. ``recon`` holds
    the weighted error, so that loss = recon + beta · kl; ``plain_recon`` is the unweighted sum,
    which other objectives call ``recon``.

    Args:
        gain: how much the weight grows with each standard deviation.
        start: standard deviations from where it grows.
        span: standard deviations over which it does.

    Raises:
        UserError: for a value that cannot work.
    """

    def __init__(self, gain: float = 4.0, start: float = 2.0, span: float = 4.0) -> None:
        super().__init__()
        for key, value in (("gain", gain), ("span", span)):
            if not 0 <= value < math.inf:
                raise UserError(f"objective.{key}={value}: a number from 0 on is needed; try 4")
        if not math.isfinite(start):
            raise UserError(f"objective.start={start}: a number is needed; try 2")
        self.gain, self.start, self.span = gain, start, span

    def forward(self, batch: Mapping[str, Any], output: Any, step: Step) -> dict[str, Tensor]:
        """``loss``, ``recon``, ``kl`` and ``plain_recon``, scalars, summed as ``compute_elbo``."""
        x = batch["image"]
        with torch.autocast(device_type=x.device.type, enabled=False):
            weight = brightness_weight(x, self.gain, self.start, self.span)
            error = (x.float() - output.x_hat.float()).square()
            recon = (weight * error).flatten(1).sum(1).sum()
            kl = kl_divergence(output.mu, output.logvar).sum()
            plain = error.flatten(1).sum(1).sum()
        return {"loss": recon + step.beta * kl, "recon": recon, "kl": kl, "plain_recon": plain}
