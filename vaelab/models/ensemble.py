"""Several VAEs that are trained separately and averaged in evaluation."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from vaelab.errors import UserError
from vaelab.models.vae import VAE, VAEOutput


class EnsembleVAE(VAE):
    """VAEs side by side, whose reconstructions are averaged (Lakshminarayanan et al. 2017).

    From outside it is one VAE: its latent space is the product of the members' spaces, its decoder
    the mean of their decoders. In training each sample goes to one member, so that members differ
    in their initial weights and in the samples they see; the units of the other members stay at the
    prior and cost no KL. An epoch costs what an epoch of one member costs, and each of n members
    sees 1/n of the samples: use n times the batch size and n times the epochs to train every member
    like a single VAE. In evaluation all members see every sample, and the KL is the sum of theirs.

    Args:
        member: constructor of a member; called ``num_members`` times.
        num_members: number of members, at least 1.

    Raises:
        UserError: when ``num_members`` is below 1.
    """

    def __init__(self, member: Callable[[], VAE], num_members: int = 3) -> None:
        if num_members < 1:
            raise UserError(f"model.num_members={num_members}: at least 1 is needed; try 3")
        super().__init__()
        self.members = nn.ModuleList(member() for _ in range(num_members))
        self.z_dims = [vae.z_dim for vae in self._vaes()]
        self.z_dim = sum(self.z_dims)

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Posterior means and log-variances of all members, one after another, both (B, z)."""
        mu, logvar = zip(*(vae.encode(x) for vae in self._vaes()), strict=True)
        return torch.cat(mu, 1), torch.cat(logvar, 1)

    def decode(self, z: Tensor) -> Tensor:
        """Mean of what the members decode from their own units, (B, z) → (B, C, ...)."""
        units = torch.split(z, self.z_dims, 1)
        decoded = [vae.decode(part) for vae, part in zip(self._vaes(), units, strict=True)]
        return torch.stack(decoded).mean(0)

    def forward(self, x: Tensor) -> VAEOutput:
        """Reconstruct each sample by one member in training, by all members in evaluation."""
        if not self.training:
            return super().forward(x)
        parts = x.chunk(len(self.members))  # fewer than members where the batch is smaller
        outputs = [vae(part) for vae, part in zip(self._vaes(), parts, strict=False)]
        starts = [sum(self.z_dims[:index]) for index in range(len(outputs))]
        blocks = [
            (start, self.z_dim - start - output.mu.shape[1])
            for start, output in zip(starts, outputs, strict=True)
        ]
        return VAEOutput(
            torch.cat([output.x_hat for output in outputs]),
            torch.cat([pad(o.mu, block) for o, block in zip(outputs, blocks, strict=True)]),
            torch.cat([pad(o.logvar, block) for o, block in zip(outputs, blocks, strict=True)]),
        )

    def _vaes(self) -> list[VAE]:
        return [vae for vae in self.members if isinstance(vae, VAE)]
