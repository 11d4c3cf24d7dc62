"""MONAI's ``VarAutoEncoder`` as a model of vaelab, for comparison."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from monai.networks.nets import VarAutoEncoder
from torch import Tensor, nn

from vaelab.errors import UserError
from vaelab.models.encoder_decoder import EncoderDecoderVAE


class MonaiVAE(EncoderDecoderVAE):
    """The layers of MONAI's ``VarAutoEncoder`` between vaelab's latent heads.

    Every level halves the image. MONAI's own class returns mean *plus standard deviation* as z
    in evaluation mode (MONAI#8413), and does not bound logvar; here both are as in
    ``EncoderDecoderVAE``.

    Args:
        image_size: (H, W) or (D, H, W).
        input_channels: channels of an image.
        z_dim: number of latent units.
        channels: of each level.
        num_res_units: convolutions per level.

    Raises:
        UserError: when the image cannot be halved once per level.
    """

    def __init__(
        self,
        image_size: Sequence[int],
        input_channels: int = 4,
        z_dim: int = 128,
        channels: Sequence[int] = (32, 64, 128, 256),
        num_res_units: int = 2,
    ) -> None:
        step = 2 ** len(channels)
        if any(side < step or side % step for side in image_size):
            raise UserError(
                f"model.image_size={list(image_size)}: each side must be a positive multiple of "
                f"{step}, for {len(channels)} levels"
            )
        net = VarAutoEncoder(
            spatial_dims=len(image_size),
            in_shape=(input_channels, *image_size),
            out_channels=input_channels,
            latent_size=z_dim,
            channels=tuple(channels),
            strides=(2,) * len(channels),
            num_res_units=num_res_units,
        )
        super().__init__(
            encoder=nn.Sequential(net.encode, net.intermediate, nn.Flatten()),
            decoder=_Decoder(net),
            features=net.mu.in_features,
            z_dim=z_dim,
        )


class _Decoder(nn.Module):
    """``VarAutoEncoder.decode_forward`` without its sigmoid: images are z-scored."""

    def __init__(self, net: VarAutoEncoder) -> None:
        super().__init__()
        self.shape = (net.channels[-1], *(int(side) for side in net.final_size))
        self.project = net.decodeL
        self.stages = net.decode

    def forward(self, z: Tensor) -> Tensor:
        """(B, z) → (B, C, ...)."""
        h: Tensor = self.project(z)
        x_hat: Tensor = self.stages(torch.relu(h).reshape(-1, *self.shape))
        return x_hat
