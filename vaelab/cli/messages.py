"""Errors of Hydra as a sentence that names the cure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from difflib import get_close_matches
from typing import Any

from hydra.errors import MissingConfigException, OverrideParseException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import ConfigAttributeError, ConfigKeyError, OmegaConfBaseException


def explain(error: BaseException, arguments: Sequence[str]) -> str:
    """A sentence that explains an error of the command line.

    Args:
        error: raised by Hydra or OmegaConf, or by vaelab itself.
        arguments: of the command line.
    """
    if isinstance(error, MissingConfigException):
        return _unknown_option(error)
    if isinstance(error, OverrideParseException):
        return _unreadable(error)
    if isinstance(error, OSError) and error.filename:
        return f"{error.filename}: {error.strerror}; choose another folder with run_dir=<folder>"
    text, cause = str(error), error.__cause__
    if isinstance(cause, (ConfigKeyError, ConfigAttributeError)) and isinstance(
        cause.parent_node, DictConfig
    ):
        return _unknown_key(text, cause)
    named = re.search(r"Multiple values for (\S+)\. |already at '(\S+)'", text)
    key = (named[1] or named[2]) if named else None
    for argument in arguments:
        if key and argument.startswith("+") and argument.lstrip("+").startswith(f"{key}="):
            return f"{argument}: it is there already; leave out the +: {argument.lstrip('+')}"
        if f"Ambiguous value for argument '{argument}'" in text:
            name, _, value = argument.partition("=")
            return (
                f"{argument}: several values; add -m to sweep over them, or write {name}=[{value}] "
                "for all of them at once"
            )
    return f"{text}\n{cause}" if isinstance(cause, OmegaConfBaseException) else text


def nearest(word: str, names: Iterable[str]) -> str | None:
    """The most similar name; None if none is similar."""
    names = list(names)
    longer = [name for name in names if name.startswith(word)]
    near = longer or get_close_matches(word, names, n=1)
    return near[0] if near else None


def _unknown_option(error: MissingConfigException) -> str:
    group, _, name = str(error.missing_cfg_file).rpartition("/")
    if not group or not error.options:
        return str(error)
    return f"{group}={name}: there is no such option; {_offer(name, error.options, f'{group}=')}"


def _unreadable(error: OverrideParseException) -> str:
    key, equals, value = error.override.partition("=")
    if not equals:
        return f"{error.override}: neither key=value nor group=option; see --help"
    quotes = "'" if "'" not in value else '"'
    return (
        f"{error.override}: has characters with a meaning of their own in Hydra's grammar; put the "
        f'value in quotes that the shell leaves in place, "{key}={quotes}...{quotes}"'
    )


def _unknown_key(text: str, cause: OmegaConfBaseException) -> str:
    """Explain a key that ``cause.parent_node`` does not have; the rest of the path is unknown."""
    written = re.search(r"use \+(.*)", text)
    full, key = str(cause.full_key), str(cause.key)
    section = full[: -len(key)]  # with its dot
    argument = written[1] if written else full
    names = [str(name) for name in cause.parent_node if name != "hydra"]
    near = nearest(key, names)
    if near is None and not section:
        near = next((path for path in _paths(cause.parent_node) if path.endswith(f".{key}")), None)
    rest = argument.partition("=")[0].removeprefix(full)
    if near is not None:
        return f"{argument}: there is no key {full}; did you mean {section}{near}{rest}?"
    holder = section.rstrip(".") or "the config"
    return f"{argument}: there is no key {full}; {holder} has {', '.join(names)}"


def _paths(node: Any, prefix: str = "") -> Iterator[str]:
    """Dotted keys of a config, without Hydra's own."""
    for key in node:
        if key != "hydra":
            yield f"{prefix}{key}"
            if not OmegaConf.is_interpolation(node, key) and OmegaConf.is_dict(node[key]):
                yield from _paths(node[key], f"{prefix}{key}.")


def _offer(word: str, names: Sequence[str], prefix: str = "") -> str:
    near = nearest(word, names)
    listed = f"there are {', '.join(names)}"
    return f"did you mean {prefix}{near}? {listed.capitalize()}" if near else listed
