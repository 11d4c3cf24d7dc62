"""MONAI's PersistentDataset with checked entries and a key that tells when one is out of date."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from monai.data import Dataset, PersistentDataset
from monai.utils.type_conversion import convert_to_tensor
from torch import Tensor
from torch.utils.data import ConcatDataset
from torch.utils.data import Dataset as TorchDataset

from vaelab.atomic import NoSpaceError
from vaelab.data.entry import DamagedEntryError, read_entry, write_entry
from vaelab.data.identity import FileDigests
from vaelab.errors import UserError

log = logging.getLogger(__name__)

# Raised whenever the meaning of a cached entry changes without a change of settings.
FORMAT = 2

version = cache(metadata.version)  # which reads a file each time

CACHE_DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
CURES = (
    "another disk with dataset.cache_dir=<folder>, half the space with "
    "dataset.cache_dtype=float16, or a share of the samples with dataset.cache_rate=<0 to 1>"
)


class CacheFullError(UserError):
    """The disk is full: a matter of the cache, not of the sample that was to be written."""


class CacheKey:
    """Name of a cache entry: the settings, the library versions and the content of the files.

    MONAI's default key is the record alone, so that changed settings or a replaced file
    would return the old tensor (MONAI#999). Where a file lies is no part of the key: copies of
    the data share entries.
    """

    def __init__(self, settings: Mapping[str, Any], digest: Callable[[str], str]) -> None:
        names = ("monai", "torch", "numpy", "nibabel", "pillow")
        spec = {
            "format": FORMAT,
            "settings": dict(settings),
            "versions": {name: version(name) for name in names},
        }
        self.spec = json.dumps(spec, sort_keys=True)
        self.digest = digest

    def __call__(self, item: Mapping[str, Any]) -> bytes:
        """Hexadecimal digest of one record, as the bytes that MONAI expects."""
        whole = hashlib.sha256(self.spec.encode())
        for key in sorted(item):
            value = str(item[key])
            is_file = key not in ("id", "patient") and Path(value).is_file()
            content = self.digest(value) if is_file else value
            whole.update(f"\0{key}\0{content}".encode(errors="surrogateescape"))
        return whole.hexdigest()[:32].encode()


class WholeEntries(PersistentDataset):
    """PersistentDataset whose entries are complete or absent, and made again if damaged.

    MONAI moves each entry here from the folder of temporary files: between two disks that is a
    copy, of which an interruption leaves half. What it reads back is not checked.

    Args:
        data, transform, cache_dir: see ``PersistentDataset``.
        key: a record's name in the cache.
        dtype: that float32 tensors are rounded to on disk; samples are float32 again.
        sample_bytes: space that an entry takes.
    """

    def __init__(
        self,
        data: Sequence[Mapping[str, Any]],
        transform: Callable[..., Any],
        cache_dir: str | Path,
        key: CacheKey,
        dtype: torch.dtype = torch.float32,
        sample_bytes: int = 0,
    ) -> None:
        super().__init__(data, transform, cache_dir, hash_func=key)
        self.folder = Path(cache_dir)
        self.dtype = dtype
        self.sample_bytes = sample_bytes

    def entry(self, item: Mapping[str, Any]) -> Path:
        """The file of one record, whether it is there or not."""
        return self.folder / f"{self.hash_func(item).decode()}.safetensors"

    def make(self, item: Mapping[str, Any], path: Path) -> dict[str, Any]:
        """Preprocess one record up to the first random transform and write its entry.

        Raises:
            CacheFullError: when the disk is full.
        """
        sample = self._pre_transform(deepcopy(item))  # type: ignore[no-untyped-call]
        plain = convert_to_tensor(sample, convert_numeric=False, track_meta=False)
        try:
            write_entry(path, plain, self.dtype)
        except NoSpaceError as error:
            raise CacheFullError(f"{error}; or choose {CURES}") from error
        # As it will be read: what is random and what is rounded must not depend on who was first.
        return {key: self._rounded(value) for key, value in plain.items()}

    def set_data(self, data: Sequence[Mapping[str, Any]]) -> None:
        """Replace the records. MONAI would delete the folder, which other runs may share."""
        self.data = data

    def _rounded(self, value: Any) -> Any:
        if not isinstance(value, Tensor) or value.dtype != torch.float32:
            return value
        return value.to(self.dtype).float()

    def _cachecheck(self, item_transformed: Mapping[str, Any]) -> dict[str, Any]:
        """The sample up to its first random transform, from its entry if there is one."""
        path = self.entry(item_transformed)
        try:
            return read_entry(path)
        except FileNotFoundError:
            pass
        except DamagedEntryError as error:
            log.warning("%s: a damaged cache entry, made again (%s)", path, error)
        return self.make(item_transformed, path)


def check_cache(cache_rate: float, cache_dtype: str) -> None:
    """Raise ``UserError`` for a share or a type that cannot be."""
    if not 0 <= cache_rate <= 1:
        raise UserError(f"dataset.cache_rate={cache_rate}: a share from 0 to 1; try 1.0")
    if cache_dtype not in CACHE_DTYPES:
        raise UserError(
            f"dataset.cache_dtype={cache_dtype}: must be one of {', '.join(CACHE_DTYPES)}"
        )


def cached_dataset(
    records: Sequence[Mapping[str, Any]],
    transform: Callable[..., Any],
    settings: Mapping[str, Any],
    cache_dir: str | Path,
    cache_rate: float,
    cache_dtype: str = "float32",
    values: int = 0,
    labels: int = 0,
) -> TorchDataset[Any]:
    """The first ``cache_rate`` of the records behind a cache on disk, the rest without.

    Args:
        records: what to load.
        transform: a Compose; all before its first random transform is cached.
        settings: everything that the deterministic transforms depend on.
        cache_dir: folder of the entries; may be shared by runs.
        cache_rate: share of the records to cache, in [0, 1].
        cache_dtype: that float32 tensors have on disk, a key of ``CACHE_DTYPES``.
        values: how many of those a sample has, to tell the size of the cache in advance.
        labels: how many bytes it has besides.
    """
    check_cache(cache_rate, cache_dtype)
    count = round(cache_rate * len(records))
    parts: list[TorchDataset[Any]] = []
    if count:
        key = CacheKey({**settings, "cache_dtype": cache_dtype}, FileDigests(cache_dir))
        dtype = CACHE_DTYPES[cache_dtype]
        size = values * dtype.itemsize + labels
        parts.append(WholeEntries(records[:count], transform, cache_dir, key, dtype, size))
    if count < len(records):
        parts.append(Dataset(records[count:], transform))
    return parts[0] if len(parts) == 1 else ConcatDataset(parts)


def memory_of_sample(dataset: TorchDataset[Any]) -> int:
    """Bytes of a sample of ``cached_dataset`` once it is read, at most; 0 where no cache knows."""
    parts = dataset.datasets if isinstance(dataset, ConcatDataset) else [dataset]
    known = [part for part in parts if isinstance(part, WholeEntries)]
    return max((part.sample_bytes * (4 // part.dtype.itemsize) for part in known), default=0)
