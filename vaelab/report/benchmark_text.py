"""A benchmark as Markdown: ratios first, absolute figures second."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from vaelab.report.markdown import table
from vaelab.text import number

Result = Mapping[str, Any]

READS = {"plain": "plain read", "epoch": "read of an epoch", "first": "first read of the cache"}


def benchmark_markdown(result: Result) -> str:
    """The results of ``task=benchmark`` as tables.

    Args:
        result: content of ``benchmark.json``.
    """
    machine = result["machine"]
    lines = [
        f"# Benchmark of {result['model']}",
        "",
        f"{machine['device']}, {machine['cpu']}, {machine['threads']} of {machine['cores']} cores, "
        f"{machine['cpu_capability']}, torch {machine['torch']}, {machine['date']}. "
        f"Batch {'×'.join(map(str, result['batch']))}. Medians over {result['rounds']} rounds in "
        f"which all contenders take turns, ± standard deviation over the rounds.",
        "",
        "## Ratios",
        "",
        table(["what", "measured"], _ratios(result)),
        "",
        "## A training step",
        "",
        table(
            [
                "variant", "network", "training s", "forward s", "samples/s",
                "GFLOP/s", "of matmul peak", "peak memory",
            ],
            _steps(result["steps"]),
        ),
        "",
        *_footnotes(result["steps"]),
        "",
        "## Absolute figures",
        "",
        table(["what", "measured"], _absolute(result)),
    ]  # fmt: skip
    return "\n".join(lines) + "\n"


def _ratios(result: Result) -> Iterator[Sequence[str]]:
    steps = result["steps"]["variants"]
    first = next(iter(steps))
    for variant, entry in steps.items():
        if "over_monai" in entry:
            yield f"step, vaelab : MONAI's VarAutoEncoder, {variant}", _pm(entry["over_monai"])
    for variant, entry in steps.items():
        for name in ("vaelab", "monai"):
            speed_up = entry.get(name, {}).get("times_as_fast_as_first")
            if speed_up is not None and variant != first:
                yield f"speed-up of {variant} over {first}, {name}", _pm(speed_up)
    overhead = result["lightning"]["overhead_percent"]
    yield (
        f"Lightning over the bare loop ({result['lightning']['variant']})",
        f"{overhead['median']:+.2f} ± {overhead['sd']:.2f} %",
    )
    for beside in result["neighbours"]:
        yield (
            f"step beside {beside['busy']} busy processes : alone",
            f"{beside['median']:.3g}, at worst {beside['worst']:.3g} "
            f"(a fair share of the cores: {beside['fair_share']:.3g})",
        )
    epoch = result["epoch"]
    yield "share of an epoch that waits for data", f"{epoch['waiting_for_data']:.2%}"
    preprocessing = result["data"]["preprocessing"]
    if "times_as_fast_as_plain_monai" in preprocessing:
        yield (
            "speed-up of preprocessing over plain MONAI, one case at a time",
            _pm(preprocessing["times_as_fast_as_plain_monai"]),
        )
    yield (
        "preprocessing : bare reading and unpacking of the files",
        f"{preprocessing['over_reading']:.3g}",
    )
    if "cache" in result["data"]:
        yield (
            "reads of an epoch, share of the speed of a plain read of the cache",
            _pm(result["data"]["cache"]["share_of_plain_read"]),
        )
    start_up = result["start_up"]
    yield "--help : import hydra", _pm(start_up["help_over_hydra"])
    yield "all imports of training : import hydra", _pm(start_up["full_over_hydra"])


def _steps(steps: Result) -> Iterator[Sequence[str]]:
    for variant, entry in steps["variants"].items():
        for name in ("vaelab", "monai"):
            if name in entry:
                timing = entry[name]
                yield (
                    variant, name, _pm(timing["train"]), _pm(timing["forward"]),
                    f"{timing['samples_per_second']:.3g}",
                    f"{timing['flops_per_second'] / 1e9:.4g}",
                    f"{timing['share_of_peak']:.0%}",
                    _memory(timing.get("peak_memory", {})),
                )  # fmt: skip


def _footnotes(steps: Result) -> Iterator[str]:
    counts = ", ".join(
        f"{name} {steps['parameters'][name] / 1e6:.1f} M parameters and "
        f"{count['training'] / 1e9:.4g} GFLOP"
        for name, count in steps["flops"].items()
    )
    peaks = ", ".join(
        f"{name} {speed / 1e9:.4g} GFLOP/s"
        for name, speed in steps["matmul_flops_per_second"].items()
    )
    yield (
        f"A training step is forward, backward and AdamW: {counts} (convolutions and matrix "
        f"products, forward and backward). Matrix products measured here: {peaks}. Peak memory is "
        f"that of a subprocess, libraries included."
    )
    for name, reason in steps["unavailable"].items():
        yield f"- not available: {name}: {reason}"


def _absolute(result: Result) -> Iterator[Sequence[str]]:
    for name, seconds in result["start_up"]["seconds"].items():
        yield f"start-up, {name}", f"{_pm(seconds)} s"
    epoch = result["epoch"]
    yield "set-up until after the first step", f"{epoch['seconds_to_first_step']:.3g} s"
    data = result["data"]
    for name, speed in data["preprocessing"]["cases_per_second"].items():
        yield f"raw files, {name.replace('_', ' ')}", f"{number(speed, '.3g')} cases/s"
    if "cache" in data:
        for name, speed in data["cache"]["gigabytes_per_second"].items():
            yield f"samples, {READS[name]}", f"{speed:.3g} GB/s"
        yield "cache entry", f"{data['cache']['bytes_per_case'] / 1e6:.3g} MB"
    loader = data["loader"]
    yield (
        f"loader, batch {loader['batch_size']}, {loader['num_workers']} workers",
        f"{number(loader['samples_per_second'])} samples/s",
    )
    for name, seconds in result["lightning"]["seconds"].items():
        yield f"step, {name} ({result['lightning']['variant']})", f"{_pm(seconds)} s"
    yield "training part of an epoch", f"{epoch['seconds']:.3g} s"
    parts = ("training_steps", "waiting_for_data", "rest")
    yield "its parts: steps, waiting, rest", ", ".join(f"{epoch[part]:.1%}" for part in parts)


def _pm(value: Mapping[str, float]) -> str:
    return f"{value['median']:.3g} ± {value['sd']:.2g}"


def _memory(peak: Mapping[str, int]) -> str:
    names = {"rss": "RAM", "device": "device"}
    return ", ".join(f"{size / 2**30:.2f} GiB {names[kind]}" for kind, size in peak.items()) or "–"
