"""MONAI's PersistentDataset with whole entries and a key that tells when one is out of date."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from importlib.metadata import version
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from monai.data import Dataset, PersistentDataset
from monai.utils.type_conversion import convert_to_tensor
from torch.utils.data import ConcatDataset
from torch.utils.data import Dataset as TorchDataset

from vaelab.atomic import replacing

log = logging.getLogger(__name__)

# Raised whenever the meaning of a cached entry changes without a change of settings.
FORMAT = 1


class CacheKey:
    """Name of a cache entry: the settings, the library versions and the files' identities.

    MONAI's default key is the record alone, so that changed settings or a replaced file
    would return the old tensor (MONAI#999). A file's identity is its path, size and time of
    change; reading it whole would cost what the cache is there to save.
    """

    def __init__(self, settings: Mapping[str, Any]) -> None:
        versions = {name: version(name) for name in ("monai", "torch", "nibabel", "pillow")}
        spec = {"format": FORMAT, "settings": dict(settings), "versions": versions}
        self.spec = json.dumps(spec, sort_keys=True)

    def __call__(self, item: Mapping[str, Any]) -> bytes:
        """Hexadecimal digest of one record, as the bytes that MONAI expects."""
        digest = hashlib.sha256(self.spec.encode())
        for key in sorted(item):
            digest.update(f"\0{key}\0{item[key]}".encode(errors="surrogateescape"))
            path = Path(item[key]) if key not in ("id", "patient") else None
            if path is not None and path.is_file():
                stat = path.stat()
                digest.update(f"\0{stat.st_size}\0{stat.st_mtime_ns}".encode())
        return digest.hexdigest()[:32].encode()


class WholeEntries(PersistentDataset):
    """PersistentDataset whose entries are complete or absent, and made again if damaged.

    MONAI moves each entry here from the folder of temporary files. Between two disks that is a
    copy: another process can meet half of it, an interruption leaves half of it, and neither
    recovers.
    """

    def _cachecheck(self, item_transformed: Mapping[str, Any]) -> Any:
        """The sample up to its first random transform, from its entry if there is one."""
        assert self.cache_dir is not None
        path = self.cache_dir / f"{self.hash_func(item_transformed).decode()}.pt"
        if path.is_file():
            try:
                return torch.load(path, weights_only=True)
            except (RuntimeError, EOFError, UnpicklingError):
                log.warning("%s: a damaged cache entry, made again", path)
        sample = self._pre_transform(deepcopy(item_transformed))  # type: ignore[no-untyped-call]
        plain = convert_to_tensor(sample, convert_numeric=False, track_meta=False)
        # A crop is a view and would take the volume that it was cut from into the entry.
        entry = {
            key: value.clone() if isinstance(value, torch.Tensor) else value
            for key, value in plain.items()
        }
        with replacing(path) as partial:
            torch.save(entry, partial)
        return entry


def cached_dataset(
    records: Sequence[Mapping[str, Any]],
    transform: Callable[..., Any],
    settings: Mapping[str, Any],
    cache_dir: str | Path,
    cache_rate: float,
) -> TorchDataset[Any]:
    """The first ``cache_rate`` of the records behind a cache on disk, the rest without.

    Args:
        records: what to load.
        transform: a Compose; all before its first random transform is cached.
        settings: everything that the deterministic transforms depend on.
        cache_dir: folder of the entries; may be shared by runs.
        cache_rate: share of the records to cache, in [0, 1].
    """
    count = round(cache_rate * len(records))
    parts: list[TorchDataset[Any]] = []
    if count:
        key = CacheKey(settings)
        parts.append(WholeEntries(records[:count], transform, cache_dir, hash_func=key))
    if count < len(records):
        parts.append(Dataset(records[count:], transform))
    return parts[0] if len(parts) == 1 else ConcatDataset(parts)
