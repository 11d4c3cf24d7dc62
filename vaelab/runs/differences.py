"""In which keys the configs of several runs differ, without what differs in any two runs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from vaelab.runs.config_difference import rerooted

ABSENT = None
"""Stands for a key that a run does not have."""

NOISE = ("run_dir", "name", "resume", "debug", "logging", "logger", "task", "choices.logger")
"""Where a run is kept and what it tells: no part of what was trained."""

PREPARATION = (
    "root_dir", "phantoms", "modalities", "roi_size", "spacing", "orientation", "align_to",
    "image_size", "trim_border",
)  # fmt: skip
"""Keys of ``dataset`` that change a sample; which samples there are is seen from the splits."""


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
