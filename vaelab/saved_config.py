"""The config of a run: composed or saved, resolved, written down, built.

Hydra composes what the command line says. A task in an existing run folder, and a resumed run,
start from that run's own ``config_resolved.yaml`` instead, with only what the command line
names changed.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_type_hints

from hydra.core.hydra_config import HydraConfig
from hydra.errors import InstantiationException
from hydra.utils import get_object, instantiate
from omegaconf import DictConfig, ListConfig, OmegaConf
from pydantic import PydanticSchemaGenerationError, TypeAdapter, ValidationError

from vaelab.atomic import replacing
from vaelab.errors import UserError

RESOLVED = "config_resolved.yaml"
PARTS = ("dataset", "model", "annealing", "hardware", "score", "logger", "train", "logging", "task")


def arguments_for(arguments: Sequence[str]) -> list[str]:
    """Command-line arguments, completed.

    None at all mean the demo. Where an existing run is named, its choices are put in front:
    ``resume=<folder>`` and ``run_dir=<folder>`` name one. The choices are needed before Hydra
    composes, so that keys of the run's own dataset and model can be overridden.

    Raises:
        UserError: when the folder that is named is not a run.
    """
    if not arguments:
        return ["experiment=demo"]
    named = dict(argument.split("=", 1) for argument in arguments if "=" in argument)
    resume, run_dir = named.get("resume"), named.get("run_dir")
    if resume in (None, "null") and run_dir is None:
        return list(arguments)
    if resume not in (None, "null"):
        if named.get("task", "train") != "train":
            raise UserError(f"task={named['task']} resume={resume}: only training is resumed")
        run_dir = resume
        arguments = [*arguments, f"run_dir={resume}"]
    assert run_dir is not None
    saved = Path(run_dir) / RESOLVED
    if not saved.is_file():
        if resume in (None, "null") and named.get("task", "train") == "train":
            return list(arguments)  # a new run, in a folder that the user has chosen
        key = "run_dir" if resume in (None, "null") else "resume"
        raise UserError(
            f"{key}={run_dir}: not a run folder, it has no {RESOLVED}; "
            "runs are in outputs/ and multirun_sweeps/"
        )
    if "experiment" in named:
        raise UserError(
            f"experiment={named['experiment']}: a run keeps its own config; leave the key out"
        )
    choices = OmegaConf.load(saved).choices
    taken = [f"{group}={option}" for group, option in choices.items() if group not in named]
    return [*taken, *arguments]


@dataclass(frozen=True)
class RunConfig:
    """The resolved config of one run."""

    values: DictConfig

    @staticmethod
    def of(cfg: DictConfig) -> RunConfig:
        """Resolve what Hydra composed, within the run folder that Hydra made, and write it down.

        Raises:
            UserError: when the folder already holds a run that would be overwritten.
        """
        run_dir = Path(HydraConfig.get().runtime.output_dir)
        cfg.run_dir = str(run_dir)
        saved = run_dir / RESOLVED
        training = cfg.task["_target_"] == "vaelab.tasks.train.Train"
        if saved.is_file() and training and not cfg.resume:
            raise UserError(
                f"run_dir={run_dir}: already holds a run; go on with resume={run_dir}, or choose "
                "another folder"
            )
        resolved = _resolve(cfg)
        if saved.is_file():
            overrides = list(HydraConfig.get().overrides.task)
            resolved = _with_overrides(OmegaConf.load(saved), cfg, resolved, overrides)
            resolved.run_dir = str(run_dir)
            resolved.resume = cfg.resume
        if training or not saved.is_file():
            with replacing(saved) as partial:
                partial.write_text(OmegaConf.to_yaml(resolved), encoding="utf-8")
        return RunConfig(resolved)

    def build(self) -> dict[str, Any]:
        """Every part of the config as an object, by the name that ``Experiment`` gives it.

        Raises:
            UserError: the one that a constructor raised.
        """
        for name in PARTS:
            check_types(self.values[name], name)
        built = {name: _build(name, self.values[name]) for name in PARTS}
        return {
            "run_dir": Path(self.values.run_dir),
            "data": built.pop("dataset"),
            "loggers": list(built.pop("logger").values()),
            "resume": bool(self.values.resume),
            "map_sigma": float(self.values.map_sigma),
            **built,
        }


def _resolve(cfg: DictConfig) -> DictConfig:
    """All interpolations replaced; paths of data made to hold from any folder."""
    resolved = OmegaConf.create(OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True))
    assert isinstance(resolved, DictConfig)
    for key in ("root_dir", "cache_dir"):
        value = resolved.dataset.get(key)
        if value is not None:
            resolved.dataset[key] = os.path.abspath(os.path.expanduser(str(value)))
    return resolved


def _with_overrides(
    saved: Any, composed: DictConfig, resolved: DictConfig, overrides: Sequence[str]
) -> DictConfig:
    """A saved config with what the command line names, and what follows from that, changed."""
    assert isinstance(saved, DictConfig)
    for override in overrides:
        key = override.lstrip("+~").split("=", 1)[0]
        if key in ("run_dir", "resume"):
            continue
        if key in saved.choices and saved.choices[key] == resolved.choices[key]:
            continue  # the run's own choice, whose values are as saved
        for changed in [key, *_followers(composed, key)]:
            value = OmegaConf.select(resolved, changed)
            OmegaConf.update(saved, changed, value, merge=False, force_add=True)
        if key in saved.choices:
            saved.choices[key] = resolved.choices[key]
    return saved


def _followers(cfg: DictConfig, key: str) -> Iterator[str]:
    """Keys elsewhere whose value is an interpolation of ``key``."""
    for path in _leaves(cfg):
        parent, _, leaf = path.rpartition(".")
        node = OmegaConf.select(cfg, parent) if parent else cfg
        if OmegaConf.is_interpolation(node, leaf):
            raw = OmegaConf.to_container(node, resolve=False)
            assert isinstance(raw, dict)
            if raw[leaf] == "${" + key + "}":
                yield path


def _leaves(cfg: Any, prefix: str = "") -> Iterator[str]:
    for key in cfg:
        path = f"{prefix}{key}"
        if OmegaConf.is_interpolation(cfg, key) or not isinstance(cfg[key], DictConfig):
            yield path
        else:
            yield from _leaves(cfg[key], f"{path}.")


def check_types(node: Any, path: str) -> None:
    """Compare every value of a config with what its ``_target_`` says it takes.

    Raises:
        UserError: naming the key, the value and what is needed.
    """
    if not isinstance(node, DictConfig):
        return
    hints: dict[str, Any] = {}
    if "_target_" in node:
        target: Any = get_object(node["_target_"])
        function = target.__init__ if isinstance(target, type) else target  # type: ignore[misc]
        hints = get_type_hints(function)
    for key, value in node.items():
        assert isinstance(key, str)
        where = f"{path}.{key}"
        if isinstance(value, DictConfig):
            check_types(value, where)  # an object to be built, which is not there yet
        elif key in hints:
            plain = OmegaConf.to_container(value) if isinstance(value, ListConfig) else value
            try:
                TypeAdapter(hints[key]).validate_python(plain)
            except PydanticSchemaGenerationError:
                continue  # a type of our own: null, or an object that is built elsewhere
            except ValidationError as error:
                reasons = "; ".join(detail["msg"] for detail in error.errors())
                raise UserError(f"{where}={plain}: {reasons}") from None


def _build(name: str, values: DictConfig | ListConfig) -> Any:
    try:
        return instantiate(values, _convert_="all")
    except InstantiationException as error:
        if isinstance(error.__cause__, UserError):
            raise error.__cause__ from None
        raise UserError(f"{name}: cannot be built: {error}") from error
