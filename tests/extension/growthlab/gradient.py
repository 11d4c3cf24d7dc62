"""A score that needs gradients: how the loss of an image changes with its pixels."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from vaelab.models.vae import VAE


class GradientScore:
    """Norm of the gradient of the KL at each pixel (Zimmerer et al. 2019, arXiv:1907.12258)."""

    needs_gradients = True

    def __init__(self) -> None:
        self.model: VAE | None = None
        self.device = torch.device("cpu")

    def use(self, model: VAE, device: torch.device) -> None:
        """Take the network."""
        self.model, self.device = model, device

    def map(self, x: Tensor, output: Any) -> Tensor:
        """|d KL / d x| averaged over channels, (B, ...)."""
        assert self.model is not None
        image = x.to(self.device).clone().requires_grad_()
        mu, logvar = self.model.encode(image)
        kl = 0.5 * (mu.square() + logvar.exp() - 1 - logvar).sum()
        (gradient,) = torch.autograd.grad(kl, image)
        return gradient.abs().mean(1).cpu()

    def __call__(self, x: Tensor, output: Any) -> Tensor:
        """Sum of the map, (B,)."""
        return self.map(x, output).flatten(1).sum(1)
