"""Quote paths on the command line, so that Hydra reads any path as it was typed.

``( ) , = [ ] { } '`` and blanks are part of Hydra's grammar, so that
``dataset.root_dir=/data/chest x-ray (2017)`` would be an error. The value of a key that is a path
is therefore quoted before Hydra reads it, by this rule:

- ``~`` at the beginning is the home directory, as in a shell, and ``${...}`` an interpolation;
- quoted values (``key='"a b"'`` in a shell), ``null`` and empty values are left unchanged;
- ``[a,b]`` is a list where the key takes several paths, if Hydra can read it;
- a comma belongs to the path; a sweep (``-m``) over paths is written ``key=choice(a,b)``, or with
  each of them in quotes, ``key='"a","b"'``.

A key is a path when the argument behind it is annotated as one (``PathText``, ``os.PathLike``), or
when its name ends in ``_dir``, ``_path`` or ``_file`` or is ``folder``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped, unused-ignore]
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException

from vaelab.cli.config_files import option_files
from vaelab.cli.targets import check_targets, type_hints
from vaelab.errors import UserError
from vaelab.runs.overrides import QUOTED, is_plain, quoted, unquoted
from vaelab.runs.paths import is_path, takes_several

OWN = ("run_dir", "resume", "hydra.run.dir", "hydra.sweep.dir")
"""Keys that belong to no constructor."""

_NAMED_AS_PATH = re.compile(r"(.*_(dir|path|file)|folder)")
_NUMBER = re.compile(r"[\d.eE+-]+")
_SWEEP = re.compile(rf"(choice|shuffle|sort|tag)\(.*\)|({QUOTED})(\s*,\s*({QUOTED}))+", re.DOTALL)


def as_typed(arguments: Sequence[str], folders: Sequence[Path], sweep: bool = False) -> list[str]:
    """The arguments with paths quoted for Hydra; quoted arguments are returned unchanged.

    Args:
        arguments: of the command line.
        folders: of config files.
        sweep: whether it is one (``-m``).

    Raises:
        UserError: for a value that is probably meant as a sweep over several paths.
    """
    chosen = dict(argument.split("=", 1) for argument in arguments if "=" in argument)
    return [_as_typed(argument, chosen, folders, sweep) for argument in arguments]


def is_named_as_path(name: str) -> bool:
    """Whether an argument of a constructor is a path by its name."""
    return _NAMED_AS_PATH.fullmatch(name) is not None


def typed_path(value: str) -> str:
    """The path of a value, as typed or as quoted by ``as_typed``."""
    plain = unquoted(value)
    return str(Path(value).expanduser()) if plain is None else plain


def _as_typed(
    argument: str, chosen: Mapping[str, str], folders: Sequence[Path], sweep: bool
) -> str:
    prefixed, equals, value = argument.partition("=")
    key = prefixed.lstrip("+")
    if not equals or value in ("", "null") or is_plain(value) or unquoted(value) is not None:
        return argument
    several = _several(key, value, chosen, folders)
    if several is None or (several and _is_list(value)) or (sweep and _SWEEP.fullmatch(value)):
        return argument
    if sweep and "," in value:
        _refuse_list(prefixed, value)
    home = str(Path(value).expanduser()) if value.startswith("~") else value
    return f"{prefixed}={quoted(home, interpolations=True)}"


def _several(
    key: str, value: str, chosen: Mapping[str, str], folders: Sequence[Path]
) -> bool | None:
    """Whether a key takes several paths; None if it is not a path."""
    if key in OWN:
        return False
    hints = [] if _NUMBER.fullmatch(value) else list(_hints(key, chosen, folders))
    if any(map(is_path, hints)):
        return any(map(takes_several, hints))
    return False if is_named_as_path(key.rpartition(".")[2]) else None


def _hints(key: str, chosen: Mapping[str, str], folders: Sequence[Path]) -> Iterator[Any]:
    """The types of a key in the chosen option, or in all options of its group."""
    group, *inner = key.split(".")
    if inner:
        options = option_files(group, folders)
        named = options.get(chosen.get(group, ""))
        for path in [named] if named else options.values():
            yield _types(path, tuple(inner[:-1])).get(inner[-1])


@cache
def _types(option: Path, place: Sequence[str]) -> Mapping[str, Any]:
    """Argument → type of the target at a place in an option's file."""
    node = yaml.safe_load(option.read_text(encoding="utf-8"))
    for step in place:
        node = node.get(step) if isinstance(node, dict) else None
    if not isinstance(node, dict) or "_target_" not in node:
        return {}
    try:
        check_targets({"_target_": node["_target_"]}, option.parent.name)
    except UserError:  # raised again when the option is used
        return {}
    return type_hints(node["_target_"])


def _is_list(value: str) -> bool:
    if not (value.startswith("[") and value.endswith("]")):
        return False
    try:
        (override,) = OverridesParser.create().parse_overrides([f"key={value}"])
    except HydraException:
        return False
    return isinstance(override.value(), list)


def _refuse_list(key: str, value: str) -> None:
    parts = [part.strip() for part in value.split(",")]
    if not _exists(value) and all(map(_exists, parts)):
        raise UserError(
            f"{key}={value}: one path, commas and all, and there is none such; to sweep over "
            f'several, write "{key}=choice({",".join(map(quoted, parts))})"'
        )


def _exists(value: str) -> bool:
    """Whether there is a file or folder of that name."""
    return Path(value).expanduser().exists()
