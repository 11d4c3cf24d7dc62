"""Each score against a derivation by hand; larger is more abnormal."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from vaelab.anomaly.scores import KL, NegativeELBO, Score, SquaredError
from vaelab.models.vae import VAEOutput
from vaelab.objective.elbo import compute_elbo

SCORES: dict[str, Score] = {
    "squared error": SquaredError(), "kl": KL(), "elbo": NegativeELBO(beta=2.0),
}  # fmt: skip
every_score = pytest.mark.parametrize("score", SCORES.values(), ids=SCORES.keys())

# Three images of 2 · 4 = 8 voxels at 0, reconstructed ever worse, from ever stranger posteriors.
X = torch.zeros(3, 2, 2, 2)
OUTPUT = VAEOutput(
    x_hat=torch.tensor([0.0, 1.0, -2.0])[:, None, None, None].expand(3, 2, 2, 2),
    mu=torch.tensor([[0.0, 0.0], [1.0, 1.0], [3.0, 4.0]]),
    logvar=torch.tensor([[0.0, 0.0], [0.0, 0.0], [0.0, math.log(2.0)]]),
)
SQUARES = [0.0, 8 * 1.0, 8 * 4.0]
NATS = [0.0, 0.5 * (1 + 1), 0.5 * (9 + 16 + 2 - 1 - math.log(2))]  # ½ Σ (μ² + σ² − 1 − log σ²)


def test_squared_error_is_summed_over_the_image() -> None:
    assert SquaredError()(X, OUTPUT).tolist() == pytest.approx(SQUARES)


def test_kl_is_summed_over_the_latents() -> None:
    assert KL()(X, OUTPUT).tolist() == pytest.approx(NATS)


@pytest.mark.parametrize("beta", [0.0, 1.0, 2.5])
def test_the_negative_elbo_is_their_weighted_sum(beta: float) -> None:
    expected = [square + beta * nats for square, nats in zip(SQUARES, NATS, strict=True)]
    assert NegativeELBO(beta)(X, OUTPUT).tolist() == pytest.approx(expected)


def test_the_negative_elbos_of_a_batch_add_up_to_what_is_trained() -> None:
    loss = compute_elbo(X, *OUTPUT, beta=2.0)["loss"]
    assert NegativeELBO(2.0)(X, OUTPUT).sum().item() == pytest.approx(loss.item())


@every_score
def test_a_score_is_one_finite_number_per_image(score: Score) -> None:
    scores = score(X, OUTPUT)
    assert scores.shape == (3,)
    assert torch.isfinite(scores).all()


@every_score
def test_larger_is_more_abnormal(score: Score) -> None:
    scores = score(X, OUTPUT).tolist()
    assert scores == sorted(scores)
    assert len(set(scores)) == 3


@every_score
def test_the_score_of_an_image_does_not_depend_on_its_neighbours(score: Score) -> None:
    def only(part: Tensor) -> Tensor:
        return part[1:2]

    alone = score(only(X), VAEOutput(*map(only, OUTPUT)))
    torch.testing.assert_close(alone, score(X, OUTPUT)[1:2])


@every_score
def test_volumes_are_scored_like_images(score: Score) -> None:
    x, x_hat = X.reshape(3, 1, 2, 2, 2), OUTPUT.x_hat.reshape(3, 1, 2, 2, 2)
    assert torch.equal(score(x, OUTPUT._replace(x_hat=x_hat)), score(X, OUTPUT))
