r"""MONAI's ``VarAutoEncoder`` as a model of vaelab, for comparison.

Beside Exp1's network, as many epochs as fit into nine minutes of steps on two CPU cores (0.31 and
0.46 s a step alone), 340 + 60 phantoms at 4×64³, z 128, batch 2 (2026-11-23)::

    python -m vaelab.run -m experiment=exp1_baseline_vae dataset=phantom_mri annealing=constant \
      dataset.phantoms.voxel_size=3.0 dataset.phantoms.num_patients=400 dataset.val_split=0.15 \
      dataset.phantoms.num_followups=0 'dataset.roi_size=[64,64,64]' 'dataset.spacing=[3,3,3]' \
      dataset.num_workers=0 dataset.seed=0 hardware=cpu hardware.channels_last=false \
      train.lr=1e-3 train.lr_final=0.05 train.max_epochs=10 train.monitor=val/neg_elbo \
      task.then=null train.seed=1,2,3

and the same with ``model=monai_vae '~model.base_filters' train.max_epochs=7``. Squared error of a
validation subject at the best epoch, in thousands: Exp1's network 119, 121, 122; this one 144, 149,
150. Of learning rates 3e-4, 1e-3 and 2e-3, tried for 3 minutes each, 1e-3 is the best for this one.
Steps of both are a tenth faster channels-last.
"""

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
