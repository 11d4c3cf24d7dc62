"""Markdown that is also readable as plain text: tables, and names without markup."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from vaelab.text import printable

SPECIAL = re.compile(r"[\\`*<>\[\]|&]|(?<![^\W_])_|_(?![^\W_])")
"""Punctuation that is markup; an underscore between letters is not."""
NUMBER = re.compile(r"[-+−–]?[\d.]+.*|[-+−–]?(nan|inf)?", re.DOTALL)


def literal(value: object) -> str:
    """``value`` on one line, escaped so that Markdown shows it unchanged."""
    return SPECIAL.sub(r"\\\g<0>", printable(" ".join(str(value).split())))


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A table, its columns padded so that it can be read as text.

    Args:
        head: names of the columns.
        rows: cells, shown literally; a column in which every cell begins like a number is
            aligned to the right.
    """
    cells = [[literal(cell) for cell in row] for row in (head, *rows)]
    columns = list(zip(*cells, strict=True))
    widths = [max(3, *map(len, column)) for column in columns]
    right = [len(cells) > 1 and all(map(NUMBER.fullmatch, column[1:])) for column in columns]
    lines = [
        " | ".join(
            cell.rjust(width) if numeric else cell.ljust(width)
            for cell, width, numeric in zip(row, widths, right, strict=True)
        )
        for row in cells
    ]
    rule = "|".join(
        "-" * (width + 1) + (":" if numeric else "-")
        for width, numeric in zip(widths, right, strict=True)
    )
    return "\n".join([f"| {lines[0]} |", f"|{rule}|", *(f"| {line} |" for line in lines[1:])])
