"""The negative evidence lower bound (ELBO), with exact sums.

Sums, never means: both terms keep their units, and beta means the same whatever the batch size.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from vaelab.objective.contract import Step


def squared_error(x: Tensor, x_hat: Tensor) -> Tensor:
    """Squared error of each sample, summed over channels and voxels, shape (B,), float32."""
    return (x.float() - x_hat.float()).square().flatten(1).sum(1)


def kl_per_dimension(mu: Tensor, logvar: Tensor) -> Tensor:
    """Closed-form KL to N(0, 1) of each latent unit in nats, shape (B, z), float32.

    Kingma & Welling 2014, appendix B: 1/2 (mu^2 + sigma^2 - 1 - log sigma^2).
    """
    mu, logvar = mu.float(), logvar.float()
    # expm1 keeps the result non-negative and exact near logvar = 0, where exp(logvar) - 1 cancels.
    return 0.5 * (mu.square() + torch.expm1(logvar) - logvar)


def kl_divergence(mu: Tensor, logvar: Tensor) -> Tensor:
    """Closed-form KL of each sample in nats, summed over latents, shape (B,), float32."""
    return kl_per_dimension(mu, logvar).sum(1)


def compute_elbo(
    x: Tensor, x_hat: Tensor, mu: Tensor, logvar: Tensor, beta: float
) -> dict[str, Tensor]:
    """Negative ELBO of a batch, as exact sums in float32 whatever the autocast.

    Args:
        x: input, (B, C, ...).
        x_hat: reconstruction, shaped like ``x``.
        mu: posterior mean, (B, z).
        logvar: log posterior variance, (B, z); exp(logvar) must fit float32, i.e. stay below 88.
        beta: weight of the KL, at least 0.

    Returns:
        Exactly ``{"loss", "recon", "kl"}``, scalars: ``recon`` is the squared error summed
        over batch, channels and voxels; ``kl`` is in nats, summed over latents and batch;
        ``loss = recon + beta * kl``.

    Raises:
        ValueError: when ``x_hat`` is not shaped like ``x``, which broadcasting would hide.
    """
    if x.shape != x_hat.shape:
        raise ValueError(f"x_hat has shape {tuple(x_hat.shape)}, x has {tuple(x.shape)}")
    # Summed squares of 4x64^3 voxels already overflow float16, so autocast must not reach in here.
    with torch.autocast(device_type=x.device.type, enabled=False):
        recon = squared_error(x, x_hat).sum()
        kl = kl_divergence(mu, logvar).sum()
        return {"loss": recon + beta * kl, "recon": recon, "kl": kl}


class ELBOLoss(nn.Module):
    """``objective=elbo``, the default: ``compute_elbo`` of a batch at the beta of its epoch.

        loss = sum (x - x_hat)^2 + beta * KL(N(mu, diag exp(logvar)) || N(0, I))

    This is the negative ELBO of a decoder with Gaussian likelihood, up to scale and constant
    (Kingma & Welling 2014, arXiv:1312.6114, equation 7 and appendix B), with the factor beta of
    Higgins et al. 2017. By hand::

        x = torch.rand(2, 1, 32, 32)
        output = Conv2dVAE(image_size=(32, 32), z_dim=8)(x)
        step = Step(beta=1.0, epoch=0, train_samples=2, stage="train")
        sums = ELBOLoss()({"image": x}, output, step)
        sums["loss"].backward()
    """

    def forward(self, batch: Mapping[str, Any], output: Any, step: Step) -> dict[str, Tensor]:
        """Exactly ``{"loss", "recon", "kl"}``; see ``compute_elbo``."""
        return compute_elbo(batch["image"], output.x_hat, output.mu, output.logvar, step.beta)
