"""Exp1's network: a 3D ResNet encoder and a decoder of transposed convolutions.

He et al. 2016 (pre-activation residual blocks), Wu & He 2018 (GroupNorm). The first
convolution already halves the volume: at 128³ a residual block on the full or the half grid
would cost more than the rest of the network.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from vaelab.errors import UserError
from vaelab.models.encoder_decoder import EncoderDecoderVAE


def group_norm(channels: int) -> nn.GroupNorm:
    """GroupNorm with eight groups, or as many as divide the channels."""
    return nn.GroupNorm(math.gcd(8, channels), channels)


class ResidualBlock(nn.Module):
    """Pre-activation residual block; stride 2 halves every side (He et al. 2016, figure 4e)."""

    def __init__(self, channels_in: int, channels_out: int, stride: int = 1) -> None:
        super().__init__()
        self.norm1 = group_norm(channels_in)
        self.conv1 = nn.Conv3d(channels_in, channels_out, 3, stride, padding=1, bias=False)
        self.norm2 = group_norm(channels_out)
        self.conv2 = nn.Conv3d(channels_out, channels_out, 3, padding=1, bias=False)
        self.act = nn.SiLU(inplace=True)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or channels_in != channels_out:
            self.shortcut = nn.Sequential(
                nn.AvgPool3d(stride) if stride > 1 else nn.Identity(),
                nn.Conv3d(channels_in, channels_out, 1, bias=False),
            )

    def forward(self, x: Tensor) -> Tensor:
        """(B, C_in, D, H, W) → (B, C_out, D/stride, H/stride, W/stride)."""
        h = self.conv1(self.act(self.norm1(x)))
        h = self.conv2(self.act(self.norm2(h)))
        out: Tensor = self.shortcut(x) + h
        return out


def run_stages(stages: nn.Sequential, h: Tensor, chunk: int, checkpointing: bool) -> Tensor:
    """Run ``stages`` in groups of ``chunk`` modules, the first of which must not alter its input.

    With ``checkpointing`` only the activations between groups are kept for the backward pass, which
    computes the others again (Chen et al. 2016, arXiv:1604.06174). The result is the same.
    """
    if not (checkpointing and torch.is_grad_enabled()):
        whole: Tensor = stages(h)
        return whole
    for start in range(0, len(stages), chunk):
        h = checkpoint(stages[start : start + chunk], h, use_reentrant=False)
    return h


class ResNet3dEncoder(nn.Module):
    """Stem and ``depth - 1`` residual stages, each halving the volume."""

    def __init__(
        self, input_channels: int, widths: Sequence[int], checkpointing: bool = False
    ) -> None:
        super().__init__()
        self.checkpointing = checkpointing
        self.stem = nn.Conv3d(input_channels, widths[0], 3, stride=2, padding=1)
        self.stages = nn.Sequential(
            *(ResidualBlock(narrow, wide, stride=2) for narrow, wide in pairwise(widths))
        )
        self.head = nn.Sequential(group_norm(widths[-1]), nn.SiLU(inplace=True))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, D, H, W) → (B, 8F·D/16·H/16·W/16), for a depth of 4."""
        h = self.stem(x)  # (B, F, D/2, H/2, W/2)
        h = run_stages(self.stages, h, 1, self.checkpointing)  # (B, 8F, D/16, H/16, W/16)
        features: Tensor = self.head(h)  # (B, 8F, D/16, H/16, W/16)
        return features.flatten(1)  # (B, 8F·D/16·H/16·W/16)


class ResNet3dDecoder(nn.Module):
    """Transposed convolutions double the volume; a residual block refines each coarse grid."""

    def __init__(
        self,
        input_channels: int,
        widths: Sequence[int],
        z_dim: int,
        grid: Sequence[int],
        checkpointing: bool = False,
    ) -> None:
        super().__init__()
        self.checkpointing = checkpointing
        self.shape = (widths[-1], *grid)
        self.project = nn.Linear(z_dim, math.prod(self.shape))
        stages: list[nn.Module] = []
        for wide, narrow in pairwise(reversed(widths)):
            stages += [ResidualBlock(wide, wide), group_norm(wide), nn.SiLU(inplace=True)]
            stages += [nn.ConvTranspose3d(wide, narrow, kernel_size=4, stride=2, padding=1)]
        self.stages = nn.Sequential(*stages)
        self.head = nn.Sequential(
            group_norm(widths[0]),
            nn.SiLU(inplace=True),
            nn.ConvTranspose3d(widths[0], input_channels, kernel_size=4, stride=2, padding=1),
        )

    def forward(self, z: Tensor) -> Tensor:
        """(B, z) → (B, C, D, H, W), for a depth of 4."""
        h = self.project(z)  # (B, 8F·D/16·H/16·W/16)
        h = h.unflatten(1, self.shape)  # (B, 8F, D/16, H/16, W/16)
        h = run_stages(self.stages, h, 4, self.checkpointing)  # (B, F, D/2, H/2, W/2)
        x_hat: Tensor = self.head(h)  # (B, C, D, H, W)
        return x_hat


class ResNet3dVAE(EncoderDecoderVAE):
    """3D ResNet VAE of multi-modal volumes.

    Args:
        input_channels: number of modalities.
        base_filters: F, channels after the stem; stage k has ``F * 2^k``.
        z_dim: number of latent units.
        depth: number of times the volume is halved; ``roi_size`` is a multiple of ``2^depth``. The
            command of ``conf/experiment/exp1_stable.yaml`` with model.z_dim=32 model.base_filters=8
            train.max_epochs=20, 480 patients and 120 follow-ups, seeds 0 and 1 (2026-11-23): 4
            leaves 2³ cells of 32³ and is not stable (aligned R² 0.61, neighbours 0.21); 3 leaves 4³
            and is (0.94, 0.71); 2 leaves 8³ and is (0.94, 0.76). At 128³ a depth of 4 leaves 8³.
        roi_size: (D, H, W) in voxels.
        norm: only "GROUP"; batch statistics of one or two volumes are noise.
        activation_checkpointing: recompute activations in the backward pass instead of keeping
            them: less memory, more time, the same result.

    Raises:
        UserError: for an impossible value, naming its key.
    """

    def __init__(
        self,
        input_channels: int = 4,
        base_filters: int = 32,
        z_dim: int = 128,
        depth: int = 4,
        roi_size: Sequence[int] = (128, 128, 128),
        norm: str = "GROUP",
        activation_checkpointing: bool = False,
    ) -> None:
        if norm != "GROUP":
            raise UserError(f"model.norm={norm}: only GROUP is offered; leave the key out")
        if depth < 1:
            raise UserError(f"model.depth={depth}: at least 1 is needed; try 4")
        check_roi_size(roi_size, depth)
        widths = [base_filters * 2**level for level in range(depth)]
        grid = [side // 2**depth for side in roi_size]
        super().__init__(
            encoder=ResNet3dEncoder(input_channels, widths, activation_checkpointing),
            decoder=ResNet3dDecoder(input_channels, widths, z_dim, grid, activation_checkpointing),
            features=widths[-1] * math.prod(grid),
            z_dim=z_dim,
        )


def check_roi_size(roi_size: Sequence[int], depth: int) -> None:
    """Raise ``UserError`` unless each of three sides is a positive multiple of ``2^depth``."""
    step = 2**depth
    if len(roi_size) != 3:
        raise UserError(
            f"dataset.roi_size={list(roi_size)}: three sides are needed; try [128,128,128]"
        )
    wrong = [side for side in roi_size if side < step or side % step]
    if wrong:
        below = max(step, wrong[0] // step * step)
        hint = f"{below} or {below + step}" if below < wrong[0] else f"{below}"
        raise UserError(
            f"dataset.roi_size={list(roi_size)}: each side must be divisible by {step} "
            f"(2^model.depth); try {hint}"
        )
