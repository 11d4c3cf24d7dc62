"""What every VAE does, shown on the smallest one: linear maps of four numbers."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from vaelab.models.encoder_decoder import EncoderDecoderVAE
from vaelab.models.vae import LOGVAR_BOUND, VAEOutput


def tiny_vae(z_dim: int = 3) -> EncoderDecoderVAE:
    """Images (B, 1, 2, 2), seen as four numbers."""
    torch.manual_seed(0)
    decoder = nn.Sequential(nn.Linear(z_dim, 4), nn.Unflatten(1, (1, 2, 2)))
    return EncoderDecoderVAE(encoder=nn.Flatten(), decoder=decoder, features=4, z_dim=z_dim)


def images(size: int = 5) -> Tensor:
    return torch.randn(size, 1, 2, 2, generator=torch.Generator().manual_seed(1))


def set_logvar_before_the_bound(vae: EncoderDecoderVAE, value: float) -> None:
    nn.init.zeros_(vae.logvar_head.weight)
    nn.init.constant_(vae.logvar_head.bias, value)


# --- forward


def test_the_output_has_names_and_unpacks_in_their_order() -> None:
    output = tiny_vae(z_dim=3)(images(5))
    assert isinstance(output, VAEOutput)
    assert output._fields == ("x_hat", "mu", "logvar")
    x_hat, mu, logvar = output
    assert (x_hat.shape, mu.shape, logvar.shape) == ((5, 1, 2, 2), (5, 3), (5, 3))


# --- reparameterize


def test_a_sample_has_the_mean_and_the_variance_it_was_asked_for() -> None:
    torch.manual_seed(0)
    n, mean, variance = 20_000, 3.0, 4.0
    mu, logvar = torch.full((n, 1), mean), torch.full((n, 1), math.log(variance))
    z = tiny_vae().train().reparameterize(mu, logvar)
    # Five standard errors: sigma/√n of the mean, σ²·√(2/n) of the variance of a Gaussian.
    assert z.mean().item() == pytest.approx(mean, abs=5 * math.sqrt(variance / n))
    assert z.var().item() == pytest.approx(variance, abs=5 * variance * math.sqrt(2 / n))


def test_the_sample_passes_gradients_to_the_mean_and_the_variance() -> None:
    torch.manual_seed(0)
    mu, logvar = torch.zeros(1, 4, requires_grad=True), torch.zeros(1, 4, requires_grad=True)
    z = tiny_vae().train().reparameterize(mu, logvar)  # = eps, as mu = 0 and sigma = 1
    z.sum().backward()
    assert torch.equal(mu.grad, torch.ones(1, 4))  # dz/dmu = 1
    torch.testing.assert_close(logvar.grad, 0.5 * z.detach())  # dz/dlogvar = ½ eps sigma


# --- the bound of logvar


@pytest.mark.parametrize("scale", [1.0, 1e4, 1e8])
def test_logvar_keeps_its_bound_whatever_the_input(scale: float) -> None:
    mu, logvar = tiny_vae().encode(scale * images(64))
    assert logvar.abs().max() <= LOGVAR_BOUND + 1e-5  # float32
    assert torch.isfinite(mu).all()
    assert torch.isfinite(logvar.exp()).all()


def test_an_everyday_logvar_hardly_feels_the_bound() -> None:
    vae = tiny_vae()
    set_logvar_before_the_bound(vae, 1.0)
    # 1 / √(1 + (1/15)²) ≈ 1 − 0.0022
    assert vae.encode(images())[1][0, 0].item() == pytest.approx((1 + 1 / 225) ** -0.5, abs=1e-5)


@pytest.mark.parametrize("before", [-60.0, 60.0])
def test_the_gradient_lives_on_four_times_past_the_bound(before: float) -> None:
    vae = tiny_vae()
    set_logvar_before_the_bound(vae, before)
    vae.encode(images(1))[1].sum().backward()
    slope = (1 + (60 / 15) ** 2) ** -1.5  # = 0.0143; a clamp would give 0
    assert vae.logvar_head.bias.grad is not None
    assert vae.logvar_head.bias.grad.tolist() == pytest.approx([slope] * 3, rel=1e-3)


# --- precision


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=["bfloat16", "float16"])
def test_the_posterior_is_float32_under_autocast(dtype: torch.dtype) -> None:
    vae, x = tiny_vae().train(), images()
    with torch.autocast("cpu", dtype=dtype):
        output = vae(x)
    assert output.x_hat.dtype == dtype  # autocast did reach the decoder
    assert output.mu.dtype == output.logvar.dtype == torch.float32
