"""``--help``, made of the text of the config files, so that every key comes with its reason.

It does without Hydra, whose own help composes all configs and takes longer than everything else
that this program does before it begins to work. ``--cfg job`` shows the composed config.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

NOT_KEYS = ("defaults", "choices", "hydra")
"""Sections of ``config.yaml`` that are no keys to set."""


def help_text(conf: Path, arguments: Sequence[str]) -> str:
    """What there is to choose and to set.

    Args:
        conf: folder of the config files.
        arguments: of the command line; ``group=option`` shows that option's keys.
    """
    main = (conf / "config.yaml").read_text(encoding="utf-8")
    chosen = dict(re.findall(r"^  - (\w+): (\w+)", main, re.MULTILINE))
    chosen |= dict(argument.split("=", 1) for argument in arguments if "=" in argument)
    groups = sorted(path.name for path in conf.iterdir() if path.is_dir() and path.name != "hydra")
    options = [conf / group / f"{chosen.get(group)}.yaml" for group in groups]
    keys = [_without(_with_brought_values(main, conf, options), NOT_KEYS)]
    for group in groups:
        path = conf / group / f"{chosen.get(group)}.yaml"
        section = list(_section(group, path)) if path.is_file() and group != "experiment" else []
        if section:
            keys.append("\n".join([f"{group}:  # {group}={path.stem}", *section]))
    words = (conf / "help.txt").read_text(encoding="utf-8")
    listed = "\n".join(f"  {group}: {', '.join(_options(conf / group))}" for group in groups)
    return words.replace("$GROUPS", listed).replace("$KEYS", _indented("\n\n".join(keys)))


def _with_brought_values(main: str, conf: Path, options: Sequence[Path]) -> str:
    """The text of ``config.yaml`` with the values that a chosen option brings for the whole run.

    A dataset may bring how it is trained: ``- /experiment/training/<name>`` in its defaults.
    """
    parts = [part for path in options if path.is_file() for part in [*_built_on(path), path]]
    for part in parts:
        brought = re.findall(r"^  - /(experiment/\S+)", part.read_text("utf-8"), re.MULTILINE)
        for name in brought:
            text = (conf / f"{name}.yaml").read_text("utf-8")
            for key, value in re.findall(r"^  (\w+): (.*)$", text, re.MULTILINE):
                main = re.sub(rf"(?m)^(  {key}: )\S+", rf"\g<1>{value}", main)
    return main


def _options(folder: Path) -> list[str]:
    return sorted(path.stem for path in folder.glob("*.yaml"))


def _section(group: str, path: Path) -> Iterator[str]:
    """One group's keys as in ``config.yaml``: those of its option, after those it builds on."""
    parts = [part.read_text(encoding="utf-8") for part in [*_built_on(path), path]]
    for number, part in enumerate(parts):
        later = re.findall(r"^(\w+):", "\n".join(parts[number + 1 :]), re.MULTILINE)
        keys = _without(part, ["defaults", *later])
        if keys:
            yield _indented(keys)


def _built_on(path: Path) -> list[Path]:
    names = re.findall(r"^  - (\w+)$", path.read_text(encoding="utf-8"), re.MULTILINE)
    found = [path.with_name(f"{name}.yaml") for name in names if name != "_self_"]
    return [part for other in found for part in [*_built_on(other), other]]


def _without(text: str, sections: Sequence[str]) -> str:
    """YAML text less its leading comment, targets and some of its top-level sections."""
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
