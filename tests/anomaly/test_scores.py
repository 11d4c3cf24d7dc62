"""Each score against a derivation by hand; larger is more abnormal."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor

from vaelab.anomaly.scores import (
    KL,
    CentralResidual,
    FittedScore,
    Fused,
    Mahalanobis,
    NegativeELBO,
    Normals,
    Score,
    SmoothedResidual,
    SquaredError,
    map_of,
)
from vaelab.errors import UserError
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


def test_a_checkerboard_is_no_evidence_and_a_plateau_of_the_same_error_is():
    checkerboard = torch.ones(8, 8)
    checkerboard[::2, ::2] = checkerboard[1::2, 1::2] = -1
    x = torch.stack([checkerboard, torch.ones(8, 8)])[:, None]
    noise, plateau = SmoothedResidual(blocks=[2, 4])(x, said_of(x))
    assert noise == 0
    assert plateau == 2  # |1| at either of two block sizes


def test_smoothed_residual_judges_volumes_too():
    x = torch.ones(3, 4, 8, 8, 8)
    assert SmoothedResidual(blocks=[4])(x, said_of(x)).tolist() == [1, 1, 1]


def test_the_centre_counts_and_the_border_does_not():
    background = torch.linspace(0, 1, 64).expand(64, 64)
    centre, border = torch.zeros(64, 64), torch.zeros(64, 64)
    centre[28:36, 28:36] = 0.5
    border[:8, :8] = 0.5
    x = torch.stack([background, background, background])[:, None]
    x_hat = x - torch.stack([torch.zeros(64, 64), border, centre])[:, None]
    none, at_border, at_centre = CentralResidual()(x, said_of(x, x_hat))
    assert none == 0
    assert at_border < 1e-2 * at_centre


def test_brighter_than_expected_counts_double_and_once_without_the_prior():
    ramp = torch.linspace(0, 1, 64).expand(1, 1, 64, 64)
    brighter, darker = said_of(ramp, ramp - 0.25), said_of(ramp, ramp + 0.25)
    with_prior, without = CentralResidual(positive=1), CentralResidual(positive=0)
    torch.testing.assert_close(with_prior(ramp, brighter), 2 * with_prior(ramp, darker))
    torch.testing.assert_close(without(ramp, brighter), without(ramp, darker))


def test_a_machine_with_half_the_contrast_gives_the_same_central_score():
    x = torch.rand(4, 1, 64, 64)
    x_hat = torch.rand(4, 1, 64, 64)
    score = CentralResidual()
    torch.testing.assert_close(
        score(x, said_of(x, x_hat)), score(0.5 * x + 0.2, said_of(x, 0.5 * x_hat + 0.2))
    )


def test_two_deviations_from_the_training_latents_are_a_distance_of_two():
    torch.manual_seed(0)
    latents = torch.randn(20_000, 2) * torch.tensor([1.0, 3.0]) + torch.tensor([5.0, -1.0])
    image = torch.zeros(len(latents), 1, 4, 4)
    score = Mahalanobis()
    score.fit(lambda: iter([(image, said_of(image, mu=latents))]), no_more_normals)
    asked = torch.tensor([[5.0, -1.0], [7.0, -1.0], [5.0, 5.0]])
    distance = score(image[:3], said_of(image[:3], mu=asked))
    # Mean and deviation of 20,000 draws are known to about 3/sqrt(20,000) = 0.02.
    torch.testing.assert_close(distance, torch.tensor([0.0, 2.0, 2.0]), atol=0.06, rtol=0)


def test_fused_scores_have_mean_zero_and_one_deviation_each_on_held_out_normals():
    torch.manual_seed(0)
    normals = torch.rand(64, 1, 8, 8)
    output = said_of(normals, torch.rand(64, 1, 8, 8), mu=torch.randn(64, 3))
    members = {"error": SquaredError(), "kl": KL()}
    fused = Fused(members)
    fused.fit(no_more_normals, lambda: iter([(normals, output)]))
    scores = fused(normals, output)
    assert abs(float(scores.mean())) < 1e-4
    standardised = [
        (values - values.mean()) / values.std()
        for values in (score(normals, output) for score in members.values())
    ]
    torch.testing.assert_close(scores, standardised[0] + standardised[1], atol=1e-4, rtol=1e-4)


def test_fitting_gets_images_and_never_a_label():
    seen: list[object] = []

    class Recorder(SquaredError):  # noqa: N818  # the error is that of a reconstruction
        def fit(self, train: Normals, held_out: Normals) -> None:
            seen.extend(part for start in (train, held_out) for batch in start() for part in batch)

    assert isinstance(Recorder(), FittedScore)
    image = torch.rand(2, 1, 8, 8)
    fused = Fused({"recorder": Recorder()})
    fused.fit(lambda: iter([(image, said_of(image))]), lambda: iter([(image, said_of(image))]))
    assert [type(part).__name__ for part in seen] == ["Tensor", "VAEOutput"] * 2


# --- where the evidence lies


PLACED: list[Score] = [SquaredError(), SmoothedResidual((4, 8))]
CENTRAL: list[Score] = [CentralResidual(), CentralResidual(positive=0)]
IMAGES, VOLUMES = [(3, 1, 64, 64), (3, 1, 70, 45)], [(2, 4, 16, 24, 16)]


@pytest.mark.parametrize(
    ("score", "shape"),
    [
        *((score, shape) for score in PLACED for shape in IMAGES + VOLUMES),
        *((score, shape) for score in CENTRAL for shape in IMAGES),
    ],
    ids=lambda part: str(part) if isinstance(part, tuple) else type(part).__name__,
)
def test_a_map_of_the_images_shape_adds_up_to_the_score(
    score: Score, shape: tuple[int, ...]
) -> None:
    torch.manual_seed(0)
    x, x_hat = torch.rand(shape), torch.rand(shape)
    evidence = map_of(score, x, said_of(x, x_hat))
    assert evidence is not None
    assert evidence.shape == (shape[0], *shape[2:])
    # Cells of a grid that does not divide the image are of unequal size.
    rounding = 0.02 if isinstance(score, CentralResidual) and shape[2:] == (70, 45) else 1e-4
    torch.testing.assert_close(
        evidence.flatten(1).sum(1), score(x, said_of(x, x_hat)), rtol=rounding, atol=0
    )


def test_the_map_of_the_negative_elbo_is_that_of_its_error_since_the_kl_has_no_place() -> None:
    assert torch.equal(
        map_of(NegativeELBO(3.0), X, OUTPUT),  # type: ignore[arg-type]
        map_of(SquaredError(), X, OUTPUT),  # type: ignore[arg-type]
    )
    assert map_of(KL(), X, OUTPUT) is None
    assert map_of(Mahalanobis(), X, OUTPUT) is None


def test_the_central_map_glows_in_the_centre_and_twice_where_it_is_brighter_than_expected() -> None:
    x = torch.linspace(0, 1, 64).expand(1, 1, 64, 64)
    change = torch.zeros(1, 1, 64, 64)
    change[..., 26:38, 16:28] = 0.5  # left of the middle, brighter than its reconstruction
    change[..., 26:38, 36:48] = -0.5  # right of it, darker
    change[..., :12, :12] = 0.5  # at the border
    (evidence,) = CentralResidual().map(x, said_of(x, x - change))
    brighter, darker, border = evidence[32, 22], evidence[32, 41], evidence[6, 6]
    assert float(brighter / darker) == pytest.approx(2, rel=0.1)
    assert border < 1e-2 * brighter
    assert evidence.argmax() // 64 in range(26, 38)


def test_a_fused_map_adds_what_has_a_place_in_deviations_of_the_scores() -> None:
    torch.manual_seed(0)
    x, x_hat = torch.rand(64, 1, 8, 8), torch.rand(64, 1, 8, 8)
    output = said_of(x, x_hat, mu=torch.randn(64, 3))
    fused = Fused({"error": SquaredError(), "kl": KL()})
    fused.fit(no_more_normals, lambda: iter([(x, output)]))
    deviation = SquaredError()(x, output).std()
    torch.testing.assert_close(map_of(fused, x, output), SquaredError().map(x, output) / deviation)
    nowhere = Fused({"kl": KL()})
    nowhere.fit(no_more_normals, lambda: iter([(x, output)]))
    assert map_of(nowhere, x, output) is None


@pytest.mark.parametrize(
    ("build", "named"),
    [
        (lambda: SmoothedResidual(blocks=[]), "score.blocks"),
        (lambda: SmoothedResidual(blocks=[0]), "score.blocks"),
        (lambda: CentralResidual(sigma=0), "sigma=0"),
        (lambda: CentralResidual(grid=2), "grid=2"),
        (lambda: Fused({}), "score.scores"),
    ],
)
def test_a_score_that_cannot_work_names_its_key(build: Callable[[], object], named: str):
    with pytest.raises(UserError, match=re.escape(named)):
        build()


def said_of(
    x: torch.Tensor, x_hat: torch.Tensor | None = None, mu: torch.Tensor | None = None
) -> VAEOutput:
    """What a VAE might say of x; a reconstruction of zeros unless one is given."""
    zeros = torch.zeros(len(x), 2)
    return VAEOutput(
        torch.zeros_like(x) if x_hat is None else x_hat,
        zeros if mu is None else mu,
        zeros if mu is None else torch.zeros_like(mu),
    )


def no_more_normals() -> Iterator[tuple[torch.Tensor, VAEOutput]]:
    return iter(())
