"""The targets (``_target_``) that a config may name, so that a config cannot run any program."""

from __future__ import annotations

import inspect
import os
from collections.abc import Iterator
from contextlib import suppress
from typing import Any, get_type_hints

from hydra.utils import get_object
from omegaconf import DictConfig, ListConfig, OmegaConf

from vaelab.errors import UserError

ALLOWED = ("vaelab.",)
ALLOWED_BELOW = {
    "logger": ("lightning.pytorch.loggers.",),
    "callbacks": ("lightning.pytorch.callbacks.",),
}
# Not a config key: a config must not be able to extend what it may call.
VARIABLE = "VAELAB_ALLOWED_TARGETS"


def check_targets(config: Any, path: str = "") -> None:
    """Check all targets of a config, without importing one that is not allowed.

    ``vaelab.`` is allowed everywhere, Lightning's loggers and callbacks below ``logger`` and
    ``callbacks``. The environment variable ``VAELAB_ALLOWED_TARGETS``, a comma-separated list of
    prefixes, allows more.

    Raises:
        UserError: naming the key, the target and the cure.
    """
    if isinstance(config, (DictConfig, ListConfig)):
        config = OmegaConf.to_container(config, resolve=True)
    if isinstance(config, dict):
        if "_target_" in config:
            _check(config["_target_"], path)
        for key, value in config.items():
            check_targets(value, f"{path}.{key}" if path else str(key))
    elif isinstance(config, list):
        for index, value in enumerate(config):
            check_targets(value, f"{path}.{index}")


def _check(target: Any, path: str) -> None:
    extra = [prefix.strip() for prefix in os.environ.get(VARIABLE, "").split(",")]
    # "mine" is the package mine, not also minefield.
    extra = [prefix if prefix.endswith(".") else f"{prefix}." for prefix in extra if prefix]
    section = ALLOWED_BELOW.get(path.split(".")[0], ())
    allowed = (*ALLOWED, *section, *extra)
    where = f"{path}._target_={target}" if path else f"_target_={target}"
    cure = (
        f"if you trust it, set the environment variable {VARIABLE}="
        f"{str(target).split('.')[0]} and run again"
    )
    if not isinstance(target, str) or not target.startswith(allowed):
        raise UserError(
            f"{where}: a config may only name what starts with {', '.join(allowed)}; {cure}"
        )
    # vaelab.atomic.os.system has an allowed prefix, but is defined elsewhere.
    try:
        named: Any = get_object(target)
    except ImportError as error:
        raise UserError(f"{where}: {error}") from None
    home = f"{getattr(named, '__module__', None)}."
    if not home.startswith(allowed):
        raise UserError(f"{where}: is {home}{getattr(named, '__name__', '')} in truth; {cure}")


def type_hints(target: str) -> dict[str, Any]:
    """Argument → type of a target that ``check_targets`` has accepted.

    Annotations that cannot be evaluated, such as names imported only for a type checker, are left
    out.
    """
    named: Any = get_object(target)
    function = named.__init__ if isinstance(named, type) else named  # type: ignore[misc]
    try:
        return get_type_hints(function, include_extras=True)
    except (NameError, TypeError):
        return dict(_evaluated(function))


def _evaluated(function: Any) -> Iterator[tuple[str, Any]]:
    names = getattr(inspect.unwrap(function), "__globals__", {})
    for argument, annotation in getattr(function, "__annotations__", {}).items():
        alone = type("alone", (), {"__annotations__": {argument: annotation}})
        with suppress(NameError, TypeError):
            yield argument, get_type_hints(alone, names, include_extras=True)[argument]


def parameters(target: str) -> list[str] | None:
    """Names of the arguments of a target; None where it takes any."""
    arguments = inspect.signature(get_object(target)).parameters.values()
    if any(argument.kind is inspect.Parameter.VAR_KEYWORD for argument in arguments):
        return None
    return [argument.name for argument in arguments]
