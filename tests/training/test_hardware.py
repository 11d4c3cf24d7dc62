"""Hardware settings on simulated machines: choices, fallbacks, refusals."""

from __future__ import annotations

import logging
import math
from typing import Any

import pytest
import torch
from lightning.pytorch.plugins.precision import MixedPrecision

from vaelab.errors import UserError
from vaelab.training.hardware import Hardware


@pytest.fixture(autouse=True)
def captured(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    """The log of the module."""
    caplog.set_level(logging.INFO, logger="vaelab.training.hardware")
    return caplog


def warnings_in(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.message for record in caplog.records if record.levelno == logging.WARNING]


def simulate(
    monkeypatch: pytest.MonkeyPatch, cuda: bool = False, mps: bool = False, mps_built: bool = False
) -> None:
    """Make PyTorch see these accelerators and no others."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
    monkeypatch.setattr(torch.backends.mps, "is_built", lambda: mps or mps_built)


def without_plugins(kwargs: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in kwargs.items() if name != "plugins"}


# --- choosing


@pytest.mark.parametrize(
    ("cuda", "mps", "expected"),
    [(True, True, "cuda"), (True, False, "cuda"), (False, True, "mps"), (False, False, "cpu")],
)
def test_auto_prefers_cuda_then_mps_then_the_cpu(
    monkeypatch: pytest.MonkeyPatch, cuda: bool, mps: bool, expected: str
) -> None:
    simulate(monkeypatch, cuda=cuda, mps=mps)
    assert Hardware().resolve() == expected
    assert Hardware().device == torch.device(expected)


@pytest.mark.parametrize("accelerator", ["cuda", "mps", "cpu"])
def test_an_available_accelerator_is_used(
    monkeypatch: pytest.MonkeyPatch, accelerator: str
) -> None:
    simulate(monkeypatch, cuda=True, mps=True)
    assert Hardware(accelerator=accelerator).resolve() == accelerator


def test_auto_on_a_plain_machine_is_the_cpu_without_a_warning(
    monkeypatch: pytest.MonkeyPatch, captured: pytest.LogCaptureFixture
) -> None:
    simulate(monkeypatch)
    assert without_plugins(Hardware().trainer_kwargs()) == {
        "accelerator": "cpu", "devices": 1, "strategy": "auto", "precision": "32-true",
    }  # fmt: skip
    assert [record.message for record in captured.records] == ["computing on cpu in 32-true"]


def test_lightning_calls_cuda_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    simulate(monkeypatch, cuda=True)
    hardware = Hardware("cuda", devices="auto", precision="bf16-mixed", strategy="ddp")
    assert without_plugins(hardware.trainer_kwargs()) == {
        "accelerator": "gpu", "devices": "auto", "strategy": "auto", "precision": "bf16-mixed",
    }  # fmt: skip


@pytest.mark.parametrize(("accelerator", "cards"), [("cpu", 0), ("cuda", 4)])
def test_several_devices_are_several_processes_that_count_each_sample_once(
    monkeypatch: pytest.MonkeyPatch, accelerator: str, cards: int
) -> None:
    simulate(monkeypatch, cuda=True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: cards)
    hardware = Hardware(accelerator, devices=4)
    assert hardware.check_processes(started=0) == 4
    kwargs = hardware.trainer_kwargs()
    assert (kwargs["devices"], kwargs["strategy"]) == (4, "ddp")
    assert kwargs["use_distributed_sampler"] is False
    assert kwargs["sync_batchnorm"] == (accelerator == "cuda")


@pytest.mark.parametrize(
    ("hardware", "started", "message"),
    [
        (Hardware("mps", devices=2), 0, "an Apple machine has one device"),
        (Hardware("cuda", devices=3), 0, "this machine has 1 cards"),
        (Hardware("cpu", devices=2), 3, "asks for 2 processes, and 3 were started"),
        (Hardware("cpu"), 2, "asks for 1 processes, and 2 were started"),
        (Hardware("cpu", num_nodes=2), 0, "by torchrun or srun"),
    ],
)
def test_a_number_of_devices_that_has_no_effect_is_refused(
    monkeypatch: pytest.MonkeyPatch, hardware: Hardware, started: int, message: str
) -> None:
    simulate(monkeypatch, cuda=True, mps=True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(UserError, match=message):
        hardware.check_processes(started)


@pytest.mark.parametrize(
    ("asked", "kind", "expected"),
    [
        ("auto", "cpu", True),
        ("auto", "cuda", False),
        ("auto", "mps", False),  # where it was silently wrong
        (True, "cuda", True),
        (False, "cpu", False),
    ],
)
def test_channels_last_is_left_to_the_cpu_unless_it_is_asked_for(
    monkeypatch: pytest.MonkeyPatch, asked: bool | str, kind: str, expected: bool
) -> None:
    simulate(monkeypatch, cuda=kind == "cuda", mps=kind == "mps")
    assert Hardware(channels_last=asked).is_channels_last is expected


# --- falling back


def test_cuda_that_is_not_available_becomes_the_cpu_with_a_warning(
    monkeypatch: pytest.MonkeyPatch, captured: pytest.LogCaptureFixture
) -> None:
    simulate(monkeypatch)
    assert Hardware("cuda", devices="auto", strategy="ddp").trainer_kwargs()["accelerator"] == "cpu"
    assert warnings_in(captured) == [
        "hardware.accelerator=cuda is not available on this machine "
        "(torch.cuda.is_available() is False); using the CPU"
    ]


def test_a_missing_accelerator_falls_back_to_the_cpu_and_not_to_another(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    simulate(monkeypatch, cuda=True)
    assert Hardware("mps").resolve() == "cpu"


@pytest.mark.parametrize(
    ("built", "reason"),
    [
        (False, "torch.backends.mps.is_built() is False: this PyTorch has no MPS"),
        (True, "torch.backends.mps.is_available() is False: macOS 12.3+ on Apple silicon"),
    ],
)
def test_the_warning_distinguishes_a_pytorch_without_mps_from_a_machine_without_it(
    monkeypatch: pytest.MonkeyPatch, captured: pytest.LogCaptureFixture, built: bool, reason: str
) -> None:
    simulate(monkeypatch, mps_built=built)
    assert Hardware("mps").trainer_kwargs()["accelerator"] == "cpu"
    (sentence,) = warnings_in(captured)
    assert sentence.startswith(
        f"hardware.accelerator=mps is not available on this machine ({reason}"
    )
    assert sentence.endswith("using the CPU")


def test_half_precision_on_the_cpu_becomes_full_with_a_warning(
    monkeypatch: pytest.MonkeyPatch, captured: pytest.LogCaptureFixture
) -> None:
    simulate(monkeypatch)
    assert Hardware("cpu", precision="16-mixed").trainer_kwargs()["precision"] == "32-true"
    assert warnings_in(captured) == [
        "hardware.precision=16-mixed needs a GPU; using 32-true on the CPU"
    ]


def test_bfloat16_needs_no_gpu(
    monkeypatch: pytest.MonkeyPatch, captured: pytest.LogCaptureFixture
) -> None:
    simulate(monkeypatch)
    assert Hardware("cpu", precision="bf16-mixed").trainer_kwargs()["precision"] == "bf16-mixed"
    assert warnings_in(captured) == []


# --- the scaler


@pytest.mark.parametrize("accelerator", ["cuda", "mps"])
def test_the_scale_of_gradients_starts_where_it_was_asked_to(
    monkeypatch: pytest.MonkeyPatch, accelerator: str
) -> None:
    simulate(monkeypatch, cuda=True, mps=True)
    kwargs = Hardware(accelerator, precision="16-mixed", grad_scale=0.25).trainer_kwargs()
    assert "precision" not in kwargs  # Lightning takes the plugin or the name, not both
    (plugin,) = (plugin for plugin in kwargs["plugins"] if isinstance(plugin, MixedPrecision))
    assert (plugin.precision, plugin.device) == ("16-mixed", accelerator)
    assert plugin.scaler is not None
    assert plugin.scaler.get_scale() == 0.25
    assert plugin.scaler.get_growth_interval() == 2000


# --- refusals


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"accelerator": "tpu"}, "accelerator=tpu: one of auto, cuda, mps, cpu"),
        ({"precision": "16"}, "precision=16: one of auto, 32-true, 16-mixed, bf16"),
        ({"devices": 0}, "devices=0: a number from 1 on, or auto"),
        ({"devices": "two"}, "devices=two: a number from 1 on, or auto"),
        ({"channels_last": "maybe"}, "channels_last=maybe: one of auto, true, false"),
        ({"parity_check": "maybe"}, "parity_check=maybe: one of auto, true, false"),
        ({"grad_scale": 0.0}, "grad_scale=0.0: must be above 0; try 0"),
        ({"grad_scale": math.nan}, "grad_scale=nan: must be above 0; try 0"),
        ({"growth_interval": 0}, "growth_interval=0: at least 1 is needed"),
        ({"threads": 0}, "threads=0: at least 1 is needed, or null"),
    ],
)
def test_an_impossible_value_is_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=rf"^hardware\.{message}"):
        Hardware(**settings)


# --- threads


def test_threads_are_as_many_as_asked_for_and_pytorchs_choice_where_none_are() -> None:
    before = torch.get_num_threads()
    try:
        Hardware(threads=before + 1).set_threads()
        assert torch.get_num_threads() == before + 1
        Hardware().set_threads()
        assert torch.get_num_threads() == before + 1
    finally:
        torch.set_num_threads(before)
