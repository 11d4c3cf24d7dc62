"""The benchmark measures all that it promises; nothing here depends on how fast anything is."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from PIL import Image

from vaelab.errors import UserError
from vaelab.report.benchmark_figures import benchmark_figure
from vaelab.report.benchmark_text import benchmark_markdown
from vaelab.tasks.benchmark import Benchmark, variant_of
from vaelab.training.hardware import Hardware

from ..conftest import CLI, TINY_MRI

QUICK = ("task=benchmark", "task.rounds=1", "task.seconds=0", "task.epochs=2", "task.cases=2")


def numbers(node: Any, path: str = "") -> Iterator[tuple[str, float]]:
    if isinstance(node, dict):
        for key, value in node.items():
            yield from numbers(value, f"{path}/{key}")
    elif isinstance(node, (int, float)) and not isinstance(node, bool):
        yield path, node


class InThisProcess:
    """Stands in for the process that measures memory; tests/training has the real one."""

    def __init__(self, *_: Any, **__: Any) -> None:
        pass

    def __enter__(self) -> InThisProcess:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def submit(self, call: Callable[[bytes], Any], job: bytes) -> Any:
        return SimpleNamespace(result=lambda: call(job))


@pytest.mark.slow
def test_all_that_is_promised_is_measured_and_written(
    cli: CLI, phantoms: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("vaelab.benchmark.variants.ProcessPoolExecutor", InThisProcess)
    asked = ("task.variants=[channels_last,fp16]", "task.peer_channels=[4,8]")
    assert cli(*TINY_MRI, phantoms, *QUICK, *asked, "hydra.run.dir=run") == 0
    run = tmp_path / "run"
    result = json.loads((run / "benchmark.json").read_text())

    found = result["steps"]["variants"]
    assert list(found) == ["channels_last"]
    for entry in found.values():
        assert {"vaelab", "monai", "over_monai"} == entry.keys()
        for name in ("vaelab", "monai"):
            promised = {
                "train", "forward", "samples_per_second", "flops_per_second", "share_of_peak",
                "peak_memory", "times_as_fast_as_first",
            }  # fmt: skip
            assert entry[name].keys() == promised
            assert entry[name]["peak_memory"]["rss"] > 2**26  # PyTorch alone is more
    # What cannot be computed here is told, and has stopped nothing.
    assert result["steps"]["unavailable"] == {
        "vaelab fp16": "16-mixed needs a GPU", "monai fp16": "16-mixed needs a GPU",
    }  # fmt: skip
    assert result["steps"]["matmul_flops_per_second"].keys() == {"fp32"}
    assert result["steps"]["flops"]["vaelab"].keys() == {"forward", "training"}
    assert result["start_up"]["seconds"].keys() == {"hydra", "help", "full"}
    assert result["data"]["preprocessing"]["cases_per_second"].keys() == {
        "vaelab", "plain_monai", "reading",
    }  # fmt: skip
    assert result["data"]["cache"]["gigabytes_per_second"].keys() == {"epoch", "plain"}
    assert result["data"]["loader"]["samples_per_second"] > 0
    assert result["lightning"]["seconds"].keys() == {"bare", "lightning"}
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    threads = result["machine"]["threads"]
    assert [(beside["busy"], beside["fair_share"]) for beside in result["neighbours"]] == [
        (factor * cores, factor + threads / cores) for factor in (1, 2, 4)
    ]
    epoch = result["epoch"]
    parts = [epoch[part] for part in ("waiting_for_data", "training_steps", "rest")]
    assert sum(parts) == pytest.approx(1)

    measured = dict(numbers(result))
    assert all(math.isfinite(value) for value in measured.values())
    spread = ("sd", "rest", "load_average", "num_workers")  # these may be 0
    signed = "overhead_percent"  # a bare loop can have met the busier moment
    assert {
        path: value
        for path, value in measured.items()
        if value <= 0 and not path.endswith(spread) and signed not in path
    } == {}

    text = (run / "benchmark.md").read_text()
    assert text.index("## Ratios") < text.index("## Absolute figures")
    assert "fp16: 16-mixed needs a GPU" in text
    with Image.open(run / "benchmark.png") as picture:
        assert picture.width > 1000
    left = {path.name for path in run.iterdir()}
    assert not left & {"benchmark", "checkpoints", "cache", "logs"}  # what it trained is gone

    panels = len(benchmark_figure(result).axes)
    del result["data"]["cache"]  # as with dataset.cache_rate=0
    assert "plain read" not in benchmark_markdown(result)
    assert len(benchmark_figure(result).axes) == panels - 1


@pytest.mark.parametrize(
    ("key", "value"),
    [("rounds", 0), ("cases", 0), ("epochs", 1), ("batch_size", 0), ("seconds", -1.0)],
)
def test_impossible_sizes_are_refused_by_name(key: str, value: float):
    with pytest.raises(UserError, match=rf"task\.{key}={value}: "):
        Benchmark(**{key: value})


def test_at_least_one_variant_is_needed():
    with pytest.raises(UserError, match=r"task\.variants=\[\]"):
        Benchmark(variants=[])


@pytest.mark.parametrize(
    ("hardware", "expected"),
    [
        (Hardware("cpu"), "fp32+channels_last"),
        (Hardware("cpu", channels_last=False), "fp32"),
        (Hardware("cpu", precision="bf16-mixed"), "bf16+channels_last"),
        (Hardware("cpu", precision="16-mixed"), "fp32+channels_last"),  # as the trainer does
    ],
)
def test_the_bare_loop_computes_as_the_trainer_does(hardware: Hardware, expected: str):
    assert variant_of(hardware).name == expected
