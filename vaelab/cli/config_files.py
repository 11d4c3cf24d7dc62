"""Where config files lie: vaelab's own, and those of packages from outside."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1]
# An installed wheel carries conf/ inside the package; a checkout has it beside.
CONF = PACKAGE / "conf" if (PACKAGE / "conf").is_dir() else PACKAGE.parent / "conf"


def config_folders(arguments: Sequence[str]) -> list[Path]:
    """``CONF``, and what the command line adds by ``--config-dir`` or ``-cd``."""
    folders = [CONF]
    for place, argument in enumerate(arguments):
        flag, equals, value = argument.partition("=")
        if flag in ("--config-dir", "-cd"):
            named = [value] if equals else list(arguments[place + 1 : place + 2])
            folders += [Path(name).expanduser() for name in named]
    return folders
