"""What two configs differ in, of all that decides results, wherever their runs are kept."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import Any

# Whereabouts, looks and speed: the results are the same.
WITHOUT_EFFECT = (
    "hydra",
    "name",
    "run_dir",
    "resume",
    "debug",
    "sweep",
    "logging.progress_bar",
    "dataset.num_workers",
    "dataset.cache_dir",
)


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
    found = list(_differing(old, new, ""))
    more = [f"and {len(found) - most} more"] if len(found) > most else []
    return ", ".join(found[:most] + more)


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
