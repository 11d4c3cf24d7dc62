"""A device with wrong results is refused; here the device is the CPU with broken layers."""

from __future__ import annotations

from typing import Any

import lightning as L
import pytest
import torch
from torch import Tensor, nn

from vaelab.errors import UserError
from vaelab.models.conv2d import Conv2dVAE
from vaelab.models.resnet3d import ResNet3dVAE
from vaelab.models.vae import VAE
from vaelab.objective.annealing import Constant
from vaelab.objective.contract import Step
from vaelab.objective.elbo import ELBOLoss
from vaelab.training.hardware import Hardware
from vaelab.training.parity import Judged, ParityCheck, check_parity, relative_difference

from .conftest import lit_module, quiet_trainer

CPU = torch.device("cpu")


def network() -> ResNet3dVAE:
    torch.manual_seed(0)
    return ResNet3dVAE(base_filters=4, z_dim=4, roi_size=(16, 16, 16))


def judged(model: VAE) -> Judged:
    return Judged(model, ELBOLoss(), Step(1.0, 0, 2, "train"))


def batch() -> Tensor:
    return torch.randn(2, 4, 16, 16, 16, generator=torch.Generator().manual_seed(1))


class WrongForward(nn.ConvTranspose3d):
    """Shifts its result by one voxel."""

    def forward(self, x: Tensor, output_size: Any = None) -> Tensor:
        return super().forward(x).roll(1, -1)


class _WrongGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:  # type: ignore[override]
        return gradient.flip(0, 1)


class WrongBackward(nn.ConvTranspose3d):
    """Right in the forward pass, wrong in the backward pass."""

    def forward(self, x: Tensor, output_size: Any = None) -> Tensor:
        return _WrongGradient.apply(super().forward(x))


class Missing(nn.ConvTranspose3d):
    def forward(self, x: Tensor, output_size: Any = None) -> Tensor:
        raise NotImplementedError("The operator 'aten::conv_transpose3d' is not implemented")


class Lossy(nn.ConvTranspose3d):
    """Rounds its result to ``bits`` bits after the point."""

    bits = 16

    def forward(self, x: Tensor, output_size: Any = None) -> Tensor:
        exact = super().forward(x)
        return exact + ((exact * 2**self.bits).round() / 2**self.bits - exact).detach()


class Nan(nn.ConvTranspose3d):
    def forward(self, x: Tensor, output_size: Any = None) -> Tensor:
        return super().forward(x) * float("nan")


def on_broken_device(broken: type[nn.ConvTranspose3d], monkeypatch: pytest.MonkeyPatch) -> VAE:
    """A network whose copy, once moved to the device in question, computes with ``broken``."""
    model = network()
    whole = nn.Module.to

    def to(self: nn.Module, target: Any) -> nn.Module:
        copied = model not in list(self.modules())
        if isinstance(target, torch.device) and copied:  # the reference's is asked for by name
            for module in self.modules():
                if type(module) is nn.ConvTranspose3d:
                    module.__class__ = broken
        return whole(self, target)

    monkeypatch.setattr(nn.Module, "to", to)
    return model


@pytest.mark.parametrize("channels_last", [False, True])
def test_the_cpu_agrees_with_itself(channels_last: bool) -> None:
    layout: Any = torch.channels_last_3d if channels_last else torch.contiguous_format
    check_parity(judged(network()), {"image": batch().to(memory_format=layout)}, CPU)


def test_images_are_checked_as_volumes_are() -> None:
    check_parity(judged(Conv2dVAE(1, 4, 4, (32, 32))), {"image": torch.rand(2, 1, 32, 32)}, CPU)


def test_the_model_stays_as_it_is() -> None:
    model = network().eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    check_parity(judged(model), {"image": batch()}, CPU)
    assert not model.training
    assert all(weight.grad is None for weight in model.parameters())
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_a_wrong_result_is_refused_with_the_tensor_and_the_module(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = on_broken_device(WrongForward, monkeypatch)
    first = next(n for n, m in model.named_modules() if type(m) is nn.ConvTranspose3d)
    with pytest.raises(UserError, match=r"x_hat in float32 differs from the CPU's") as caught:
        check_parity(judged(model), {"image": batch()}, CPU)
    assert f"the first module to differ is {first} (ConvTranspose3d)" in str(caught.value)
    assert "hardware=cpu" in str(caught.value)


def test_a_wrong_gradient_is_refused_though_the_result_is_right(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = on_broken_device(WrongBackward, monkeypatch)
    with pytest.raises(UserError, match=r"gradient of \S+ in float32 differs .* a backward pass"):
        check_parity(judged(model), {"image": batch()}, CPU)


def test_a_missing_operation_is_refused_by_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    model = on_broken_device(Missing, monkeypatch)
    with pytest.raises(UserError, match=r"aten::conv_transpose3d.*use hardware=cpu"):
        check_parity(judged(model), {"image": batch()}, CPU)


def test_a_result_that_is_nan_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="x_hat in float32 differs"):
        check_parity(judged(on_broken_device(Nan, monkeypatch)), {"image": batch()}, CPU)


def test_rounding_in_the_sixteenth_bit_is_no_mismatch(monkeypatch: pytest.MonkeyPatch) -> None:
    check_parity(judged(on_broken_device(Lossy, monkeypatch)), {"image": batch()}, CPU)


def test_rounding_in_the_fifth_bit_is_a_mismatch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Lossy, "bits", 5)
    with pytest.raises(UserError, match="x_hat in float32 differs"):
        check_parity(judged(on_broken_device(Lossy, monkeypatch)), {"image": batch()}, CPU)


def test_relative_difference_of_nothing_to_nothing_is_0() -> None:
    assert relative_difference(torch.zeros(3), torch.zeros(3)) == 0
    assert relative_difference(torch.tensor([3.0, 4.5]), torch.tensor([3.0, 4.0])) == 0.1


# --- in a run


def fit(model: VAE, callback: ParityCheck) -> L.Trainer:
    trainer = quiet_trainer(callback, max_epochs=1, limit_val_batches=0)
    samples: Any = [{"image": batch(), "id": ["a", "b"]}] * 2
    loader = torch.utils.data.DataLoader(samples, batch_size=None)
    trainer.fit(lit_module(model, Constant(1.0), 1e-3), loader, loader)
    return trainer


def test_a_run_goes_on_where_the_first_batch_agrees() -> None:
    assert fit(network(), ParityCheck()).global_step == 2


def test_a_run_stops_before_it_learns_anything(monkeypatch: pytest.MonkeyPatch) -> None:
    model = on_broken_device(WrongForward, monkeypatch)
    before = [weight.detach().clone() for weight in model.parameters()]
    with pytest.raises(UserError, match="x_hat in float32 differs"):
        fit(model, ParityCheck())
    pairs = zip(before, model.parameters(), strict=True)
    assert all(torch.equal(old, new) for old, new in pairs)


@pytest.mark.parametrize(
    ("accelerator", "asked", "checked"),
    [
        ("mps", "auto", True), ("mps", False, False), ("cuda", "auto", False),
        ("cuda", True, True), ("cpu", "auto", False), ("cpu", True, True),
    ],
)  # fmt: skip
def test_mps_alone_is_checked_unless_asked_otherwise(
    monkeypatch: pytest.MonkeyPatch, accelerator: str, asked: bool | str, checked: bool
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    callbacks = Hardware(accelerator, parity_check=asked).callbacks()
    assert [type(callback) for callback in callbacks] == [ParityCheck] * checked


def test_bfloat16_on_the_cpu_is_checked() -> None:
    callbacks = Hardware("cpu", precision="bf16-mixed").callbacks()
    assert [type(callback) for callback in callbacks] == [ParityCheck]


def test_bfloat16_may_round_but_not_be_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    # Depth 2: on a grid of 2^3 voxels bfloat16 gradients are really wrong on some CPUs.
    torch.manual_seed(0)
    model = ResNet3dVAE(base_filters=8, z_dim=4, depth=2, roi_size=(16, 16, 16))
    check_parity(judged(model), {"image": batch()}, CPU, torch.bfloat16)
    with pytest.raises(UserError, match="in bfloat16 differs from the CPU's in float32"):
        check_parity(
            judged(on_broken_device(WrongForward, monkeypatch)),
            {"image": batch()},
            CPU,
            torch.bfloat16,
        )
