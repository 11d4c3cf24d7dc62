"""The 3D ResNet VAE: shapes in a column, its layers, its refusals, and that it learns."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from vaelab.errors import UserError
from vaelab.models.resnet3d import ResidualBlock, ResNet3dVAE, group_norm
from vaelab.objective.elbo import compute_elbo

Shape = tuple[int, ...]


def small_vae(seed: int = 0, **changes: Any) -> ResNet3dVAE:
    """Depth 2 on 8³ voxels: two channels, F = 16, three latent units."""
    torch.manual_seed(seed)
    arguments = {
        "input_channels": 2, "base_filters": 16, "z_dim": 3, "depth": 2, "roi_size": (8, 8, 8),
    }  # fmt: skip
    return ResNet3dVAE(**(arguments | changes))


@pytest.fixture
def one_thread() -> Iterator[None]:
    """On tensors this small, threads of a busy machine mostly wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def volumes(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1))


def column(vae: ResNet3dVAE, x: Tensor) -> dict[str, Shape]:
    """Shape after each named part of one pass."""
    shapes: dict[str, Shape] = {}

    def remember(name: str) -> Callable[[nn.Module, Any, Tensor], None]:
        return lambda _module, _inputs, output: shapes.__setitem__(name, tuple(output.shape))

    parts = {
        "encoder.stem": vae.encoder.stem,
        "encoder.stages": vae.encoder.stages,
        "encoder": vae.encoder,
        "decoder.project": vae.decoder.project,
        "decoder.stages": vae.decoder.stages,
        "decoder": vae.decoder,
    }
    hooks = [part.register_forward_hook(remember(name)) for name, part in parts.items()]
    with torch.no_grad():
        vae.eval()(x)
    for hook in hooks:
        hook.remove()
    return shapes


# --- shapes


def test_shapes_stand_in_a_column() -> None:
    vae = ResNet3dVAE(input_channels=4, base_filters=4, z_dim=5, roi_size=(32, 48, 64))
    assert column(vae, volumes(1, 4, 32, 48, 64)) == {
        "encoder.stem": (1, 4, 16, 24, 32),  # (B, F, D/2, H/2, W/2)
        "encoder.stages": (1, 32, 2, 3, 4),  # (B, 8F, D/16, H/16, W/16)
        "encoder": (1, 32 * 2 * 3 * 4),
        "decoder.project": (1, 32 * 2 * 3 * 4),
        "decoder.stages": (1, 4, 16, 24, 32),
        "decoder": (1, 4, 32, 48, 64),
    }


@pytest.mark.parametrize(
    ("depth", "deepest"), [(1, (4, 16, 16, 8)), (2, (8, 8, 8, 4)), (3, (16, 4, 4, 2))]
)
def test_each_level_of_depth_halves_the_grid_and_doubles_the_channels(
    depth: int, deepest: Shape
) -> None:
    vae = small_vae(base_filters=4, depth=depth, roi_size=(32, 32, 16))
    shapes = column(vae, volumes(2, 2, 32, 32, 16))
    assert shapes["encoder.stages"] == (2, *deepest)
    assert shapes["encoder"] == (2, math.prod(deepest))
    assert shapes["decoder"] == (2, 2, 32, 32, 16)


@pytest.mark.slow
def test_two_full_volumes_pass_forward_and_back_through_the_default_network() -> None:
    torch.manual_seed(0)
    vae = ResNet3dVAE()
    x = volumes(2, 4, 128, 128, 128)
    output = vae(x)
    assert output.x_hat.shape == x.shape
    assert (output.mu.shape, output.logvar.shape) == ((2, 128), (2, 128))
    terms = compute_elbo(x, *output, beta=1.0)
    for name, term in terms.items():
        assert torch.isfinite(term), name
        assert term >= 0, name
    terms["loss"].backward()
    for name, weight in vae.named_parameters():
        assert weight.grad is not None, name
        assert torch.isfinite(weight.grad).all(), name


# --- layers


def test_group_norm_is_the_only_normalisation() -> None:
    kinds = {type(module).__name__ for module in small_vae().modules()}
    assert {kind for kind in kinds if "Norm" in kind} == {"GroupNorm"}


@pytest.mark.parametrize(("channels", "groups"), [(32, 8), (12, 4), (6, 2), (7, 1)])
def test_groups_divide_the_channels_and_are_at_most_eight(channels: int, groups: int) -> None:
    assert group_norm(channels).num_groups == groups


def test_only_transposed_convolutions_double_the_grid() -> None:
    vae, depth = small_vae(depth=3), 3
    doubled: list[nn.Module] = []

    def watch(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        if inputs[0].dim() == output.dim() == 5 and output.shape[2:] != inputs[0].shape[2:]:
            assert output.shape[2:] == tuple(2 * side for side in inputs[0].shape[2:])
            doubled.append(module)

    for module in vae.decoder.modules():
        if not list(module.children()):  # single layers
            module.register_forward_hook(watch)
    vae.decode(torch.zeros(1, 3))
    assert [type(module) for module in doubled] == [nn.ConvTranspose3d] * depth


def test_a_residual_block_whose_second_convolution_is_silent_is_its_shortcut() -> None:
    block = ResidualBlock(4, 4)
    nn.init.zeros_(block.conv2.weight)
    x = volumes(1, 4, 4, 4, 4)
    kept = x.clone()
    assert torch.equal(block(x), kept)
    assert torch.equal(x, kept)  # the in-place activation spares the input


# --- learning


@pytest.mark.usefixtures("one_thread")
def test_thirty_steps_learn_one_sample_to_a_tenth_of_its_loss() -> None:
    vae = small_vae()
    # A bright ball in the dark, so that a constant volume is no answer.
    axis = torch.linspace(-1, 1, 8)
    z, y, x = torch.meshgrid(axis, axis, axis, indexing="ij")
    ball = (z.square() + y.square() + x.square() < 0.5).float()
    volume = torch.stack([ball, 1 - ball])[None]  # (1, 2, 8, 8, 8)
    optimiser = torch.optim.Adam(vae.parameters(), lr=5e-3)
    losses = []
    for _ in range(30):
        optimiser.zero_grad()
        loss = compute_elbo(volume, *vae(volume), beta=0.01)["loss"]
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] / 10  # 1/40 and less for the seeds tried


# --- refusals


@pytest.mark.parametrize(
    ("roi_size", "hint"),
    [
        ((100, 128, 128), "try 96 or 112"),  # 6 · 16 = 96 < 100 < 7 · 16 = 112
        ((128, 128, 130), "try 128 or 144"),
        ((128, 8, 128), "try 16$"),  # below the first multiple
        ((128, 128, 0), "try 16$"),
    ],
)
def test_a_side_that_cannot_be_halved_four_times_is_refused(roi_size: Shape, hint: str) -> None:
    with pytest.raises(UserError, match=hint) as refusal:
        ResNet3dVAE(roi_size=roi_size)
    assert str(refusal.value).startswith(f"dataset.roi_size={list(roi_size)}: each side must be ")
    assert "divisible by 16" in str(refusal.value)


def test_the_divisor_follows_the_depth() -> None:
    small_vae(depth=2, roi_size=(12, 12, 12))  # 12 = 3 · 2²
    with pytest.raises(UserError, match=r"divisible by 8 \(2\^model\.depth\); try 8 or 16"):
        small_vae(depth=3, roi_size=(12, 12, 12))


def test_two_sides_are_not_a_volume() -> None:
    with pytest.raises(UserError, match=r"dataset\.roi_size=\[64, 64\]: three sides are needed"):
        ResNet3dVAE(roi_size=(64, 64))


def test_batch_norm_is_refused() -> None:
    with pytest.raises(UserError, match=r"model\.norm=BATCH: only GROUP is offered"):
        small_vae(norm="BATCH")


@pytest.mark.parametrize("depth", [0, -1])
def test_no_depth_at_all_is_refused(depth: int) -> None:
    with pytest.raises(UserError, match=rf"model\.depth={depth}: at least 1 is needed; try 4"):
        small_vae(depth=depth)
