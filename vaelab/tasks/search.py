"""``task=search``: hyperparameters chosen by Optuna, one training run per trial.

A task of our own, since Hydra's Optuna sweeper (1.3.0) needs an Optuna below 3. A trial is a
subprocess, whose output goes to ``console.log`` in its folder.
"""

from __future__ import annotations

import csv
import io
import logging
import math
import shlex
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml  # type: ignore[import-untyped, unused-ignore]

from vaelab.assembly import Run, Task
from vaelab.atomic import replacing
from vaelab.errors import UserError
from vaelab.progress import progress
from vaelab.report.canvas import save_figure
from vaelab.report.search_figure import search_figure
from vaelab.runs.folder import RunFolder
from vaelab.runs.launch import run_apart
from vaelab.runs.overrides import overrides
from vaelab.runs.reading import search_path
from vaelab.runs.status import Refused, Status, locked, read_status

if TYPE_CHECKING:
    from optuna import Study
    from optuna.distributions import BaseDistribution

log = logging.getLogger(__name__)

HOPELESS = 3  # so many failures before any success are no bad luck
WEIGHED_BY_BETA = ("val/neg_elbo", "val/loss")
EXAMPLE = "'task.space={train.lr: {low: 1e-4, high: 1e-2, log: true}, model.z_dim: [64, 128]}'"


class Search(Task):
    """Runs trials, each with a choice from ``space``, for the smallest ``train.monitor``.

    Choices are those of the tree-structured Parzen estimator (Bergstra et al. 2011). The study is
    kept in ``study.db`` after each trial; a search that was cut off goes on in its run folder.

    Args:
        space: key → {low, high, log} or a list of choices.
        trials: how many in all, failed ones included.
        overrides: group or key → its value in all trials, such as ``{experiment: demo}``.
        judge: evaluate each trial, too, and draw its report card and report.

    Raises:
        UserError: for a space that cannot be searched, or where Optuna is not installed.
    """

    parts = ("train", "logging")
    needs_trained_run = False

    def __init__(
        self,
        space: Mapping[str, Any] | None = None,
        trials: int = 20,
        overrides: Mapping[str, Any] | None = None,
        judge: bool = False,
    ) -> None:
        if not space:
            raise UserError(f"task.space={space}: say what to search, such as {EXAMPLE}")
        if trials < 1:
            raise UserError(f"task.trials={trials}: at least 1 is needed; try 20")
        self.distributions = {key: _distribution(key, entry) for key, entry in space.items()}
        self.space = dict(space)
        self.trials = trials
        self.overrides = dict(overrides or {})
        self.judge = judge

    def __call__(self, run: Run) -> float:
        """Search; returns the smallest value found.

        Raises:
            Refused: while another search works in the folder.
            UserError: when no trial succeeds, or the folder holds a search of something else.
            Interrupted: when a trial was asked to stop; it goes on with the search.
        """
        if "train.kl_beta" in self.space and not self._monitor_is_fair():
            log.warning(
                "task.space has train.kl_beta, which weighs the KL within %s: a small beta wins by "
                "definition; put train.monitor: val/recon_per_voxel in task.overrides, or choose "
                "from the rate–distortion curve of task=compare",
                " and ".join(WEIGHED_BY_BETA),
            )
        with _alone(run.folder.path):
            return self._search(run)

    def _search(self, run: Run) -> float:
        folder = run.folder.path
        study = self._study(folder, run.train.seed)
        bar = progress(
            total=self.trials, desc="search", unit="trial",
            shown=run.logging.progress_bar, initial=_count(study),
        )  # fmt: skip
        with bar:
            for number, parameters in self._open_trials(study):
                self._run(study, folder, number, parameters)
                _write_results(study, folder)
                bar.update()
        return _conclude(study, folder)

    def _monitor_is_fair(self) -> bool:
        return self.overrides.get("train.monitor", WEIGHED_BY_BETA[0]) not in WEIGHED_BY_BETA

    def _study(self, folder: Path, seed: int) -> Study:
        optuna = _optuna()
        storage = f"sqlite:///{folder.resolve() / 'study.db'}"
        study: Study = optuna.create_study(
            storage=storage, study_name="search", direction="minimize", load_if_exists=True
        )
        # Not the seed alone: a search that goes on would draw its first random points again.
        study.sampler = optuna.samplers.TPESampler(seed=seed + len(study.trials))
        asked = {"space": self.space, "overrides": self.overrides}
        before = study.user_attrs.get("asked", asked)
        if before != asked:
            changed = ", ".join(f"task.{key}" for key in asked if asked[key] != before[key])
            raise UserError(
                f"run_dir={folder}: holds a search with another {changed}; "
                "leave run_dir out for a new search"
            )
        study.set_user_attr("asked", asked)
        return study

    def _open_trials(self, study: Study) -> Iterator[tuple[int, dict[str, Any]]]:
        """Trials that were cut off, then new ones."""
        state = _optuna().trial.TrialState
        for cut_off in study.get_trials(states=(state.RUNNING,)):
            yield cut_off.number, cut_off.params
        while _count(study) < self.trials:
            trial = study.ask(self.distributions)
            yield trial.number, trial.params

    def _run(self, study: Study, folder: Path, number: int, parameters: dict[str, Any]) -> None:
        """Train, unless that was done before, and give the study the value."""
        place = RunFolder(folder).trial(number).path
        chosen = overrides(parameters)
        log.info("trial %d: %s", number, "  ".join(chosen))
        chosen = [*search_path(RunFolder(folder)), *chosen]
        status = _status_when_free(place)
        if status is None or status.state != "done":
            status = self._train(place, chosen)
        if status.state == "cut off":
            log.warning("trial %d: %s; it goes on, once", number, status.error)
            status = self._train(place, chosen)
        state = _optuna().trial.TrialState
        if status.state == "done" and status.value is not None and math.isfinite(status.value):
            study.tell(number, status.value)
            log.info("trial %d: %.6g", number, status.value)
            return
        study.tell(number, state=state.FAIL)
        why = " ".join(status.error.split()) or f"it ended {status.state}, without a value"
        log.warning("trial %d failed: %s", number, why)
        if not _complete(study) and _count(study) >= min(HOPELESS, self.trials):
            raise UserError(
                f"all of the first {_count(study)} trials have failed, trial_{number} so: {why}"
            )

    def _train(self, place: Path, chosen: Sequence[str]) -> Status:
        arguments = self._arguments(place, chosen)
        place.mkdir(exist_ok=True)
        return run_apart(place, arguments, place / "console.log")

    def _arguments(self, place: Path, chosen: Sequence[str]) -> list[str]:
        if RunFolder(place).last_checkpoint.is_file():
            return overrides({"resume": str(place), "logging.progress_bar": False})
        shutil.rmtree(place, ignore_errors=True)  # cut off before its first checkpoint
        alone = [] if self.judge else ["~task.then"]
        return [
            "logging.progress_bar=false", *overrides(self.overrides), *alone, *chosen,
            *overrides({"run_dir": str(place)}),
        ]  # fmt: skip


# ---------------------------------------------------------------- one search at a time


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Keep a study to one search. The lock of the run folder does not: later ones make no run."""
    place = folder / ".study"
    place.mkdir(exist_ok=True)
    with ExitStack() as stack:
        try:
            stack.enter_context(locked(place))
        except Refused:
            raise Refused(
                f"run_dir={folder}: another search works on this study; wait for it, or end it"
            ) from None
        yield


def _status_when_free(place: Path) -> Status | None:
    """How a trial stands that no process works on: one may have outlived the search before."""
    if not place.is_dir():
        return None
    try:
        with locked(place):
            return read_status(place)
    except Refused as busy:
        log.info("%s", busy)
    with locked(place, math.inf):
        return read_status(place)


# ---------------------------------------------------------------- the space


def _distribution(key: str, entry: Any) -> BaseDistribution:
    """What Optuna draws a key's value from."""
    distributions = _optuna().distributions
    if isinstance(entry, (list, tuple)):
        if not entry or not all(isinstance(c, (str, int, float, bool)) for c in entry):
            raise UserError(f"task.space.{key}={entry}: choices must be numbers, words or booleans")
        choices: BaseDistribution = distributions.CategoricalDistribution(list(entry))
        return choices
    keys = set(entry) if isinstance(entry, Mapping) else set()
    if not {"low", "high"} <= keys <= {"low", "high", "log"}:
        raise UserError(
            f"task.space.{key}={entry}: must be [choices] or {{low: .., high: .., log: true}}"
        )
    low, high, logarithmic = entry["low"], entry["high"], bool(entry.get("log", False))
    if any(type(end) not in (int, float) for end in (low, high)):
        raise UserError(f"task.space.{key}={entry}: low and high must be numbers")
    if not low < high or (logarithmic and low <= 0):
        raise UserError(
            f"task.space.{key}={entry}: low must be below high, and above 0 where log is true"
        )
    whole = type(low) is type(high) is int
    kind = distributions.IntDistribution if whole else distributions.FloatDistribution
    between: BaseDistribution = kind(low, high, log=logarithmic)
    return between


def _optuna() -> Any:
    try:
        import optuna
    except ImportError:
        raise UserError("task=search: needs Optuna; pip install -e '.[search]'") from None
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna


# ---------------------------------------------------------------- what is written


def _complete(study: Study) -> list[Any]:
    return study.get_trials(states=(_optuna().trial.TrialState.COMPLETE,))


def _count(study: Study) -> int:
    state = _optuna().trial.TrialState
    return len(study.get_trials(states=(state.COMPLETE, state.FAIL)))


def _write_results(study: Study, folder: Path) -> None:
    """``trials.csv`` and, once there is one, ``best.yaml``; after each trial, so both are whole."""
    asked = study.user_attrs["asked"]
    keys = list(asked["space"])
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(["trial", "state", "value", *keys])
    for trial in study.trials:
        value = "" if trial.value is None else repr(trial.value)
        chosen = [trial.params.get(key, "") for key in keys]
        writer.writerow([trial.number, trial.state.name.lower(), value, *chosen])
    with replacing(folder / "trials.csv") as partial:
        partial.write_text(file.getvalue(), encoding="utf-8")
    if not _complete(study):
        return
    best = study.best_trial
    chosen = overrides(asked["overrides"] | best.params)
    content = {
        "trial": f"trial_{best.number}", "value": best.value, "parameters": best.params,
        "command": f"python -m vaelab.run {shlex.join(chosen)}",
    }  # fmt: skip
    with replacing(folder / "best.yaml") as partial:
        text = yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=1000)
        partial.write_text(text, encoding="utf-8")


def _conclude(study: Study, folder: Path) -> float:
    """Draw the study, and log the best trial."""
    complete = _complete(study)
    if not complete:
        raise UserError(f"none of the {_count(study)} trials has succeeded; see {folder}/trial_*")
    failed = [trial.number for trial in study.trials if trial.value is None]
    importances = {}
    if len(complete) >= 4 and len(study.user_attrs["asked"]["space"]) > 1:
        importances = _optuna().importance.get_param_importances(study)
    values = {trial.number: trial.value for trial in complete}
    monitor = study.user_attrs["asked"]["overrides"].get("train.monitor", "train.monitor")
    figure = search_figure(values, failed, importances, monitor)
    save_figure(figure, folder / "search.png")
    best = study.best_trial
    log.info("%d trials, %d failed; best is trial %d:", _count(study), len(failed), best.number)
    for line in (folder / "best.yaml").read_text("utf-8").splitlines():
        log.info("  %s", line)
    log.info("compare them with task=compare task.runs=%s", folder)
    assert best.value is not None
    return float(best.value)
