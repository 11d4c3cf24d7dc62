"""The config of a run: composed or saved, resolved, written down, built.

Hydra composes what the command line says. A task in an existing run folder, and a resumed run,
start from that run's own ``config_resolved.yaml`` instead, with only what the command line
names changed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.types import Quote, QuotedString
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from vaelab.atomic import replacing
from vaelab.cli.config_files import config_folders
from vaelab.cli.declarations import needed_parts, task_by_name, task_class
from vaelab.cli.parts import build, check_parts, resolve
from vaelab.errors import UserError
from vaelab.runs.differences import deciding, differences, rerooted
from vaelab.runs.folder import CONFIG, RunFolder
from vaelab.runs.status import SWEEP, Refused

# Paths on the command line, meant as typed: Hydra would take a comma for a sweep and "=" for a
# mistake, and folders of jobs are named with both.
PATHS = ("resume", "run_dir", "task.runs", "task.inputs")
if TYPE_CHECKING:
    from vaelab.assembly import Run, Task

LAUNCHERS = {
    "hydra/launcher=joblib": ("hydra_plugins.hydra_joblib_launcher", "parallel"),
    "hydra/launcher=submitit_local": ("hydra_plugins.hydra_submitit_launcher", "slurm"),
    "hydra/launcher=submitit_slurm": ("hydra_plugins.hydra_submitit_launcher", "slurm"),
}


def arguments_for(arguments: Sequence[str]) -> list[str]:
    """Command-line arguments, completed.

    None at all mean the demo. Where an existing run is named, its choices are put in front:
    ``resume=<folder>`` and ``run_dir=<folder>`` name one. The choices are needed before Hydra
    composes, so that keys of the run's own dataset and model can be overridden.

    Raises:
        UserError: when the folder that is named is not a run, or a sweep is asked to use one.
    """
    if not arguments:
        return ["experiment=demo"]
    _check_launcher(arguments)
    folders = config_folders(arguments)
    # Hydra's own parser refuses a flag between two keys.
    arguments = sorted(arguments, key=lambda argument: argument not in ("-m", "--multirun"))
    named = dict(argument.split("=", 1) for argument in arguments if "=" in argument)
    arguments = [_as_typed(argument) for argument in arguments]
    resume, run_dir = named.get("resume"), named.get("run_dir")
    if resume in (None, "null") and run_dir is None:
        return [*_name_of_folder(named, folders), *arguments]
    if "-m" in arguments or "--multirun" in arguments:
        key = "run_dir" if resume in (None, "null") else "resume"
        raise UserError(
            f"{key}={named[key]}: not with -m; a sweep finds its own folders, and the same command "
            "goes on where it was cut off (hydra.sweep.dir=<folder> chooses the sweep's)"
        )
    if resume not in (None, "null"):
        run_dir = resume
        arguments = [*arguments, _as_typed(f"run_dir={resume}")]
    assert run_dir is not None
    saved = Path(run_dir) / CONFIG
    if not saved.is_file():
        task = task_by_name(named.get("task", "train"), folders)
        if resume in (None, "null") and (task is None or not task.needs_trained_run):
            return list(arguments)  # a new run, in a folder that the user has chosen
        key = "run_dir" if resume in (None, "null") else "resume"
        if (Path(run_dir) / SWEEP).is_file():
            raise UserError(
                f"{key}={run_dir}: a sweep, not a run; name one of the runs in it. A sweep itself "
                "goes on when its command is run again"
            )
        raise UserError(
            f"{key}={run_dir}: not a run folder, it has no {CONFIG}; "
            "runs are in outputs/ and multirun_sweeps/"
        )
    if "experiment" in named:
        raise UserError(
            f"experiment={named['experiment']}: a run keeps its own config; leave the key out"
        )
    choices = OmegaConf.load(saved).choices
    # What is done in the folder of a run is chosen anew, unless its own task goes on.
    kept = set(choices) - set(named) - ({"task"} if resume in (None, "null") else set())
    return [*(f"{group}={choices[group]}" for group in choices if group in kept), *arguments]


def _name_of_folder(named: Mapping[str, str], folders: Sequence[Path]) -> list[str]:
    """A task that looks at no dataset has a run folder that is named after the task."""
    if "task" not in named or "name" in named:
        return []
    task = task_by_name(named["task"], folders)
    return [] if task is None or "dataset" in task.parts else [f"name={named['task']}"]


def _as_typed(argument: str) -> str:
    key, _, value = argument.partition("=")
    if key not in PATHS or value in ("", "null") or value[0] in "'\"[":
        return argument
    return f"{key}={QuotedString(value, Quote.single).with_quotes()}"


def _check_launcher(arguments: Sequence[str]) -> None:
    for argument in arguments:
        package, extra = LAUNCHERS.get(argument, ("hydra", ""))
        if find_spec(package.split(".")[0]) is None or find_spec(package) is None:
            raise UserError(f"{argument}: not installed; pip install 'vaelab[{extra}]'")


@dataclass(frozen=True)
class RunConfig:
    """The resolved config of one run."""

    values: DictConfig
    owner: bool
    """This task makes the run, and does not merely look at one that is there; see ``owns``."""

    @staticmethod
    def of(cfg: DictConfig) -> RunConfig:
        """Resolve what Hydra composed, within the run folder that Hydra made.

        A job of a sweep that has begun before is resumed.

        Raises:
            Refused: when the folder already holds a run that would be overwritten, or a job of a
                sweep one of another config.
        """
        run_dir = Path(HydraConfig.get().runtime.output_dir)
        cfg.run_dir = str(run_dir)
        saved = run_dir / CONFIG
        in_sweep = HydraConfig.get().mode == RunMode.MULTIRUN
        if in_sweep:
            _share_cache(cfg)
        task = task_class(cfg.task)
        if task.needs_trained_run and not saved.is_file():
            name = HydraConfig.get().runtime.choices["task"]
            raise UserError(
                f"task={name}: works in the folder of a trained run; name a trained run with "
                "run_dir=outputs/<run>"
            )
        if cfg.resume and not task.resumable:
            raise UserError(f"resume={cfg.resume}: {task.__name__} cannot be resumed")
        owner = owns(cfg, run_dir)
        resolved = resolve(cfg)
        if saved.is_file() and in_sweep:
            _refuse_another(OmegaConf.load(saved), resolved)
            resolved.resume = str(run_dir) if task.resumable else None
        elif saved.is_file() and task.resumable and not cfg.resume:
            raise Refused(
                f"run_dir={run_dir}: already holds a run; go on with resume={run_dir}, or choose "
                "another folder"
            )
        elif saved.is_file():
            overrides = list(HydraConfig.get().overrides.task)
            resolved = _with_overrides(_as_moved(saved), cfg, resolved, overrides)
            resolved.run_dir = str(run_dir)
            resolved.resume = cfg.resume
        return RunConfig(resolved, owner)

    @staticmethod
    def load(run_dir: Path) -> RunConfig:
        """The config that a run has saved."""
        saved = OmegaConf.load(run_dir / CONFIG)
        assert isinstance(saved, DictConfig)
        return RunConfig(saved, owner=False)

    def save(self) -> None:
        """Write ``config_resolved.yaml``, unless the run belongs to another task."""
        if self.owner:
            with replacing(Path(self.values.run_dir) / CONFIG) as partial:
                partial.write_text(OmegaConf.to_yaml(self.values), encoding="utf-8")

    def build(self) -> tuple[Task, Run]:
        """The task, and a run with the parts that it needs.

        Raises:
            UserError: the one that a constructor raised.
        """
        from vaelab.assembly import Run

        check_parts(self.values)
        parts = {name: build(name, self.values[name]) for name in needed_parts(self.values.task)}
        for several in ("logger", "callbacks"):
            if several in parts:
                parts[several] = list(parts[several].values())
        run = Run(
            RunFolder(Path(self.values.run_dir)),
            parts,
            map_sigma=float(self.values.map_sigma),
            resume=bool(self.values.resume),
        )
        return build("task", self.values.task), run


def owns(cfg: DictConfig, run_dir: Path) -> bool:
    """Whether a task makes the run in ``run_dir``, and does not merely look at one there."""
    in_sweep = HydraConfig.get().mode == RunMode.MULTIRUN
    return task_class(cfg.task).resumable or in_sweep or not (run_dir / CONFIG).is_file()


def _share_cache(cfg: DictConfig) -> None:
    """Jobs of a sweep preprocess once: ``<sweep>/cache``, unless the user has chosen a folder."""
    raw = OmegaConf.to_container(cfg.dataset, resolve=False)
    assert isinstance(raw, dict)
    if raw.get("cache_dir") == "${run_dir}/cache":
        cfg.dataset.cache_dir = str(Path(cfg.run_dir).parent / "cache")


def _refuse_another(saved: Any, resolved: DictConfig) -> None:
    """A job's folder is found by what the sweep varies; the rest must be as it was."""

    def portable(config: Any) -> dict[str, Any]:
        values = OmegaConf.to_container(config, resolve=True)
        assert isinstance(values, dict)
        return deciding(rerooted(values, str(values["run_dir"]), "<run>"))

    found = differences(portable(saved), portable(resolved))
    if found:
        raise Refused(
            f"{resolved.run_dir}: holds a run of another config: {found}. Put the config back, or "
            "delete the folder to run the job anew"
        )


def _as_moved(saved: Path) -> Any:
    """A saved config, with the paths within its run folder where that folder is now."""
    values = OmegaConf.to_container(OmegaConf.load(saved), resolve=True)
    assert isinstance(values, dict)
    return OmegaConf.create(rerooted(values, str(values["run_dir"]), str(saved.parent)))


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
    for path, node, leaf in _leaves(cfg):
        if OmegaConf.is_interpolation(node, leaf):
            raw = OmegaConf.to_container(node, resolve=False)
            assert isinstance(raw, dict)
            if raw[leaf] == "${" + key + "}":
                yield path


def _leaves(cfg: Any, prefix: str = "") -> Iterator[tuple[str, Any, str]]:
    """Dotted path, node and key; a key may hold dots, so that its path does not lead back to it."""
    for key in cfg:
        path = f"{prefix}{key}"
        if OmegaConf.is_interpolation(cfg, key) or not isinstance(cfg[key], DictConfig):
            yield path, cfg, key
        else:
            yield from _leaves(cfg[key], f"{path}.")
