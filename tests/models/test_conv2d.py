"""MED-ANOMALY-VAE's network: its layers, range, sizes and refusals."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from vaelab.errors import UserError
from vaelab.models.conv2d import Conv2dVAE


def small_vae(seed: int = 0) -> Conv2dVAE:
    """Grey images of 32 × 48 pixels, F = 4, three latent units."""
    torch.manual_seed(seed)
    return Conv2dVAE(base_filters=4, z_dim=3, image_size=(32, 48))


def images(*shape: int) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(1))


def test_four_convolutions_go_in_and_four_transposed_ones_come_out() -> None:
    vae = Conv2dVAE()

    def count(part: nn.Module, kind: type[nn.Module]) -> int:
        return sum(type(module) is kind for module in part.modules())

    assert (count(vae.encoder, nn.Conv2d), count(vae.encoder, nn.ConvTranspose2d)) == (4, 0)
    assert (count(vae.decoder, nn.Conv2d), count(vae.decoder, nn.ConvTranspose2d)) == (0, 4)


def test_shapes_stand_in_a_column() -> None:
    vae, x = small_vae(), images(2, 1, 32, 48)
    h = vae.encoder.stages(x)
    assert h.shape == (2, 8 * 4, 2, 3)  # (B, 8F, H/16, W/16)
    assert vae.encoder(x).shape == (2, 8 * 4 * 2 * 3)
    z = torch.zeros(2, 3)
    assert vae.decoder.project(z).shape == (2, 8 * 4 * 2 * 3)
    assert vae.decode(z).shape == x.shape


def test_colour_images_pass_too() -> None:
    vae = Conv2dVAE(input_channels=3, base_filters=2, z_dim=2, image_size=(16, 16)).eval()
    assert vae(images(2, 3, 16, 16)).x_hat.shape == (2, 3, 16, 16)


def test_a_reconstruction_lies_in_0_to_1_however_wild_the_latent() -> None:
    x_hat = small_vae().eval().decode(1e3 * torch.randn(8, 3))
    assert x_hat.min() >= 0
    assert x_hat.max() <= 1
    assert isinstance(small_vae().decoder.stages[-1], nn.Sigmoid)


def test_a_state_dict_carries_the_batch_statistics_too() -> None:
    vae, other, x = small_vae(seed=0), small_vae(seed=1), images(4, 1, 32, 48)
    vae.train()(x + 3)  # moves the running means away from their start at 0
    other.load_state_dict(vae.state_dict())
    for ours, theirs in zip(vae.eval()(x), other.eval()(x), strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize("size", [(100, 128), (128, 100), (0, 16), (8, 16), (-16, 16)])
def test_a_side_that_cannot_be_halved_four_times_is_refused(size: tuple[int, int]) -> None:
    with pytest.raises(UserError) as refusal:
        Conv2dVAE(image_size=size)
    assert str(refusal.value) == (
        f"dataset.image_size={list(size)}: each side must be a positive multiple of 16; "
        "try [128, 128]"
    )
