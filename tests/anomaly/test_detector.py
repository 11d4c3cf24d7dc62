"""AnomalyDetector: an image in; a reconstruction, a heat map and a score out."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from vaelab.anomaly.detector import AnomalyDetector, Prediction
from vaelab.anomaly.maps import residual_map
from vaelab.anomaly.scores import KL, SquaredError
from vaelab.models.conv2d import Conv2dVAE
from vaelab.models.resnet3d import ResNet3dVAE
from vaelab.models.vae import VAE, VAEOutput

CASES = {"2D": (1, 16, 32), "3D": (2, 8, 16, 8)}


def build(case: str) -> tuple[VAE, Tensor]:
    """A network, still in training mode, and a batch of three for it."""
    torch.manual_seed(0)
    vae: VAE = (
        Conv2dVAE(base_filters=2, z_dim=3, image_size=(16, 32))
        if case == "2D"
        else ResNet3dVAE(2, base_filters=4, z_dim=3, depth=2, roi_size=(8, 16, 8))
    )
    return vae.train(), torch.rand(3, *CASES[case])


@pytest.fixture(params=CASES)
def case(request: pytest.FixtureRequest) -> tuple[VAE, Tensor]:
    """Both dimensions."""
    return build(request.param)


def test_a_prediction_holds_a_reconstruction_a_map_and_a_score(case: tuple[VAE, Tensor]) -> None:
    vae, x = case
    prediction = AnomalyDetector(vae, SquaredError())(x)
    assert isinstance(prediction, Prediction)
    assert prediction.x_hat.shape == x.shape
    assert prediction.heatmap.shape == (3, *x.shape[2:])
    assert prediction.score.shape == (3,)
    assert prediction.output.mu.shape == (3, 3)


def test_two_looks_at_the_same_batch_find_the_same(case: tuple[VAE, Tensor]) -> None:
    vae, x = case
    detector = AnomalyDetector(vae, SquaredError())
    first = detector(x)
    torch.manual_seed(99)
    second = detector(x)
    for a, b in zip(first[:3] + first.output, second[:3] + second.output, strict=True):
        assert torch.equal(a, b)


def test_the_network_is_put_into_evaluation_mode(case: tuple[VAE, Tensor]) -> None:
    vae, x = case
    AnomalyDetector(vae, KL())
    assert not any(module.training for module in vae.modules())
    assert torch.equal(vae(x).x_hat, vae.decode(vae.encode(x)[0]))


def test_looking_changes_nothing_in_the_network() -> None:
    vae, x = build("2D")  # in training mode its batch statistics would move
    before = {name: value.clone() for name, value in vae.state_dict().items()}
    AnomalyDetector(vae, KL())(x)
    for name, value in vae.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_map_and_score_are_those_of_the_reconstruction(case: tuple[VAE, Tensor]) -> None:
    vae, x = case
    prediction = AnomalyDetector(vae, SquaredError())(x)
    squares = (x - prediction.x_hat).square()
    torch.testing.assert_close(prediction.heatmap, squares.sum(1))
    assert prediction.shows_score
    expected = squares.flatten(1).sum(1)
    torch.testing.assert_close(prediction.score, expected)
    assert torch.equal(prediction.output.x_hat, prediction.x_hat)


def test_what_has_no_place_is_shown_with_the_plain_residual(case: tuple[VAE, Tensor]) -> None:
    vae, x = case
    prediction = AnomalyDetector(vae, KL())(x)
    torch.testing.assert_close(prediction.heatmap, residual_map(x, prediction.x_hat))
    assert not prediction.shows_score


class GradientOfError:
    """|d error / d x|, which the network has to be asked for."""

    needs_gradients = True

    def use(self, model: VAE, device: torch.device) -> None:
        self.model = model

    def map(self, x: Tensor, output: VAEOutput) -> Tensor:
        image = x.clone().requires_grad_()
        error = (image - self.model(image).x_hat).square().sum()
        (gradient,) = torch.autograd.grad(error, image)
        return gradient.abs().sum(1)

    def __call__(self, x: Tensor, output: VAEOutput) -> Tensor:
        return self.map(x, output).flatten(1).sum(1)


def test_a_score_may_ask_for_the_network_and_for_gradients(case: tuple[VAE, Tensor]) -> None:
    vae, x = case
    with torch.no_grad():  # as a task may have it
        prediction = AnomalyDetector(vae, GradientOfError())(x)
    assert prediction.shows_score
    assert (prediction.score > 0).all()
    torch.testing.assert_close(prediction.heatmap.flatten(1).sum(1), prediction.score)
    assert all(weight.grad is None for weight in vae.parameters())


def test_the_chosen_score_is_the_one_that_is_used() -> None:
    def brightness(x: Tensor, output: VAEOutput) -> Tensor:
        return x.flatten(1).sum(1) + output.mu.new_tensor([0.0, 100.0, 200.0])

    vae, x = build("2D")
    expected = x.flatten(1).sum(1) + torch.tensor([0.0, 100.0, 200.0])
    torch.testing.assert_close(AnomalyDetector(vae, brightness)(x).score, expected)


def test_a_prediction_needs_no_gradient_and_is_float32(case: tuple[VAE, Tensor]) -> None:
    vae, x = case
    prediction = AnomalyDetector(vae, KL())(x)
    for tensor in prediction[:3] + prediction.output:
        assert not tensor.requires_grad
        assert (tensor.dtype, tensor.device.type) == (torch.float32, "cpu")
