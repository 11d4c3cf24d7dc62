"""Inputs: files or folders from elsewhere, named by ``task.inputs``."""

from __future__ import annotations

import codecs
import csv
import logging
import os
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vaelab.data.index import ENCODING
from vaelab.errors import UserError

log = logging.getLogger(__name__)

LISTS = (".txt", ".csv")
HINT = "task.inputs=<a file, a folder, a .txt or .csv list of them, or [several]>"


@dataclass(frozen=True)
class Input:
    """One file or folder from elsewhere that makes one sample."""

    path: Path
    name: str
    """Its path below what all inputs have in common, with ``/``."""
    place: str
    """``name`` without a suffix of images, unless two inputs would then be one."""


Expand = Callable[[Path], Iterator[Path]]
"""The inputs in a folder and below it, in order."""


def find_inputs(
    inputs: str | Sequence[str],
    expand: Expand,
    expected: str,
    output_dir: Path,
    suffixes: Collection[str] = (),
) -> list[Input]:
    """Everything that the user asked to judge, each once, in the order given.

    What does not exist stays among the inputs, to be reported when it is read.

    Args:
        inputs: a file or folder, a ``.txt`` or ``.csv`` list of such, or several of these.
        expand: finds inputs in a folder.
        expected: what ``expand`` looks for, in words.
        output_dir: where results go; what lies below it is no input.
        suffixes: of files, in lower case, that a place does without.

    Raises:
        UserError: when there is no input, none exists, or results would lie among the inputs.
    """
    entries = list(_entries([inputs] if isinstance(inputs, str) else inputs))
    output = Path(os.path.abspath(output_dir))
    found: dict[Path, None] = {}
    roots: list[Path] = []
    for entry in entries:
        if not entry.is_dir():
            found[entry] = None
            roots.append(entry.parent)
            continue
        members = [path for path in expand(entry) if not path.is_relative_to(output)]
        if not members:
            log.warning("%s: nothing to judge; expected %s", entry, expected)
        found |= dict.fromkeys(members)
        roots.append(entry.parent if entry in members else entry)
    if not found:
        raise UserError(
            f"task.inputs={_shown(inputs)}: nothing to judge; expected {expected}, as {HINT}"
        )
    if not any(path.exists() for path in found):
        raise UserError(
            f"task.inputs={_shown(inputs)}: does not exist, looked for {next(iter(found))}"
        )
    for root in roots:
        if root.is_relative_to(output):
            raise UserError(
                f"task.output_dir={output_dir}: the inputs lie in it; choose another folder"
            )
    base = Path(os.path.commonpath(roots))
    return _placed({path: path.relative_to(base).as_posix() for path in found}, suffixes)


def _placed(names: Mapping[Path, str], suffixes: Collection[str]) -> list[Input]:
    """Inputs with places that differ, on file systems that ignore case too."""
    shortened = {path: _without_suffix(name, suffixes) for path, name in names.items()}
    count = Counter(short.casefold() for short in shortened.values())
    full = {name.casefold() for path, name in names.items() if shortened[path] != name}
    return [
        Input(
            path, name, name if count[short.casefold()] > 1 or short.casefold() in full else short
        )
        for (path, name), short in zip(names.items(), shortened.values(), strict=True)
    ]


def _without_suffix(name: str, suffixes: Collection[str]) -> str:
    stem, suffix = os.path.splitext(name)
    return stem if suffix.lower() in suffixes else name


def _entries(inputs: Sequence[str]) -> Iterator[Path]:
    """Absolute paths that were named, directly or in a list; those in a list are relative to it."""
    for name in inputs:
        path = Path(os.path.abspath(os.path.expanduser(name)))
        if path.suffix.lower() in LISTS and path.is_file():
            for line in _lines(path):
                yield Path(os.path.abspath(path.parent / os.path.expanduser(line)))
        else:
            yield path


def _lines(path: Path) -> list[str]:
    """Paths in a list: one a line, or the column ``file`` or ``path`` of a table."""
    encoding = _encoding(path)
    if path.suffix.lower() == ".txt":
        return [line.strip() for line in path.read_text(**encoding).splitlines() if line.strip()]
    with path.open(newline="", **encoding) as file:
        table = csv.DictReader(file)
        columns = list(table.fieldnames or [])
        column = next((name for name in ("file", "path") if name in columns), None)
        if column is None:
            raise UserError(
                f"task.inputs={path}: a column 'file' or 'path' is needed, this has {columns}"
            )
        return [row[column] for row in table if row[column]]


def _encoding(path: Path) -> dict[str, Any]:
    """Of a list: UTF-8, or UTF-16, which PowerShell writes; with a mark in front or without."""
    with path.open("rb") as file:
        head = file.read(256)
    if head[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE):
        return {"encoding": "utf-16", "errors": "replace"}
    if b"\0" in head:
        return {"encoding": "utf-16-le" if b"\0" in head[1::2] else "utf-16-be"}
    return {**ENCODING, "encoding": "utf-8-sig"}


def _shown(inputs: str | Sequence[str]) -> str:
    return inputs if isinstance(inputs, str) else f"[{','.join(inputs)}]"
