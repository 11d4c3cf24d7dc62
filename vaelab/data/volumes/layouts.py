"""How the files of a record are called, and what to say where they are called otherwise."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from fnmatch import fnmatchcase
from glob import escape
from pathlib import Path

from vaelab.data.index import data_names

FindSeries = Callable[[Path], dict[str, list[Path]]]
"""Key → files in the folder of a record that may be this series; one is wanted."""

SUFFIX = re.compile(r"\.nii(\.gz)?$", re.IGNORECASE)
LOOKED_INTO = 20  # folders
SHOWN = 8  # names

PRESETS: Mapping[str, Mapping[str, str]] = {
    "brats_men": {key: f"*-{key}" for key in ("t1c", "t1n", "t2f", "t2w", "seg")},
    "brats_2021": {
        "t1c": "*_t1ce", "t1n": "*_t1", "t2f": "*_flair", "t2w": "*_t2", "seg": "*_seg",
    },
}  # fmt: skip
"""File of ``conf/dataset`` → how it calls files, without their suffix."""

# What series are called elsewhere, after what the names of a folder have in common.
ALIASES = {
    "t1c": r"t1[-_]?(ce|c|gd|post|contrast)|ce[-_]?t1w?",
    "t1n": r"t1(n|w|pre)?",
    "t2f": r"(t2[-_]?)?f(lair)?",
    "t2w": r"t2w?",
    "seg": r"(tumou?r[-_])?(seg(m|mentation)?|labels?|mask)",
}
END = r"(?=[-_.]|$)"


def series_by_name(
    folder: Path, pattern: str, keys: Sequence[str], files: Mapping[str, str] | None = None
) -> dict[str, list[Path]]:
    """Key → files in a folder by their names, in order, as ``data_names``.

    A pattern is met by names with ``.nii`` or ``.nii.gz`` in its place, in any case.

    Args:
        folder: of one record.
        pattern: of a name, as in a shell, with ``{key}`` in it.
        keys: of the series.
        files: key → pattern, for those that are called otherwise.
    """
    names = data_names(os.listdir(folder))
    patterns = {
        key: SUFFIX.sub("", (files or {}).get(key) or pattern.format(key=escape(key)))
        for key in keys
    }
    return {
        key: [folder / name for name in names if SUFFIX.search(name) and _fits(name, wanted)]
        for key, wanted in patterns.items()
    }


def advice(root: Path, find_series: FindSeries, keys: Sequence[str]) -> str:
    """What is under a root where no subject was found, and which settings would find some.

    Args:
        root: of the data.
        find_series: that found nothing complete.
        keys: of the series.
    """
    names = data_names(os.listdir(root))
    folders = [root / name for name in names if (root / name).is_dir()][:LOOKED_INTO]
    if {"imagestr", "labelstr"} & {name.casefold() for name in names}:
        return (
            ". This is the layout of nnU-Net and the Medical Segmentation Decathlon; give each "
            "subject a folder with links to its files"
        )
    if _has_series(root, find_series):
        return f". This folder is one subject; did you mean dataset.root_dir={root.parent}?"
    inner = [f for f in folders if _has_series_below(f, find_series)]
    if inner and all(folder.name.startswith("sub-") for folder in inner):
        return ". This is the layout of BIDS; give each subject one folder with links to its files"
    if inner and not any(_volumes(folder) for folder in folders):
        return f". Did you mean dataset.root_dir={inner[0]}?"
    if _volumes(root):
        there = f"Found there: {_shown(_volumes(root))}"
        return f". {there}, side by side; give each subject a folder with links to its files"
    full = next((folder for folder in folders if _volumes(folder)), None)
    if full is None:
        return f". Found there: {_shown(names)}"
    return f". Found in {full.name}: {_shown(_volumes(full))}{_cure(_volumes(full), keys)}"


def guessed(names: Sequence[str], keys: Sequence[str]) -> dict[str, str]:
    """Key → pattern, of the files of one record, by what series are called elsewhere.

    The shortest name counts, since what was done to a series is told behind its own name.
    """
    stems = [SUFFIX.sub("", name) for name in names]
    common = _common_start(stems) if len(stems) > 1 else ""
    start = max(common.rfind("-"), common.rfind("_"), common.rfind(".")) + 1
    found: dict[str, str] = {}
    for key in keys:
        alias = re.compile(f"({ALIASES.get(key, re.escape(key))}){END}", re.IGNORECASE)
        matches = [stem[start:] for stem in stems if alias.match(stem[start:])]
        if matches:
            before = common[start - 1] if start else ""
            found[key] = f"*{before}{escape(min(matches, key=len))}"
    return found


def _common_start(texts: Sequence[str]) -> str:
    first, last = min(texts), max(texts)
    differing = (i for i, (a, b) in enumerate(zip(first, last, strict=False)) if a != b)
    return first[: next(differing, min(len(first), len(last)))]


def _cure(names: Sequence[str], keys: Sequence[str]) -> str:
    files = guessed(names, keys)
    if set(files) != set(keys):
        return "; say how they are called with dataset.files"
    for preset, patterns in PRESETS.items():
        if all(patterns.get(key) == pattern for key, pattern in files.items()):
            return f"; did you mean dataset={preset}?"
    return f"; did you mean 'dataset.files={{{_as_override(files)}}}'?"


def _as_override(files: Mapping[str, str]) -> str:
    return ",".join(f'{key}:"{pattern}"' for key, pattern in files.items())


def _fits(name: str, pattern: str) -> bool:
    return fnmatchcase(SUFFIX.sub("", name), pattern)


def _volumes(folder: Path) -> list[str]:
    return [name for name in data_names(os.listdir(folder)) if SUFFIX.search(name)]


def _has_series(folder: Path, find_series: FindSeries) -> bool:
    return any(find_series(folder).values())


def _has_series_below(folder: Path, find_series: FindSeries) -> bool:
    inner = [folder / name for name in data_names(os.listdir(folder))][:LOOKED_INTO]
    return any(
        path.is_dir() and (_has_series(path, find_series) or _volumes(path)) for path in inner
    )


def _shown(names: Sequence[str]) -> str:
    if not names:
        return "nothing"
    return ", ".join(names[:SHOWN]) + (f" and {len(names) - SHOWN} more" * (len(names) > SHOWN))
