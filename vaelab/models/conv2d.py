"""MED-ANOMALY-VAE's network: four strided convolutions in, four transposed ones out."""

from __future__ import annotations

from torch import Tensor, nn

from vaelab.errors import UserError
from vaelab.models.encoder_decoder import EncoderDecoderVAE

DEPTH = 4


class Conv2dEncoder(nn.Module):
    """Halve the image four times, double the channels three times."""

    def __init__(self, input_channels: int, base_filters: int) -> None:
        super().__init__()
        f = base_filters
        self.stages = nn.Sequential(
            _down(input_channels, f), _down(f, 2 * f), _down(2 * f, 4 * f), _down(4 * f, 8 * f)
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) → (B, 8F·H/16·W/16)."""
        h: Tensor = self.stages(x)  # (B, 8F, H/16, W/16)
        return h.flatten(1)  # (B, 8F·H/16·W/16)


class Conv2dDecoder(nn.Module):
    """The mirror image of the encoder, with a sigmoid at the end."""

    def __init__(
        self, input_channels: int, base_filters: int, z_dim: int, size: tuple[int, int]
    ) -> None:
        super().__init__()
        f = base_filters
        self.shape = (8 * f, size[0] // 2**DEPTH, size[1] // 2**DEPTH)
        self.project = nn.Linear(z_dim, self.shape[0] * self.shape[1] * self.shape[2])
        self.stages = nn.Sequential(
            _up(8 * f, 4 * f), _up(4 * f, 2 * f), _up(2 * f, f),
            nn.ConvTranspose2d(f, input_channels, kernel_size=4, stride=2, padding=1),
            nn.Sigmoid(),
        )  # fmt: skip

    def forward(self, z: Tensor) -> Tensor:
        """(B, z) → (B, C, H, W), within (0, 1)."""
        h = self.project(z)  # (B, 8F·H/16·W/16)
        h = h.unflatten(1, self.shape)  # (B, 8F, H/16, W/16)
        x_hat: Tensor = self.stages(h)  # (B, C, H, W)
        return x_hat


class Conv2dVAE(EncoderDecoderVAE):
    """Convolutional VAE of images in [0, 1].

    Args:
        input_channels: channels of an image, 1 for grey.
        base_filters: F, the channels after the first convolution.
        z_dim: number of latent units.
        image_size: (H, W) in pixels, each a multiple of 16.

    Raises:
        UserError: when the image cannot be halved four times.
    """

    def __init__(
        self,
        input_channels: int = 1,
        base_filters: int = 32,
        z_dim: int = 256,
        image_size: tuple[int, int] = (128, 128),
    ) -> None:
        height, width = image_size
        if height % 2**DEPTH or width % 2**DEPTH or min(height, width) < 2**DEPTH:
            raise UserError(
                f"dataset.image_size={[height, width]}: each side must be a positive multiple of "
                f"{2**DEPTH}; try [128, 128]"
            )
        super().__init__(
            encoder=Conv2dEncoder(input_channels, base_filters),
            decoder=Conv2dDecoder(input_channels, base_filters, z_dim, (height, width)),
            features=8 * base_filters * (height // 2**DEPTH) * (width // 2**DEPTH),
            z_dim=z_dim,
        )


def _down(channels_in: int, channels_out: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels_in, channels_out, kernel_size=4, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(channels_out),
        nn.LeakyReLU(0.2, inplace=True),
    )


def _up(channels_in: int, channels_out: int) -> nn.Sequential:
    return nn.Sequential(
        nn.ConvTranspose2d(
            channels_in, channels_out, kernel_size=4, stride=2, padding=1, bias=False
        ),
        nn.BatchNorm2d(channels_out),
        nn.LeakyReLU(0.2, inplace=True),
    )
