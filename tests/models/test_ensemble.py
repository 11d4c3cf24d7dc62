"""An ensemble is one VAE to the outside, and several that learn apart inside."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torch import Tensor

from vaelab.errors import UserError
from vaelab.models.conv2d import Conv2dVAE
from vaelab.models.ensemble import EnsembleVAE
from vaelab.objective.elbo import compute_elbo, kl_divergence

MEMBER = partial(Conv2dVAE, base_filters=2, z_dim=3, image_size=(32, 32))


def ensemble(num_members: int = 3) -> EnsembleVAE:
    torch.manual_seed(0)
    return EnsembleVAE(MEMBER, num_members)


def images(count: int) -> Tensor:
    return torch.rand(count, 1, 32, 32, generator=torch.Generator().manual_seed(1))


def test_evaluation_averages_the_reconstructions_of_all_members() -> None:
    vae, x = ensemble().eval(), images(4)
    alone = [member(x) for member in vae.members]
    output = vae(x)
    assert torch.allclose(output.x_hat, sum(output.x_hat for output in alone) / 3)
    assert torch.equal(output.mu, torch.cat([output.mu for output in alone], 1))
    assert vae.z_dim == output.mu.shape[1] == 9


def test_its_kl_is_the_sum_of_its_members() -> None:
    vae, x = ensemble().eval(), images(4)
    output = vae(x)
    member_kl = [kl_divergence(*member.encode(x)) for member in vae.members]
    assert torch.allclose(kl_divergence(output.mu, output.logvar), torch.stack(member_kl).sum(0))


def test_members_start_from_different_weights() -> None:
    first, second, _ = (member(images(1)).x_hat for member in ensemble().eval().members)
    assert not torch.allclose(first, second, atol=1e-3)


@pytest.mark.parametrize("samples", [6, 7, 2, 1])
def test_in_training_every_sample_teaches_exactly_one_member(samples: int) -> None:
    vae, x = ensemble().train(), images(samples)
    output = vae(x)
    assert output.x_hat.shape == x.shape
    taught = (output.mu != 0).unflatten(1, (3, 3)).any(2)  # (B, members)
    assert taught.sum(1).eq(1).all()
    compute_elbo(x, *output, beta=1.0)["loss"].backward()
    learning = [
        any(p.grad is not None and bool(p.grad.any()) for p in member.parameters())
        for member in vae.members
    ]
    assert learning == taught.any(0).tolist()


def test_units_of_the_members_that_rest_cost_no_kl() -> None:
    vae, x = ensemble().train(), images(6)
    output = vae(x)
    blocks = [
        kl_divergence(output.mu[:, i : i + 3], output.logvar[:, i : i + 3]) for i in (0, 3, 6)
    ]
    assert torch.stack(blocks).ne(0).sum(0).eq(1).all()


def test_an_ensemble_of_one_is_its_member() -> None:
    vae, x = ensemble(1).train(), images(4)
    torch.manual_seed(5)
    together = vae(x)
    torch.manual_seed(5)
    alone = vae.members[0](x)
    for got, expected in zip(together, alone, strict=True):
        assert torch.equal(got, expected)


def test_no_member_is_refused() -> None:
    with pytest.raises(UserError, match=r"model\.num_members=0: at least 1"):
        ensemble(0)
