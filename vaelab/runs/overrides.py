"""Plain values as arguments of the command line, in Hydra's grammar of overrides."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

_PLAIN = re.compile(
    r"(?!(?:null|true|false|inf|nan)$)[A-Za-z_/][\w/.\-]*", re.ASCII | re.IGNORECASE
)
"""Strings that need no quotes."""

QUOTED = r"""'(?:\\.|[^\\'])*'|"(?:\\.|[^\\"])*\""""
"""Pattern of a string in quotes."""

_KEY_SPECIAL = re.compile(r"[\\()\[\]{}:=, \t]")
_KEY_FORBIDDEN = re.compile(r"[^\w/\-\\+.$%*@?|()\[\]{}:=, \t]", re.ASCII)


def literal(value: Any) -> str:
    r"""A plain value in the grammar of overrides.

    >>> print(literal({"root_dir": "it's (here)", "sides": [16, None, True], "name": "a"}))
    {root_dir:'it\'s (here)',sides:[16,null,true],name:a}

    Args:
        value: null, a bool, a number, a string, or lists and dicts of such. Keys of dicts are ints
            or strings that do not look like a number, null or a bool.

    Raises:
        ValueError: for a key of a dict that the grammar cannot express.
    """
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return value if is_plain(value) else quoted(value)
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{_key(key)}:{literal(value[key])}" for key in value) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ",".join(map(literal, value)) + "]"
    return str(value)


def is_plain(text: str) -> bool:
    """Whether a string means itself without quotes."""
    return _PLAIN.fullmatch(text) is not None


def quoted(text: str, interpolations: bool = False) -> str:
    r"""A string in single quotes.

    >>> print(quoted("a\\'b"))
    'a\\\'b'

    Args:
        text: any string.
        interpolations: leave ``${...}`` to be resolved, instead of meaning the characters.
    """
    if not interpolations:
        # OmegaConf takes a backslash before ${ as an escape, and two as a backslash.
        text = re.sub(r"(\\*)\$\{", r"\1\1\\${", text)
    # Hydra takes backslashes as escapes only in front of a quote, the closing one included.
    text = re.sub(r"(\\*)'", r"\1\1\\'", text)
    return "'" + re.sub(r"(\\+)$", r"\1\1", text) + "'"


def unquoted(text: str) -> str | None:
    """What a string in single or double quotes means; None where it is no such string.

    The inverse of ``quoted(..., interpolations=True)``.
    """
    mark = text[:1]
    if not re.fullmatch(QUOTED, text, re.DOTALL):
        return None

    def half(match: re.Match[str]) -> str:
        backslashes, end = match[1], match[2]
        return backslashes[: len(backslashes) // 2] + end

    return re.sub(rf"(\\+)({mark}|$)", half, text[1:-1])


def overrides(values: Mapping[str, Any], prefix: str = "") -> list[str]:
    """``key=value`` for each entry; ``prefix`` is put in front of the keys, such as ``++``.

    >>> overrides({"experiment": "demo", "train.lr": 1e-4, "dataset.roi_size": [16, 16, 16]})
    ['experiment=demo', 'train.lr=0.0001', 'dataset.roi_size=[16,16,16]']
    """
    return [f"{prefix}{key}={literal(value)}" for key, value in values.items()]


def leaves(values: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted key and value of all that is no dict, and of empty dicts."""
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from leaves(value, f"{path}{key}.")
        else:
            yield f"{path}{key}", value


def unlisted(text: str) -> list[str]:
    """The strings of a list as ``literal`` writes it, or as a user does; nothing nested.

    >>> unlisted("[/data/a, 'b, (c)']")
    ['/data/a', 'b, (c)']
    """
    inner = text.strip().removeprefix("[").removesuffix("]")
    parts = [match.strip() for match in re.findall(rf"(?:{QUOTED}|[^,])+", inner)]
    return [part if (plain := unquoted(part)) is None else plain for part in parts if part]


def _key(key: Any) -> str:
    if isinstance(key, int) and not isinstance(key, bool):
        return str(key)
    if not isinstance(key, str) or not key or _KEY_FORBIDDEN.search(key) or _looks_typed(key):
        raise ValueError(f"{key!r}: not a key that can be written on the command line")
    return _KEY_SPECIAL.sub(lambda match: f"\\{match[0]}", key)


def _looks_typed(key: str) -> bool:
    """Would be read as a number, null or a bool."""
    if key.lower() in ("null", "true", "false"):
        return True
    try:
        float(key)
    except ValueError:
        return False
    return True
