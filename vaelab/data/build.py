"""Fill a cache before the first epoch: all cores, a progress bar, and no surprise on the way."""

from __future__ import annotations

import logging
import os
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import torch
from torch.utils.data import ConcatDataset, Dataset

from vaelab.data.cache import CURES, CacheFullError, WholeEntries
from vaelab.data.index import enumerate_names
from vaelab.errors import UserError
from vaelab.progress import progress

log = logging.getLogger(__name__)

Item = TypeVar("Item")
Result = TypeVar("Result")

MAX_THREADS = 8  # each holds a subject at full size, a few hundred MB
BLOCK = 32  # items handed to a thread at once
ABANDONED = 3600.0  # seconds after which a partial file has no writer any more


class Missing(NamedTuple):
    """A record without an entry."""

    dataset: WholeEntries
    item: Mapping[str, Any]
    path: Path


def fill_cache(datasets: Iterable[Dataset[Any]], progress_bar: bool = True) -> None:
    """Make every entry that is missing, several at once.

    Interrupted, it leaves the entries that are done, each of them whole.

    Raises:
        UserError: before anything is made when the disk cannot hold it; otherwise at the end,
            listing every record that cannot be preprocessed.
    """
    missing = find_missing(datasets)
    if not missing:
        return
    check_room(missing)
    failures: list[str] = []
    with _one_thread_each(), thread_pool() as pool:
        jobs = {pool.submit(one.dataset.make, one.item, one.path): one for one in missing}
        try:
            for job in progress(
                as_completed(jobs), "preprocessing", len(jobs), unit="sample", shown=progress_bar,
            ):  # fmt: skip
                failures += _failure(job.exception(), jobs.pop(job))
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise
    if failures:
        raise UserError(
            f"{len(failures)} of {len(missing)} samples cannot be preprocessed; mend or remove "
            f"them:{enumerate_names(sorted(failures))}"
        )


def find_missing(datasets: Iterable[Dataset[Any]]) -> list[Missing]:
    """The records whose entry is not there, each once; whether one is sound shows on reading."""
    found: dict[Path, Missing] = {}
    with thread_pool() as pool:
        for part in (part for dataset in datasets for part in _cached_parts(dataset)):
            present = {path.name for path in part.folder.glob("*.safetensors")}
            # The name of an entry takes reading its files, where they are not known yet.
            for item, path in zip(part.data, pool.map(part.entry, part.data), strict=True):
                if path.name not in present:
                    found[path] = Missing(part, item, path)
    return list(found.values())


def check_room(missing: Sequence[Missing]) -> None:
    """Say how much the entries will take, after removing what killed writers have left.

    Raises:
        UserError: when the disk has less.
    """
    if not missing:
        return
    folder = missing[0].dataset.folder
    for partial in folder.glob(".*.partial"):
        if time.time() - partial.stat().st_mtime > ABANDONED:
            partial.unlink(missing_ok=True)
    needed = sum(one.dataset.sample_bytes for one in missing)
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise UserError(
            f"dataset.cache_dir={folder}: {len(missing)} preprocessed samples take "
            f"{_shown(needed)}, but {_shown(free)} are free; free some, or choose {CURES}"
        )
    log.info(
        "preprocessing %d samples, %s, into %s (%s free)",
        *(len(missing), _shown(needed), folder, _shown(free)),
    )


def thread_pool() -> ThreadPoolExecutor:
    """A thread for each core; decoding lets go of the interpreter's lock."""
    return ThreadPoolExecutor(min(available_cores(), MAX_THREADS))


def map_blocks(
    pool: ThreadPoolExecutor, call: Callable[[Item], Result], items: Sequence[Item]
) -> Iterator[Result]:
    """``pool.map`` for calls that may take less than handing them over: several at once."""
    blocks = [items[start : start + BLOCK] for start in range(0, len(items), BLOCK)]
    for results in pool.map(lambda block: [call(item) for item in block], blocks):
        yield from results


def available_cores() -> int:
    """Processor cores that this process may use, where the system tells."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _cached_parts(dataset: Dataset[Any]) -> Iterator[WholeEntries]:
    parts = dataset.datasets if isinstance(dataset, ConcatDataset) else [dataset]
    yield from (part for part in parts if isinstance(part, WholeEntries))


def _failure(error: BaseException | None, one: Missing) -> list[str]:
    """What is wrong with a record's files, as a line or none; all else is raised."""
    cause = error.__cause__ if isinstance(error, RuntimeError) else error  # MONAI's Compose wraps
    if error is None:
        return []
    if not isinstance(cause, UserError) or isinstance(cause, CacheFullError):
        raise error
    identifier = str(one.item["id"])
    return [str(cause) if identifier in str(cause) else f"{identifier}: {cause}"]


@contextmanager
def _one_thread_each() -> Iterator[None]:
    """Keep PyTorch from starting as many threads again within each of ours."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _shown(size: int) -> str:
    return f"{size / 1e9:.3g} GB" if size >= 1e8 else f"{size / 1e6:.3g} MB"
