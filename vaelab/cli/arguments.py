"""Prepare the command line for Hydra."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path

from vaelab.cli.config_files import CONF, FLAGS, folders_of, is_there, split_search_path
from vaelab.cli.declarations import task_by_name
from vaelab.cli.typed_paths import as_typed, typed_path
from vaelab.errors import UserError
from vaelab.runs.folder import CONFIG, RunFolder
from vaelab.runs.overrides import overrides
from vaelab.runs.reading import read_config
from vaelab.runs.status import SWEEP

MULTIRUN = ("-m", "--multirun")

HYDRAS_FLAGS = (
    *MULTIRUN, "--run", "-r", "--hydra-help", "--version", "--cfg", "-c", "--resolve", "--package",
    "-p", "--shell-completion", "-sc", "--config-path", "-cp", "--config-name", "-cn",
    "--experimental-rerun", "--info", "-i",
)  # fmt: skip

LAUNCHERS = {
    "hydra/launcher=joblib": ("hydra_plugins.hydra_joblib_launcher", "parallel"),
    "hydra/launcher=submitit_local": ("hydra_plugins.hydra_submitit_launcher", "slurm"),
    "hydra/launcher=submitit_slurm": ("hydra_plugins.hydra_submitit_launcher", "slurm"),
}


def arguments_for(arguments: Sequence[str]) -> list[str]:
    """The arguments, completed; complete arguments are returned unchanged.

    Without arguments the demo is run. Paths are quoted (see ``vaelab.cli.typed_paths``), folders of
    config files become ``hydra.searchpath``. If ``resume=<folder>`` or ``run_dir=<folder>`` names
    an existing run, its choices and its folders of config files are put in front, so that Hydra
    composes with the run's own dataset and model, whose keys can then be overridden.

    Raises:
        UserError: when the folder is not a run, or a sweep names one.
    """
    if not arguments:
        return ["experiment=demo"]
    _check_launcher(arguments)
    # Hydra's own parser refuses a flag between two keys.
    flags = [argument for argument in arguments if argument in MULTIRUN]
    arguments, places = split_search_path([item for item in arguments if item not in flags])
    _check_flags(arguments)
    named = _Named.of(arguments)
    saved = _saved(named, bool(flags), [CONF, *folders_of(places)])
    choices: list[str] = []
    if saved is not None:
        config = read_config(saved)
        places = _with_saved(places, config.get("config_dirs") or (), named, saved)
        # The task is chosen anew unless the run is resumed.
        left_out = {*named.values, *(() if named.resume else ("task",))}
        kept = {name: value for name, value in config["choices"].items() if name not in left_out}
        choices = overrides(kept)
    folders = [CONF, *folders_of(places)]
    if saved is None and not named.folder:
        choices = _name_of_folder(named.values, folders)
    if named.resume and "run_dir" not in named.values:
        arguments = [*arguments, *overrides({"run_dir": named.resume})]
    return [
        *flags,
        *overrides({"hydra.searchpath": places} if places else {}),
        *choices,
        *as_typed(arguments, folders, sweep=bool(flags)),
    ]


class _Named:
    """Keys and values of the command line, and the run folder named there."""

    def __init__(self, values: Mapping[str, str]) -> None:
        self.values = values
        self.resume = self._path("resume")
        self.folder = self.resume or self._path("run_dir")
        self.key = "resume" if self.resume else "run_dir"

    @staticmethod
    def of(arguments: Sequence[str]) -> _Named:
        return _Named(dict(item.split("=", 1) for item in arguments if "=" in item))

    def _path(self, key: str) -> str | None:
        value = self.values.get(key, "null")
        return None if value in ("", "null") else typed_path(value)


def _saved(named: _Named, sweep: bool, folders: Sequence[Path]) -> RunFolder | None:
    """The existing run that the command line names; None for a new run.

    Raises:
        UserError: when the folder cannot be used, or the task needs a run and it is not one.
    """
    if named.folder is None:
        return None
    where = f"{named.key}={named.folder}"
    if sweep:
        raise UserError(
            f"{where}: not with -m; a sweep finds its own folders, and the same command "
            "goes on where it was cut off (hydra.sweep.dir=<folder> chooses the sweep's)"
        )
    run = RunFolder(Path(named.folder))
    if run.is_run:
        if "experiment" in named.values:
            raise UserError(
                f"experiment={named.values['experiment']}: a run keeps its own config; leave the "
                "key out"
            )
        return run
    task = task_by_name(named.values.get("task", "train"), folders)
    if not named.resume and (task is None or not task.needs_trained_run):
        return None
    if (run.path / SWEEP).is_file():
        raise UserError(
            f"{where}: a sweep, not a run; name one of the runs in it. A sweep itself "
            "goes on when its command is run again"
        )
    raise UserError(
        f"{where}: not a run folder, it has no {CONFIG}; runs are in outputs/ and multirun_sweeps/"
    )


def _with_saved(
    places: list[str], saved: Sequence[str], named: _Named, run: RunFolder
) -> list[str]:
    """Places of config files: those of the command line and those saved with the run.

    Raises:
        UserError: when a saved place does not exist any more and the command line names none.
    """
    missing = [place for place in saved if not is_there(place)]
    if missing and not places:
        raise UserError(
            f"{named.key}={run}: its options came from {missing[0]}, which does not exist any "
            f"more; name their new place with {FLAGS[0]} <folder>"
        )
    return list(dict.fromkeys([*places, *(place for place in saved if place not in missing)]))


def _name_of_folder(named: Mapping[str, str], folders: Sequence[Path]) -> list[str]:
    """The run folder of a task without a dataset is named after the task."""
    if "task" not in named or "name" in named:
        return []
    task = task_by_name(named["task"], folders)
    return [] if task is None or "dataset" in task.parts else overrides({"name": named["task"]})


def _check_flags(arguments: Sequence[str]) -> None:
    """Raise ``UserError`` for a flag unknown to Hydra, which would print its own usage."""
    for argument in arguments:
        if argument.startswith("-") and argument.partition("=")[0] not in HYDRAS_FLAGS:
            raise UserError(
                f"{argument}: there is no such flag; keys and groups have no dashes, as in "
                "model=conv2d_vae train.lr=1e-4; see --help"
            )


def _check_launcher(arguments: Sequence[str]) -> None:
    for argument in arguments:
        package, extra = LAUNCHERS.get(argument, ("hydra", ""))
        if find_spec(package.split(".")[0]) is None or find_spec(package) is None:
            raise UserError(f"{argument}: not installed; pip install -e '.[{extra}]'")
