"""Folders of config files: vaelab's own, and those of other packages."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path

from vaelab.errors import UserError
from vaelab.runs.overrides import unlisted

PACKAGE = Path(__file__).resolve().parents[1]
# An installed wheel carries conf/ inside the package; a checkout has it beside.
CONF = PACKAGE / "conf" if (PACKAGE / "conf").is_dir() else PACKAGE.parent / "conf"

FLAGS = ("--config-dir", "-cd")
KEY = "hydra.searchpath"
IN_PACKAGE = "pkg://"


def split_search_path(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Separate arguments that add places of config files from the others.

    ``--config-dir`` and ``hydra.searchpath`` are treated alike, and saved with the run.

    Returns:
        The other arguments, and the places: absolute folders, or packages as ``pkg://name``.

    Raises:
        UserError: for a place that does not exist.
    """
    rest: list[str] = []
    places: list[str] = []
    waiting = iter(arguments)
    for argument in waiting:
        key, equals, value = argument.partition("=")
        if key in FLAGS:
            value = value if equals else next(waiting, "")
            places.append(_place(value, f"{key} {value}"))
        elif key == KEY:
            places += [_place(place, argument) for place in unlisted(value)]
        else:
            rest.append(argument)
    return rest, list(dict.fromkeys(places))


def is_there(place: str) -> bool:
    """Whether a place of config files exists."""
    return bool(folders_of([place]))


def folders_of(places: Sequence[str]) -> list[Path]:
    """The existing folders of places."""
    return [folder for place in places for folder in _folders(place) if folder.is_dir()]


def option_files(group: str, folders: Sequence[Path]) -> dict[str, Path]:
    """Option → its file, from the first folder that has it, as Hydra chooses."""
    options: dict[str, Path] = {}
    for folder in folders:
        for path in sorted((folder / group).glob("*.yaml")):
            options.setdefault(path.stem, path)
    return dict(sorted(options.items()))


def _place(text: str, argument: str) -> str:
    place = text
    if not place.startswith(IN_PACKAGE):
        place = os.path.abspath(os.path.expanduser(text.removeprefix("file://")))
    if not text or not is_there(place):
        raise UserError(f"{argument}: there is no such folder of config files")
    return place


def _folders(place: str) -> Iterator[Path]:
    if not place.startswith(IN_PACKAGE):
        yield Path(place)
        return
    name, *below = place.removeprefix(IN_PACKAGE).replace("/", ".").split(".")
    spec = find_spec(name) if name else None
    for home in (spec and spec.submodule_search_locations) or ():
        yield Path(home, *below)
