"""``--help``: the text of the config files, with the comment of every key.

It does not use Hydra, whose help composes all configs and takes seconds. ``--cfg job`` shows the
composed config.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from vaelab.cli.config_files import option_files

NOT_KEYS = ("defaults", "choices", "hydra")
"""Sections of ``config.yaml`` that a user does not set."""


def help_text(folders: Sequence[Path], arguments: Sequence[str]) -> str:
    """The text of ``--help``: options and keys.

    Args:
        folders: of config files, vaelab's own first.
        arguments: of the command line; ``group=option`` shows that option's keys.
    """
    own = folders[0]
    main = (own / "config.yaml").read_text(encoding="utf-8")
    chosen = dict(re.findall(r"^  - (\w+): (\w+)", main, re.MULTILINE))
    chosen |= dict(argument.split("=", 1) for argument in arguments if "=" in argument)
    groups = {name: option_files(name, folders) for name in groups_of(folders)}
    options = {name: files[chosen.get(name, "")] for name, files in groups.items()
               if chosen.get(name) in files}  # fmt: skip
    keys = [_without(_with_values_of_options(main, folders, list(options.values())), NOT_KEYS)]
    for group, path in options.items():
        section = list(_section(path, folders)) if group != "experiment" else []
        if section:
            keys.append("\n".join([f"{group}:  # {group}={path.stem}", *section]))
    words = (own / "help.txt").read_text(encoding="utf-8")
    listed = "\n".join(f"  {group}: {', '.join(files)}" for group, files in groups.items())
    return words.replace("$GROUPS", listed).replace("$KEYS", _indented("\n\n".join(keys)))


def groups_of(folders: Sequence[Path]) -> list[str]:
    """Names of all groups of options, including those of other packages."""
    within = [path for folder in folders for path in folder.iterdir() if any(path.glob("*.yaml"))]
    return sorted({path.name for path in within} - {"hydra"})


def _with_values_of_options(main: str, folders: Sequence[Path], options: Sequence[Path]) -> str:
    """The text of ``config.yaml`` with the values that the chosen options set for the whole run.

    A dataset may set the training: ``- /experiment/training/<name>`` in its defaults.
    """
    for part in [part for path in options for part in [*extended_by(path, folders), path]]:
        recipes = re.findall(r"^  - /(experiment/\S+)/(\S+)", part.read_text("utf-8"), re.MULTILINE)
        for group, name in recipes:
            text = option_files(group, folders)[name].read_text("utf-8")
            for key, value in re.findall(r"^  (\w+): (.*)$", text, re.MULTILINE):
                main = re.sub(rf"(?m)^(  {key}: )\S+", rf"\g<1>{value}", main)
    return main


def _section(path: Path, folders: Sequence[Path]) -> Iterator[str]:
    """The keys of a group's option, after those of the options that it extends."""
    parts = [part.read_text(encoding="utf-8") for part in [*extended_by(path, folders), path]]
    for number, part in enumerate(parts):
        later = re.findall(r"^(\w+):", "\n".join(parts[number + 1 :]), re.MULTILINE)
        keys = _without(part, ["defaults", *later])
        if keys:
            yield _indented(keys)


def extended_by(path: Path, folders: Sequence[Path]) -> list[Path]:
    """The options of the same group that an option extends, the most basic first."""
    names = re.findall(r"^  - (\w+)$", path.read_text(encoding="utf-8"), re.MULTILINE)
    files = option_files(path.parent.name, folders)
    bases = [files[name] for name in names if name in files]
    return [part for base in bases for part in [*extended_by(base, folders), base]]


def _without(text: str, sections: Sequence[str]) -> str:
    """YAML text without its leading comment, its targets and some of its top-level sections."""
    lines = text.splitlines()
    while lines and (lines[0].startswith("#") or not lines[0].strip()):
        lines.pop(0)
    kept: list[str] = []
    comment: list[str] = []  # belongs to the section that follows it
    dropping = False
    for line in lines:
        if line.startswith("#"):
            comment.append(line)
            continue
        if line[:1].strip():
            dropping = line.split(":")[0] in sections
            kept += [] if dropping else comment
            comment = []
        if not dropping and "_target_:" not in line:
            kept.append(line)
    return re.sub(r"\n{2,}", "\n\n", "\n".join(kept)).strip("\n")


def _indented(text: str) -> str:
    return "\n".join(f"  {line}" if line.strip() else "" for line in text.splitlines())
