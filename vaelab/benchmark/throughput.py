"""The speed of reading samples from raw files, from the cache and from the loader."""

from __future__ import annotations

import gzip
import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from vaelab.benchmark.timing import time_in_turn
from vaelab.data.index import Record
from vaelab.data.module import SplitDataModule

PAGE = 1024
"""Floats in a page of memory: touching one per page reads all of a mapped file."""


def data_throughput(
    data: SplitDataModule, cases: int, rounds: int, folder: Path, progress_bar: bool = False
) -> dict[str, Any]:
    """Samples per second of each step from files to batches.

    All files are read once before, so that they come from the system's page cache in every case.

    Args:
        data: set up, nothing read yet; its train split is used, its own cache is not changed.
        cases: largest number of samples.
        rounds: number of measurements of each.
        folder: empty, for caches.
        progress_bar: show a progress bar.
    """
    folder.mkdir(parents=True, exist_ok=True)
    records = data.splits["train"][:cases]
    with _quiet():
        plain = data.plain_pipeline()

    def preprocess() -> None:
        with TemporaryDirectory(dir=folder, ignore_cleanup_errors=True) as cache:
            data.limited(cases, Path(cache)).preprocess("train")

    def one_at_a_time() -> None:
        assert plain is not None
        for record in records:
            plain(dict(record))

    raw: dict[str, Callable[[], object]] = {
        "vaelab": preprocess,
        "reading": lambda: [_read_raw(path) for path in _files(records)],
    }
    if plain is not None:
        raw["plain_monai"] = one_at_a_time
    with _quiet():
        times = time_in_turn(raw, rounds, seconds=0.2, progress_bar=progress_bar)
    count = len(records)
    result: dict[str, Any] = {
        "cases": count,
        "preprocessing": {
            "cases_per_second": {name: count / time.median for name, time in times.items()},
            "seconds_per_case": {name: time.median / count for name, time in times.items()},
            "over_reading": times["vaelab"].over(times["reading"]).median,
        },
    }
    if plain is not None:
        speed_up = times["plain_monai"].over(times["vaelab"])
        result["preprocessing"]["times_as_fast_as_plain_monai"] = speed_up.summary()
    with TemporaryDirectory(dir=folder, ignore_cleanup_errors=True) as cache:
        result |= _from_cache(data, cases, Path(cache), rounds, progress_bar)
    return result


def _from_cache(
    data: SplitDataModule, cases: int, cache: Path, rounds: int, progress_bar: bool
) -> dict[str, Any]:
    filled = data.limited(cases, cache)
    filled.preprocess("train")
    dataset = filled.dataset("train")
    read_all(dataset)
    entries = sorted(path for path in cache.rglob("*") if path.is_file())
    size = sum(path.stat().st_size for path in entries)
    loader = filled.loader("train", shuffle=True)
    ways: dict[str, Callable[[], object]] = {
        "loader": lambda: [batch["image"].shape for batch in loader],
    }
    if entries:  # there are none with dataset.cache_rate=0
        ways["plain"] = lambda: [path.read_bytes() for path in entries]
        ways["epoch"] = lambda: read_all(dataset)
        if data.keeps_samples_in_memory:  # an epoch then reads no cache
            ways["first"] = lambda: read_all(data.limited(cases, cache).dataset("train"))
    times = time_in_turn(ways, rounds, seconds=0.2, progress_bar=progress_bar)
    count = len(filled.splits["train"])
    result: dict[str, Any] = {
        "loader": {
            "samples_per_second": count / times["loader"].median,
            "batch_size": data.batch_size,
            "num_workers": data.num_workers,
        },
    }
    if entries:
        result["cache"] = {
            "bytes": size,
            "bytes_per_case": size / count,
            "gigabytes_per_second": {
                name: size / times[name].median / 1e9 for name in ways if name != "loader"
            },
            "share_of_plain_read": times["plain"].over(times["epoch"]).summary(),
        }
    return result


def read_all(dataset: Any) -> None:
    """Read every sample, including memory-mapped files."""
    for index in range(len(dataset)):
        for value in dataset[index].values():
            if isinstance(value, torch.Tensor):
                value.flatten()[::PAGE].sum()


def _files(records: Sequence[Record]) -> list[str]:
    """Paths in the records."""
    values = [str(value) for record in records for value in record.values()]
    return [value for value in values if os.path.isfile(value)]


def _read_raw(path: str) -> bytes:
    """The decompressed bytes of a file, which every reader needs."""
    content = Path(path).read_bytes()
    return gzip.decompress(content) if path.endswith(".gz") else content


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence warnings of MONAI's readers and resampling."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
