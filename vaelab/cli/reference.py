"""What can be chosen and set, as data: for ``--help --json`` and for the tables of the README.

Read from the text of the config files, whose comments are the descriptions::

    python -m vaelab.cli.reference README.md    writes the tables between their markers
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from vaelab.atomic import replacing
from vaelab.cli.config_files import CONF, option_files
from vaelab.cli.help import NOT_KEYS, extended_by, groups_of
from vaelab.errors import UserError

LINE = re.compile(r"( *)(\w[\w.]*):(?: +((?:\"[^\"]*\"|'[^']*'|[^#])*?))?(?: *#\s*(.*))?$")
"""Indent, key, value and comment of a line."""
TABLES = ("groups", "keys")


@dataclass(frozen=True)
class Key:
    """One value that can be set."""

    key: str
    """Dotted, as on the command line."""
    default: str
    """As in the file; ``${...}`` is the value of another key."""
    description: str
    """Its comment; may be empty."""


@dataclass(frozen=True)
class Option:
    """One file of a group."""

    name: str
    description: str
    """The comment at its head, on one line."""
    keys: Sequence[Key]
    """Those of what it builds on among them."""


@dataclass(frozen=True)
class Reference:
    """All of it."""

    groups: Mapping[str, Sequence[Option]]
    defaults: Mapping[str, str]
    """Group → the option that is chosen without a word."""
    keys: Sequence[Key]
    """Of ``config.yaml``."""

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        groups = {
            group: {
                "default": self.defaults.get(group),
                "options": {option.name: asdict(option) for option in options},
            }
            for group, options in self.groups.items()
        }
        return {"groups": groups, "keys": [asdict(key) for key in self.keys]}


def read_reference(folders: Sequence[Path]) -> Reference:
    """What the config files say.

    Args:
        folders: of config files, vaelab's own first.
    """
    main = (folders[0] / "config.yaml").read_text(encoding="utf-8")
    chosen = dict(re.findall(r"^  - (\w+): (\w+)", main, re.MULTILINE))
    return Reference(
        {
            group: [_option(group, path, folders) for path in option_files(group, folders).values()]
            for group in groups_of(folders)
        },
        {group: name for group, name in chosen.items() if name != "null"},
        [key for key in _keys(main) if key.key.partition(".")[0] not in NOT_KEYS],
    )


def with_tables(text: str, reference: Reference) -> str:
    """A Markdown text with the tables between its markers, ``<!-- groups -->`` to
    ``<!-- /groups -->`` and the same of ``keys``.

    Raises:
        UserError: for a text without these markers.
    """
    for name, content in zip(TABLES, (_groups(reference), _key_table(reference)), strict=True):
        begin, end = f"<!-- {name} -->", f"<!-- /{name} -->"
        if begin not in text or end not in text.split(begin, 1)[1]:
            raise UserError(f"no {begin} with a {end} after it; put them where the table goes")
        head, rest = text.split(begin, 1)
        text = f"{head}{begin}\n\n{content}\n\n{end}{rest.split(end, 1)[1]}"
    return text


def _groups(reference: Reference) -> str:
    rows = []
    for group, options in reference.groups.items():
        default = reference.defaults.get(group)
        names = sorted((option.name for option in options), key=lambda name: name != default)
        rows.append((group, names, f"`{default}`" if default else ""))
    return _code_table(("group", "options", "default"), rows)


def _key_table(reference: Reference) -> str:
    sections: dict[str, list[str]] = {}
    for key in (*reference.keys, *_keys_of_defaults(reference)):
        section, _, name = key.key.rpartition(".")
        sections.setdefault(section, []).append(f"{name}: {key.default}".strip(": "))
    rows = [(section or " ", keys, "") for section, keys in sections.items()]
    return _code_table(("section", "keys and defaults"), rows)


def _code_table(columns: Sequence[str], rows: Sequence[tuple[str, Sequence[str], str]]) -> str:
    """A table of a name, several pieces of code, and, where there is a column for it, a text."""
    lines = [" | ".join(columns), " | ".join("---" for _ in columns)]
    for name, codes, last in rows:
        listed = ", ".join(f"`{code}`" for code in codes).replace("|", "\\|")
        lines.append(" | ".join([f"`{name}`", listed, last][: len(columns)]))
    return "\n".join(f"| {line} |" for line in lines)


def _keys_of_defaults(reference: Reference) -> Iterator[Key]:
    """Keys of the options that are chosen without a word."""
    for group, options in reference.groups.items():
        for option in options:
            if reference.defaults.get(group) == option.name:
                yield from option.keys


def _option(group: str, path: Path, folders: Sequence[Path]) -> Option:
    keys: dict[str, Key] = {}
    for part in [*extended_by(path, folders), path]:
        prefix = "" if group == "experiment" else f"{group}."
        for key in _keys(part.read_text(encoding="utf-8")):
            if key.key.partition(".")[0] != "defaults":
                keys[key.key] = Key(f"{prefix}{key.key}", key.default, key.description)
    return Option(path.stem, _head(path.read_text(encoding="utf-8")), list(keys.values()))


def _head(text: str) -> str:
    """The comment that a file begins with, on one line."""
    lines = [line for line in text.splitlines() if "@package" not in line]
    head = []
    for line in lines:
        if not line.startswith("#"):
            break
        head.append(line.lstrip("# ").strip())
    return " ".join(head)


def _keys(text: str) -> Iterator[Key]:
    """Each value with its comments, those above it and the one beside it."""
    lines = text.splitlines()
    while lines and (lines[0].startswith("#") or not lines[0].strip()):
        lines.pop(0)
    path: list[tuple[int, str]] = []
    above: list[str] = []
    for number, line in enumerate(lines):
        if line.lstrip().startswith("#"):
            above.append(line.strip("# "))
            continue
        match = LINE.fullmatch(line)
        if match is None or match[2] == "_target_":
            above = []
            continue
        indent, name, value, beside = len(match[1]), match[2], (match[3] or "").strip(), match[4]
        path = [*((depth, key) for depth, key in path if depth < indent), (indent, name)]
        inner = lines[number + 1] if number + 1 < len(lines) else ""
        is_section = not value and inner.startswith(" " * (indent + 1))
        if not is_section:
            words = " ".join([*above, *([beside] if beside else [])])
            yield Key(".".join(key for _, key in path), value, words)
        above = []


def main(path: Path) -> None:
    """Write the tables into a Markdown file."""
    text = with_tables(path.read_text(encoding="utf-8"), read_reference([CONF]))
    with replacing(path) as unfinished:
        unfinished.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
