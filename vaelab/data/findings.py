"""What an examination of data gives: problems, each with its cure, and facts to sum up."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from vaelab.data.index import Record
from vaelab.text import printable

Severity = Literal["error", "warning"]


@dataclass(frozen=True)
class Finding:
    """One problem of one file, folder or image.

    An error keeps the file from being used; a warning is for a person to look at.
    """

    severity: Severity
    file: str
    """The path, or the id of the record."""
    what: str
    """The problem in words that are the same for every file that has it."""
    cure: str
    detail: str = ""
    """What is particular to this file."""

    def __str__(self) -> str:
        detail = f" ({self.detail})" if self.detail else ""
        return printable(f"{self.file}: {self.what}{detail}; {self.cure}")


@dataclass(frozen=True)
class Examination:
    """What is known of one record after a look at all of it, small enough to keep thousands."""

    findings: list[Finding] = field(default_factory=list)
    facts: Mapping[str, str | float] = field(default_factory=dict)
    """Name → value; words are counted and numbers summed up over all records."""
    contents: Mapping[str, str] = field(default_factory=dict)
    """File → digest of what it decodes to, whatever the container."""


def errors(findings: Iterable[Finding]) -> list[Finding]:
    """Those that keep a file from being used."""
    return [finding for finding in findings if finding.severity == "error"]


def file_problem(path: str | Path) -> Finding | None:
    """Why there are no bytes to decode at ``path``, or None if there are some."""
    path = Path(path)
    name, cure = str(path), "fetch it again or leave it out"
    if path.is_symlink() and not path.exists():
        return Finding("error", name, "a link that leads nowhere", cure, f"to {path.readlink()}")
    if not path.exists():
        return Finding("error", name, "does not exist", cure)
    if path.is_dir():
        return Finding("error", name, "a folder, where a file is needed", "rename or remove it")
    try:
        with path.open("rb") as file:
            empty = not file.read(1)
    except PermissionError:
        return Finding("error", name, "may not be read", "ask for permission to read it")
    except OSError as error:
        return Finding("error", name, "cannot be read", "check the disk", str(error))
    return Finding("error", name, "an empty file", cure, "0 bytes") if empty else None


def find_copies(records: Sequence[Record], contents: Mapping[str, str]) -> list[Finding]:
    """A warning for each record that shows what a record of another patient shows too.

    Args:
        records: with ``id`` and ``patient``.
        contents: file → digest of what it decodes to.
    """
    first: dict[str, Record] = {}
    found: list[Finding] = []
    what, cure = (
        "the same content as another patient's",
        "keep one, or give both one patient's name",
    )
    for record in records:
        for path in record.values():
            digest = contents.get(path) if isinstance(path, str) else None
            if digest is None:
                continue
            other = first.setdefault(digest, record)
            if other["patient"] != record["patient"]:
                found.append(Finding("warning", str(path), what, cure, f"as {other['id']}"))
    return found
