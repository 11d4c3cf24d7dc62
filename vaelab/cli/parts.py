"""The parts of a run: resolve their config, check it against their constructors, build them."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import InterpolationKeyError

from vaelab.cli import resolvers  # noqa: F401  # registers them
from vaelab.cli.declarations import needed_parts
from vaelab.cli.targets import check_targets, parameters, type_hints
from vaelab.cli.typed_paths import is_named_as_path
from vaelab.errors import UserError
from vaelab.runs.paths import is_path


def resolve(cfg: DictConfig, complete: bool = True) -> DictConfig:
    """Replace all interpolations, and make the dataset's paths absolute.

    Args:
        cfg: as Hydra composed it.
        complete: refuse missing values (``???``); the config of an existing run may contain them.

    Raises:
        UserError: when the model needs a key that the dataset does not have.
    """
    try:
        values = OmegaConf.to_container(cfg, resolve=True, throw_on_missing=complete)
    except InterpolationKeyError as error:
        raise UserError(_unresolved(error)) from error
    resolved = OmegaConf.create(values)
    assert isinstance(resolved, DictConfig)
    for key, value in resolved.dataset.items():
        if isinstance(value, str) and is_named_as_path(str(key)):
            resolved.dataset[key] = os.path.abspath(os.path.expanduser(value))
    return resolved


def _unresolved(error: InterpolationKeyError) -> str:
    """A sentence that explains an interpolation of a missing key."""
    assert error.parent_node is not None
    raw = OmegaConf.to_container(error.parent_node, resolve=False)
    text = str(raw[error.key])  # type: ignore[index, call-overload, unused-ignore]
    variable = re.search(r"\$\{([A-Z_][A-Z0-9_]*)\}", text)
    if variable:
        name = variable[1]
        home = "~, or " if name == "HOME" else ""
        return (
            f"{error.full_key}={text}: there is no key {name}; for the environment variable write "
            f"{home}double quotes, in which the shell puts its value, or ${{oc.env:{name}}}"
        )
    choices = HydraConfig.get().runtime.choices
    reason = f"{error.full_key}={text}: {str(error).splitlines()[0]}"
    if "${dataset." not in text:
        return reason
    return (
        f"{reason}: model={choices['model']} and dataset={choices['dataset']} do not fit "
        "together; model=resnet3d_vae is for volumes, model=conv2d_vae for images"
    )


def check_parts(values: DictConfig, names: Sequence[str] | None = None) -> None:
    """Check targets, keys and types of parts.

    Args:
        values: the whole config, of which every ``_target_`` is checked.
        names: sections that are to be built; None takes the task and what it needs.

    Raises:
        UserError: naming the first wrong key, its value and the cure.
    """
    check_targets(values)
    for name in (*needed_parts(values.task), "task") if names is None else names:
        _check_types(values[name], name)


def _check_types(node: Any, path: str) -> None:
    """Compare every key and value of a config with the signature of its ``_target_``.

    Raises:
        UserError: naming the key, the value and the type needed.
    """
    if not isinstance(node, DictConfig):
        return
    from pydantic import PydanticSchemaGenerationError, TypeAdapter, ValidationError

    hints: dict[str, Any] = {}
    if "_target_" in node:
        _check_keys(node, path)
        hints = type_hints(node["_target_"])
    for key, value in node.items():
        assert isinstance(key, str)
        where = f"{path}.{key}"
        if isinstance(value, DictConfig):
            _check_types(value, where)  # an object that is not built yet
        elif key in hints:
            plain = OmegaConf.to_container(value) if isinstance(value, ListConfig) else value
            try:
                TypeAdapter(hints[key]).validate_python(plain)
            except PydanticSchemaGenerationError:
                continue  # a class of ours: the value is null or built elsewhere
            except ValidationError as error:
                reasons = "; ".join(detail["msg"] for detail in error.errors())
                if is_path(hints[key]) and isinstance(plain, (int, float)):
                    reasons = f"is read as a number or a truth value; write ./{plain}"
                raise UserError(f"{where}={plain}: {reasons}") from None


def _check_keys(node: DictConfig, path: str) -> None:
    known = parameters(node["_target_"])
    if known is None:
        return
    for key in map(str, node):
        # Those that begin with an underscore are Hydra's own.
        if key not in known and not key.startswith("_"):
            raise UserError(
                f"{path}.{key}={node[key]}: {node['_target_'].rpartition('.')[2]} takes only "
                f"{', '.join(known)}; leave it out with '~{path}.{key}'"
            )


def build(name: str, values: DictConfig | ListConfig) -> Any:
    """Build a part from its config.

    Raises:
        UserError: of its constructor, or the reason why it cannot be built.
    """
    try:
        return instantiate(values, _convert_="all")
    except InstantiationException as error:
        if isinstance(error.__cause__, UserError):
            raise error.__cause__ from None
        raise UserError(f"{name}: cannot be built: {error}") from error
