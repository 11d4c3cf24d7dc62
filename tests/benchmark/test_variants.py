"""Every way to compute a step gives the same loss and gradients, to a stated tolerance."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from vaelab.benchmark.variants import BareStep, Variant, flops, peak_memory
from vaelab.errors import UserError
from vaelab.models.conv2d import Conv2dVAE
from vaelab.models.monai_vae import MonaiVAE
from vaelab.models.resnet3d import ResNet3dVAE
from vaelab.models.vae import VAE
from vaelab.objective.elbo import ELBOLoss
from vaelab.training.parity import relative_difference

CPU = torch.device("cpu")
BFLOAT16 = 2.0**-8  # its rounding error


def volumes() -> tuple[VAE, Tensor]:
    torch.manual_seed(0)
    # Two channels in each norm group: with one, gradients of biases are rounding alone. Two levels:
    # on a grid of 2^3 voxels bfloat16 gradients are wrong on some CPUs, see conf/hardware/cpu.yaml.
    model = ResNet3dVAE(base_filters=16, z_dim=4, depth=2, roi_size=(16, 16, 16))
    return model, torch.randn(2, 4, 16, 16, 16)


def images() -> tuple[VAE, Tensor]:
    torch.manual_seed(0)
    return Conv2dVAE(1, 8, 4, (32, 32)), torch.rand(4, 1, 32, 32)


def loss_and_gradients(model: VAE, x: Tensor, variant: str) -> tuple[float, Tensor]:
    step = BareStep(model, ELBOLoss(), {"image": x}, Variant(variant), CPU)
    torch.manual_seed(1)
    loss = float(step.backward())
    optional = [weight.grad for weight in step.model.parameters()]
    gradients = [gradient.flatten() for gradient in optional if gradient is not None]
    return loss, torch.cat(gradients)


@pytest.mark.parametrize(
    ("variant", "loss_tolerance", "gradient_tolerance"),
    [
        ("channels_last", 1e-5, 1e-4),  # other kernels, other order of summation
        ("checkpointing", 0.0, 0.0),  # the same computation twice
        ("bf16", BFLOAT16, 16 * BFLOAT16),
        ("bf16+channels_last", BFLOAT16, 16 * BFLOAT16),
        ("bf16+channels_last+checkpointing", BFLOAT16, 16 * BFLOAT16),
    ],
)
def test_variants_of_volumes_agree_with_float32(
    variant: str, loss_tolerance: float, gradient_tolerance: float
):
    model, x = volumes()
    loss, gradients = loss_and_gradients(model, x, "fp32")
    other_loss, other_gradients = loss_and_gradients(model, x, variant)
    assert other_loss == pytest.approx(loss, rel=loss_tolerance, abs=0)
    assert relative_difference(other_gradients, gradients) <= gradient_tolerance


@pytest.mark.parametrize(
    ("variant", "loss_tolerance", "gradient_tolerance"),
    [("channels_last", 1e-5, 1e-4), ("bf16+channels_last", BFLOAT16, 16 * BFLOAT16)],
)
def test_variants_of_images_agree_with_float32(
    variant: str, loss_tolerance: float, gradient_tolerance: float
):
    model, x = images()
    loss, gradients = loss_and_gradients(model, x, "fp32")
    other_loss, other_gradients = loss_and_gradients(model, x, variant)
    assert other_loss == pytest.approx(loss, rel=loss_tolerance)
    assert relative_difference(other_gradients, gradients) <= gradient_tolerance


def test_a_step_learns_and_leaves_the_model_alone():
    model, x = volumes()
    before = model.mu_head.weight.clone()
    step = BareStep(model, ELBOLoss(), {"image": x}, Variant("fp32"), CPU, lr=1e-3)
    losses = []
    for _ in range(5):
        losses.append(float(step.backward()))
        step.train()
    assert losses[-1] < losses[0]
    assert torch.equal(model.mu_head.weight, before)
    assert not torch.equal(step.model.mu_head.weight, before)


def test_channels_last_reaches_the_weights():
    model, x = volumes()
    step = BareStep(model, ELBOLoss(), {"image": x}, Variant("channels_last"), CPU)
    convolutions = [weight for weight in step.model.parameters() if weight.dim() == 5]
    layout = torch.channels_last_3d
    assert all(weight.is_contiguous(memory_format=layout) for weight in convolutions)
    assert step.batch["image"].is_contiguous(memory_format=layout)


@pytest.mark.parametrize("name", ["fp64", "fp32+bf16", "", "channels_first"])
def test_an_unknown_variant_is_refused(name: str):
    with pytest.raises(UserError, match=r"task\.variants: "):
        Variant(name)


def test_an_unavailable_variant_has_a_reason():
    volume_model, _ = volumes()
    image_model, _ = images()
    assert Variant("fp16").why_not(volume_model, CPU) == "16-mixed needs a GPU"
    assert Variant("checkpointing").why_not(volume_model, CPU) is None
    reason = Variant("checkpointing").why_not(image_model, CPU)
    assert reason == "Conv2dVAE has no activation checkpointing"


def test_flops_are_those_of_the_convolutions():
    model = MonaiVAE((4, 4), input_channels=1, z_dim=2, channels=(3,), num_res_units=0)
    counts = flops(
        BareStep(model, ELBOLoss(), {"image": torch.rand(5, 1, 4, 4)}, Variant("fp32"), CPU)
    )
    # 5 samples: 3x3 convolutions from and to 2x2 pixels (4x4 when transposed), two heads from 12
    # features to 2 latents, and a linear layer back.
    convolutions = 2 * 5 * (4 * 3 * 9 + 4 * 3 * 9)
    linear = 2 * 5 * 3 * 12 * 2
    assert counts["forward"] == convolutions + linear
    # On the way back each costs as much for its input and for its weights, but the first
    # convolution, whose input is the image and needs no gradient.
    assert counts["training"] == 3 * counts["forward"] - 2 * 5 * 4 * 3 * 9


@pytest.mark.slow
def test_memory_is_that_of_a_process_of_its_own():
    model, x = volumes()
    many = x.repeat(128, 1, 1, 1, 1)
    small = peak_memory(model, ELBOLoss(), {"image": x[:1]}, Variant("fp32"), CPU)["rss"]
    large = peak_memory(model, ELBOLoss(), {"image": many}, Variant("fp32"), CPU)["rss"]
    assert large > small + many.nbytes  # activations are more than the images themselves
