"""In what the configs of runs differ: two of one folder, or several side by side."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

WITHOUT_EFFECT = (
    "hydra", "name", "run_dir", "resume", "debug", "sweep", "config_dirs",
    "logging.progress_bar", "dataset.num_workers", "dataset.cache_dir",
)  # fmt: skip
"""Keys that cannot change results."""

ABSENT = None
"""Stands for a key that a run does not have."""

NOISE = (
    "run_dir", "name", "resume", "debug", "config_dirs", "logging", "logger", "task",
    "choices.logger",
)  # fmt: skip
"""Keys that are no part of what was trained."""

PREPARATION = (
    "root_dir", "phantoms", "modalities", "roi_size", "spacing", "orientation", "align_to",
    "image_size", "trim_border",
)  # fmt: skip
"""Keys of ``dataset`` that change a sample; which samples there are is seen from the splits."""


def deciding(config: Mapping[str, Any], leave_out: tuple[str, ...] = ()) -> dict[str, Any]:
    """``config`` as plain dicts, less ``WITHOUT_EFFECT`` and ``leave_out`` (dotted keys)."""
    left_out = {*WITHOUT_EFFECT, *leave_out}

    def keep(node: Mapping[str, Any], prefix: str) -> dict[str, Any]:
        return {
            str(key): keep(value, f"{prefix}{key}.") if isinstance(value, Mapping) else value
            for key, value in node.items()
            if f"{prefix}{key}" not in left_out
        }

    return keep(config, "")


def differences(old: Mapping[str, Any], new: Mapping[str, Any], most: int = 6) -> str:
    """Keys whose values differ, in words; empty where none does.

    >>> differences({"train": {"lr": 0.1}}, {"train": {"lr": 0.2}, "score": {"power": 2}})
    'train.lr (was 0.1, is 0.2), score (only here now)'
    """
    keys = list(_differing(old, new, ""))
    more = [f"and {len(keys) - most} more"] if len(keys) > most else []
    return ", ".join(keys[:most] + more)


def rerooted(node: Any, old: str, new: str) -> Any:
    """Values of a config, with the paths within the folder ``old`` those within ``new``.

    >>> rerooted({"logs": ["/runs/a/logs", "/runs/ab"]}, "/runs/a", "/runs/b")
    {'logs': ['/runs/b/logs', '/runs/ab']}
    """
    if isinstance(node, Mapping):
        return {key: rerooted(value, old, new) for key, value in node.items()}
    if isinstance(node, list):
        return [rerooted(value, old, new) for value in node]
    # With what follows, so that a neighbour of the folder is left alone.
    inside = isinstance(node, str) and f"{node}{os.sep}".startswith(old + os.sep)
    return new + node[len(old) :] if inside else node


def _differing(old: Mapping[str, Any], new: Mapping[str, Any], prefix: str) -> Iterator[str]:
    for key in dict.fromkeys([*old, *new]):
        name = f"{prefix}{key}"
        if key not in new:
            yield f"{name} (no longer here)"
        elif key not in old:
            yield f"{name} (only here now)"
        elif isinstance(old[key], Mapping) and isinstance(new[key], Mapping):
            yield from _differing(old[key], new[key], f"{name}.")
        elif old[key] != new[key]:
            yield f"{name} (was {old[key]}, is {new[key]})"


def config_differences(configs: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """Dotted key → its value in each config, for the keys that tell the runs apart.

    A group's choice (``annealing``: linear, cyclical) stands for the group's ``_target_`` and for
    keys that only some of its options have; a key that only repeats one of the same name in
    ``train`` or ``dataset`` is left out.
    """
    flat = [dict(_flat(config)) for config in configs]
    keys = list(dict.fromkeys(key for values in flat for key in values))
    columns = {key: [values.get(key, ABSENT) for values in flat] for key in keys}
    columns = {key: values for key, values in columns.items() if _varies(values)}
    chosen = {key.split(".")[1] for key in columns if key.startswith("choices.")}
    kept = {
        key: values
        for key, values in columns.items()
        if not _noise(key) and not _follows(key, values, columns, chosen)
    }
    ordered = sorted(kept, key=lambda key: not key.startswith("choices."))
    return {key.removeprefix("choices."): kept[key] for key in ordered}


def data_differences(differences: Mapping[str, Sequence[Any]]) -> list[str]:
    """Those keys of ``config_differences`` that change what a sample is."""
    if "dataset" in differences:
        return ["dataset"]
    prepared = [f"dataset.{key}" for key in PREPARATION]
    return [key for key in differences if ".".join(key.split(".")[:2]) in prepared]


def short_names(keys: Sequence[str]) -> dict[str, str]:
    """Key → its last part, or the whole key where that would stand for two."""
    last = [key.rsplit(".", 1)[-1] for key in keys]
    return {
        key: name if last.count(name) == 1 else key for key, name in zip(keys, last, strict=True)
    }


def _flat(config: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Leaves by dotted key; the run's own folder within a path is no difference."""

    def leaves(node: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
        for key, value in node.items():
            if isinstance(value, Mapping):
                yield from leaves(value, f"{prefix}{key}.")
            else:
                yield f"{prefix}{key}", value

    if "run_dir" in config:  # not in that of a run that failed before it had one
        config = rerooted(config, str(config["run_dir"]), "<run>")
    return leaves(config, "")


def _varies(values: Sequence[Any]) -> bool:
    return any(value != values[0] for value in values)


def _noise(key: str) -> bool:
    return any(key == noise or key.startswith(f"{noise}.") for noise in NOISE)


def _follows(
    key: str, values: Sequence[Any], columns: Mapping[str, Sequence[Any]], chosen: set[str]
) -> bool:
    """Does the key's difference follow from one that is shown?"""
    group, _, rest = key.partition(".")
    present = [value for value in values if value is not ABSENT]
    if group in chosen and (rest.endswith("_target_") or not _varies(present)):
        return True
    for home in ("train", "dataset"):  # where a value is set; elsewhere it is interpolated
        if group == home:
            return False
        twin = columns.get(f"{home}.{key.rsplit('.', 1)[-1]}")
        if twin is not None and all(a in (b, ABSENT) for a, b in zip(values, twin, strict=True)):
            return True
    return False
