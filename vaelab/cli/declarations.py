"""Read the declarations of a task from its class before any part is built."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml  # type: ignore[import-untyped, unused-ignore]
from hydra.utils import get_class
from omegaconf import OmegaConf

from vaelab.cli.targets import check_targets
from vaelab.errors import UserError

if TYPE_CHECKING:
    from vaelab.assembly import Task


def task_class(node: Any) -> type[Task]:
    """The class of a ``task`` section.

    Raises:
        UserError: when a config may not name it, or it is not a task.
    """
    from vaelab.assembly import Task  # takes seconds, and --help does not need it

    check_targets({"_target_": node["_target_"]}, "task")
    named = get_class(node["_target_"])
    if not issubclass(named, Task):
        raise UserError(
            f"task._target_={node['_target_']}: not a task; subclass vaelab.assembly.Task"
        )
    return named


def needed_parts(node: Any) -> tuple[str, ...]:
    """The parts that a ``task`` section and the tasks within it need, in the order of ``PARTS``."""
    from vaelab.assembly import PARTS, Task

    plain = OmegaConf.to_container(node) if OmegaConf.is_config(node) else node
    classes = [get_class(target) for target in _targets(plain)]
    tasks = [named for named in classes if issubclass(named, Task)]
    needed = {part for task in tasks for part in task.parts}
    return tuple(part for part in PARTS if part in needed)


def task_by_name(name: str, folders: Sequence[Path]) -> type[Task] | None:
    """The class of ``task=<name>``, before Hydra composes; None if no file names it.

    Args:
        name: of a file in ``task/``.
        folders: of config files.
    """
    for folder in folders:
        path = folder / "task" / f"{name}.yaml"
        if path.is_file():
            node = yaml.safe_load(path.read_text(encoding="utf-8"))
            if isinstance(node, Mapping) and "_target_" in node:
                return task_class(node)
    return None


def _targets(node: Any) -> Iterator[str]:
    if isinstance(node, Mapping):
        if "_target_" in node:
            yield str(node["_target_"])
        for value in node.values():
            yield from _targets(value)
    elif isinstance(node, list):
        for value in node:
            yield from _targets(value)
