"""What the negative ELBO promises: exact sums, closed forms, float32 whatever the autocast."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.distributions import Normal, kl_divergence

from vaelab.errors import UserError
from vaelab.models.vae import VAEOutput
from vaelab.objective import elbo
from vaelab.objective.contract import Step, evaluate
from vaelab.objective.elbo import ELBOLoss, compute_elbo, kl_per_dimension, squared_error

NO_KL = torch.zeros(1, 1), torch.zeros(1, 1)


def random_batch(size: int = 3, z_dim: int = 5) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """x, x_hat, mu, logvar of everyday magnitudes."""
    draw = torch.Generator().manual_seed(0)
    x = torch.randn(size, 2, 4, 4, 4, generator=draw)
    x_hat = torch.randn(size, 2, 4, 4, 4, generator=draw)
    mu = torch.randn(size, z_dim, generator=draw)
    logvar = torch.randn(size, z_dim, generator=draw)
    return x, x_hat, mu, logvar


# --- the terms


def test_there_are_exactly_three_terms() -> None:
    terms = compute_elbo(*random_batch(), beta=1.0)
    assert set(terms) == {"loss", "recon", "kl"}
    assert all(term.shape == () and term.dtype == torch.float32 for term in terms.values())


def test_two_samples_of_eight_voxels_off_by_three_cost_144() -> None:
    x = torch.zeros(2, 1, 2, 2, 2)  # 2 · 8 voxels · 3² = 144
    assert compute_elbo(x, x + 3, *NO_KL, beta=1.0)["recon"].item() == 144.0


def test_squared_error_of_each_sample_is_summed_over_channels_and_voxels() -> None:
    x = torch.zeros(2, 3, 4, 4)  # 3 · 16 = 48 numbers a sample
    x_hat = torch.stack([torch.full((3, 4, 4), 1.0), torch.full((3, 4, 4), -2.0)])
    assert squared_error(x, x_hat).tolist() == [48.0, 48.0 * 4]


def test_shifting_ten_unit_gaussians_by_one_costs_five_nats() -> None:
    x = torch.zeros(1, 1, 2, 2, 2)  # ½ μ² = ½ nat each, ten of them
    terms = compute_elbo(x, x, torch.ones(1, 10), torch.zeros(1, 10), beta=1.0)
    assert terms["kl"].item() == 5.0


def test_doubling_the_standard_deviation_costs_three_halves_minus_log_two() -> None:
    mu, logvar = torch.zeros(1, 1), torch.full((1, 1), math.log(4.0))
    expected = 0.5 * (4 - 1 - math.log(4))  # = 3/2 − log 2 ≈ 0.807 nats
    assert kl_per_dimension(mu, logvar).item() == pytest.approx(expected, rel=1e-6)


def test_the_kl_agrees_with_torch_distributions() -> None:
    _, _, mu, logvar = random_batch(size=64, z_dim=16)
    posterior = Normal(mu, torch.exp(0.5 * logvar))
    expected = kl_divergence(posterior, Normal(0.0, 1.0))  # (B, z)
    torch.testing.assert_close(kl_per_dimension(mu, logvar), expected, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(
        elbo.kl_divergence(mu, logvar), expected.sum(1), rtol=1e-5, atol=1e-5
    )


def test_the_prior_itself_costs_nothing() -> None:
    x = torch.ones(4, 1, 2, 2)
    terms = compute_elbo(x, x, torch.zeros(4, 7), torch.zeros(4, 7), beta=3.0)
    assert {name: term.item() for name, term in terms.items()} == dict.fromkeys(
        ("loss", "recon", "kl"), 0.0
    )


def test_the_same_batch_twice_costs_twice() -> None:
    batch = random_batch()
    once = compute_elbo(*batch, beta=0.7)
    twice = compute_elbo(*(torch.cat([part, part]) for part in batch), beta=0.7)
    for name, term in once.items():
        assert twice[name].item() == pytest.approx(2 * term.item(), rel=1e-6), name


@pytest.mark.parametrize("beta", [0.0, 0.5, 4.0])
def test_the_loss_is_recon_plus_beta_kl(beta: float) -> None:
    terms = compute_elbo(*random_batch(), beta=beta)
    expected = terms["recon"].item() + beta * terms["kl"].item()
    assert terms["loss"].item() == pytest.approx(expected, rel=1e-6)


# --- numbers near the edges of float16 and float32


def test_a_tiny_logvar_still_has_its_kl() -> None:
    logvar = torch.tensor([[1e-4, -1e-4]])
    expected = 1e-8 / 4  # ½ (e^l − 1 − l) = l²/4 + O(l³)
    # exp rounds in steps of 1.2e-7 near 1, fifty times the result; expm1 in steps of 7e-12.
    naive = 0.5 * (logvar.exp() - 1 - logvar)
    assert (naive - expected).abs().max() > expected
    kl = kl_per_dimension(torch.zeros(1, 2), logvar)
    torch.testing.assert_close(kl, torch.full((1, 2), expected), rtol=2e-3, atol=0.0)


def test_the_kl_is_never_negative() -> None:
    size = torch.logspace(-12, 1, 10_001)  # |logvar| from 1e-12 to 10
    logvar = torch.stack([size, -size])
    assert kl_per_dimension(torch.zeros_like(logvar), logvar).min() >= 0


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=["float16", "bfloat16"])
def test_a_sum_beyond_float16_is_exact_inside_autocast(dtype: torch.dtype) -> None:
    # 4 · 32³ = 131072 voxels off by 1: the sum is twice float16's largest number, 65504.
    x = torch.ones(1, 4, 32, 32, 32, dtype=dtype)
    mu = torch.zeros(1, 2, dtype=dtype)
    logvar = torch.full((1, 2), 12.0, dtype=dtype)  # e^12 = 162755 > 65504 too
    with torch.autocast("cpu", dtype=dtype):
        terms = compute_elbo(x, torch.zeros_like(x), mu, logvar, beta=1.0)
    assert all(term.dtype == torch.float32 for term in terms.values())
    assert terms["recon"].item() == 131072.0
    kl = 2 * 0.5 * (math.exp(12) - 1 - 12)
    assert terms["kl"].item() == pytest.approx(kl, rel=1e-6)
    assert terms["loss"].item() == pytest.approx(131072 + kl, rel=1e-6)


def test_one_square_beyond_float16_is_exact_inside_autocast() -> None:
    x = torch.full((1, 1, 1, 1), 300.0, dtype=torch.float16)
    assert torch.isinf(x.square()).all()  # 300² = 90000 > 65504
    with torch.autocast("cpu", dtype=torch.float16):
        terms = compute_elbo(x, torch.zeros_like(x), *NO_KL, beta=1.0)
    assert terms["recon"].item() == 90000.0


# --- gradients


def test_gradients_are_the_ones_on_paper() -> None:
    x, x_hat, mu, logvar = random_batch()
    for leaf in (x_hat, mu, logvar):
        leaf.requires_grad_()
    compute_elbo(x, x_hat, mu, logvar, beta=3.0)["loss"].backward()
    assert x_hat.grad is not None
    torch.testing.assert_close(x_hat.grad, 2 * (x_hat - x).detach())
    torch.testing.assert_close(mu.grad, 3 * mu.detach())  # d/dμ ½μ² = μ
    torch.testing.assert_close(logvar.grad, 3 * 0.5 * (logvar.exp() - 1).detach())


# --- refusals and the module


def test_an_image_that_would_only_broadcast_is_refused() -> None:
    x = torch.zeros(2, 4, 8, 8, 8)
    with pytest.raises(ValueError, match=r"x_hat has shape \(2, 1, 8, 8, 8\).*\(2, 4, 8, 8, 8\)"):
        compute_elbo(x, x[:, :1], *NO_KL, beta=1.0)


def test_the_objective_is_the_function_at_the_beta_of_the_step() -> None:
    x, x_hat, mu, logvar = random_batch()
    for beta in (2.0, 0.25):
        step = Step(beta=beta, epoch=3, train_samples=10, stage="train")
        sums = evaluate(ELBOLoss(), {"image": x}, VAEOutput(x_hat, mu, logvar), step)
        assert list(sums) == ["loss", "recon", "kl"]
        for name, term in compute_elbo(x, x_hat, mu, logvar, beta=beta).items():
            assert torch.equal(sums[name], term), name


@pytest.mark.parametrize(
    ("sums", "message"),
    [
        ({"loss": torch.zeros(())}, "gives loss, but no recon, kl"),
        (dict.fromkeys(("loss", "recon", "kl"), torch.zeros(2)), r"loss .* has shape \(2,\)"),
    ],
)
def test_an_objective_that_breaks_the_contract_is_named(
    sums: dict[str, Tensor], message: str
) -> None:
    def objective(batch: Any, output: Any, step: Step) -> dict[str, Tensor]:
        return sums

    with pytest.raises(UserError, match=message):
        evaluate(objective, {}, None, Step(1.0, 0, 1, "val"))
