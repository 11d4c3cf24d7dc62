"""Text for people: names from a file system, error messages and numbers on one line."""

from __future__ import annotations


def printable(name: object) -> str:
    """A name on one line that any console and log can show: other characters as escapes.

    A line break in a file's name would fake a line of its own, and bytes that are not UTF-8
    cannot be written to a log.
    """
    whole = str(name).encode("utf-8", "backslashreplace").decode("utf-8")
    return "".join(
        character if character.isprintable() else ascii(character)[1:-1] for character in whole
    )


def shortened(text: str, limit: int) -> str:
    """``text`` with ``…`` for its middle where it is longer than ``limit`` characters.

    Names within a cohort or sweep differ at the end as often as at the beginning.
    """
    if len(text) <= limit:
        return text
    head = (limit - 1) // 2
    return f"{text[:head]}…{text[len(text) - (limit - 1 - head) :]}"


def number(value: float, small: str = ".4g") -> str:
    """``value`` in the format ``small``; thousands and millions to the unit, with commas."""
    return f"{value:,.0f}" if 1e3 <= abs(value) < 1e7 else f"{value:{small}}"
