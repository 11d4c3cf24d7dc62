"""Training steps of several models in several variants, measured in turn."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from vaelab.benchmark.timing import Timing, matmul_peak, time_in_turn
from vaelab.benchmark.variants import DTYPES, BareStep, Variant, flops, peak_memory
from vaelab.errors import UserError
from vaelab.models.vae import VAE
from vaelab.objective.contract import Objective
from vaelab.progress import progress

log = logging.getLogger(__name__)


def measure_steps(
    models: Mapping[str, VAE],
    objective: Objective,
    batch: Mapping[str, Any],
    variants: Sequence[Variant],
    device: torch.device,
    rounds: int,
    seconds: float,
    memory: bool = True,
    progress_bar: bool = False,
) -> dict[str, Any]:
    """Time, speed and memory of a step of each model in each variant.

    Args:
        models: name → network; the first is compared with the others.
        objective: of all models.
        batch: of the dataset.
        variants: the others are compared with the first.
        device: where to compute.
        rounds: number of measurements of each.
        seconds: a measurement repeats a step until it takes about this long.
        memory: measure peak memory, in a subprocess for each variant.
        progress_bar: show a progress bar.

    Raises:
        UserError: when no variant is available.
    """
    steps: dict[tuple[str, str], BareStep] = {}
    unavailable: dict[str, str] = {}
    for variant in variants:
        for name, model in models.items():
            reason = variant.why_not(model, device)
            if reason is None:
                step = BareStep(model, objective, batch, variant, device)
                reason = _reason_to_fail(step)
                if reason is None:
                    steps[variant.name, name] = step
            if reason is not None:
                unavailable[f"{name} {variant.name}"] = reason
    if not steps:
        raise UserError(f"task.variants: none can be computed: {unavailable}")
    calls = {
        f"{variant} {name} {what}": getattr(step, method)
        for (variant, name), step in steps.items()
        for what, method in (("train", "train"), ("forward", "infer"))
    }
    times = time_in_turn(calls, rounds, seconds, device, progress_bar)
    counts = {
        name: flops(BareStep(models[name], objective, batch, Variant("fp32"), device))
        for name in dict.fromkeys(name for _, name in steps)
    }
    peaks = {
        name: matmul_peak(device, dtype)
        for name, dtype in DTYPES.items()
        if any(step.variant.dtype == dtype for step in steps.values())
    }
    measured: dict[str, dict[str, Any]] = {}
    for variant_name, name in progress(steps, desc="memory", shown=progress_bar):
        entry = measured.setdefault(variant_name, {})
        timings = {what: times[f"{variant_name} {name} {what}"] for what in ("train", "forward")}
        dtype = Variant(variant_name).dtype
        peak = next(peaks[key] for key, value in DTYPES.items() if value == dtype)
        speed = counts[name]["training"] / timings["train"].median
        entry[name] = {what: timing.summary() for what, timing in timings.items()}
        entry[name] |= {
            "samples_per_second": len(batch["image"]) / timings["train"].median,
            "flops_per_second": speed,
            "share_of_peak": speed / peak,
        }
        if memory:
            entry[name]["peak_memory"] = peak_memory(
                models[name], objective, batch, Variant(variant_name), device
            )
    _compare(measured, times)
    return {
        "variants": measured,
        "unavailable": unavailable,
        "matmul_flops_per_second": peaks,
        "flops": counts,
        "parameters": {
            name: sum(weight.numel() for weight in model.parameters())
            for name, model in models.items()
        },
    }


def _compare(measured: dict[str, dict[str, Any]], times: Mapping[str, Timing]) -> None:
    """Add the ratios of training steps to those of MONAI and to those of the first variant."""
    first = next(iter(measured))
    for variant, entry in measured.items():
        for name in entry:
            mine = times[f"{variant} {name} train"]
            reference = times.get(f"{first} {name} train")
            if reference is not None:
                entry[name]["times_as_fast_as_first"] = reference.over(mine).summary()
        if {"vaelab", "monai"} <= entry.keys():
            theirs = times[f"{variant} monai train"]
            entry["over_monai"] = times[f"{variant} vaelab train"].over(theirs).summary()


def _reason_to_fail(step: BareStep) -> str | None:
    """Try a step; returns the error, or None when it succeeds."""
    try:
        step.train()
        step.infer()
    except (RuntimeError, MemoryError, ImportError, AttributeError) as error:
        return next(iter(str(error).strip().splitlines()), type(error).__name__)
    return None
