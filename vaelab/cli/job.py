"""A job of Hydra, alone or within a sweep, from its composed config to its exit status."""

from __future__ import annotations

import logging
import os
import shlex
import signal
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from vaelab.atomic import NoSpaceError
from vaelab.cli.declarations import task_class
from vaelab.cli.rank import train_as_rank
from vaelab.cli.run_config import RunConfig, owns
from vaelab.cli.sweep import SweepRecord
from vaelab.cli.sweep_table import KEYBOARD_INTERRUPT, Attempt, Outcome
from vaelab.errors import EXIT_INTERRUPTED, Interrupted, UserError
from vaelab.progress import set_job
from vaelab.runs.folder import RunFolder
from vaelab.runs.processes import this_process
from vaelab.runs.status import Refused, as_number, begin, end, locked, read_status

log = logging.getLogger(__name__)


def carry_out(config: RunConfig) -> Any:
    """Seed, build the parts, call the task; returns its result."""
    import lightning as L  # takes seconds, and --help does not need it

    from vaelab.training.polite_threads import PoliteThreads
    from vaelab.training.settings import check_seed

    _quieten_lightning()
    seed = config.values.train.seed
    if isinstance(seed, int):  # else the settings refuse it, below
        check_seed(seed)
        L.seed_everything(seed, workers=True, verbose=False)
    task, run = config.build()
    if "hardware" in task.parts:
        run.hardware.set_threads()
    with _keyboard_interrupts(), PoliteThreads():
        result = task(run)
    if this_process().launcher != "vaelab":
        log.info("everything is in %s", run.folder)
    return result


def _quieten_lightning() -> None:
    """Silence Lightning's second console, advertisements and own deprecations; keep warnings."""
    logging.getLogger("lightning").handlers.clear()
    logging.getLogger("lightning.pytorch.utilities.rank_zero").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", module="lightning.pytorch.utilities._pytree")
    # Weights are channels-last and buckets of gradients are not, so that these are copied.
    warnings.filterwarnings("ignore", message="Grad strides do not match bucket view strides")
    # Loaders read from memory or from a cache; for workers see conf/dataset.
    warnings.filterwarnings("ignore", message=".*does not have many workers.*")


@contextmanager
def _keyboard_interrupts() -> Iterator[None]:
    """Raise ``KeyboardInterrupt`` for Ctrl-C, where Lightning ignores SIGINT and exits with 1."""
    try:
        yield
    except SystemExit as stop:
        if not isinstance(stop.__context__, KeyboardInterrupt):
            raise
        signal.signal(signal.SIGINT, signal.default_int_handler)
        raise KeyboardInterrupt from stop


def job(cfg: DictConfig) -> Any:
    """Carry out a run; errors are a sentence in the log, unless ``debug=true``.

    Returns:
        The result of the task. In a sweep always a number, which any Hydra sweeper can use as its
        objective: NaN where there is none, so that the other jobs still run.
    """
    logging.captureWarnings(True)
    process = this_process()
    if process.rank:  # started by a launcher of Hydra, which composes in every process
        sys.exit(train_as_rank(process))
    run_dir = Path(HydraConfig.get().runtime.output_dir)
    attempt = Attempt.current()
    if attempt is not None and SweepRecord.open is None:  # side by side with others
        set_job(run_dir.name)
    if attempt is not None and attempt.stopped():
        before = read_status(run_dir)
        if before is not None and before.state == "done":
            attempt.record(Outcome("skipped", before.value))
        else:
            attempt.record(Outcome("not run", code=1))
        return float("nan")
    result: Any = None
    try:
        if attempt is not None:
            attempt.record(Outcome("running"))
        result, outcome = _in_folder(cfg, run_dir, in_sweep=attempt is not None)
    except (Exception, Interrupted, KeyboardInterrupt) as error:
        outcome = _report(error, run_dir, cfg)
    if attempt is not None:
        attempt.record(outcome)
        in_this_process = SweepRecord.open is not None
        if outcome.state == "interrupted" and (
            in_this_process or outcome.code == KEYBOARD_INTERRUPT
        ):
            attempt.stop()  # the user stopped the sweep; a cluster stops the process of a job
        if outcome.state == "interrupted" and in_this_process:
            sys.exit(outcome.code)  # at once, without composing the other jobs
        if outcome.code and attempt.on_cluster:
            sys.exit(outcome.code)  # for SLURM to see
        return float("nan") if outcome.value is None else outcome.value
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # ended_by_sigterm's message would be wrong
    if outcome.code:
        sys.exit(outcome.code)
    return result


def _in_folder(cfg: DictConfig, run_dir: Path, in_sweep: bool) -> tuple[Any, Outcome]:
    """Run; after SIGTERM from here on the run can be resumed."""
    from vaelab.training.preemption import Preemption

    task_class(cfg.task)  # imports almost everything, before SIGTERM becomes an exception
    with Preemption():
        return _with_status(cfg, run_dir, in_sweep)


def _with_status(cfg: DictConfig, run_dir: Path, in_sweep: bool) -> tuple[Any, Outcome]:
    """Run with the folder locked and ``status.json`` written; skip a finished job of a sweep."""
    if not owns(cfg, run_dir):
        return carry_out(RunConfig.of(cfg)), Outcome("done")
    with locked(run_dir):
        before = read_status(run_dir)
        config = RunConfig.of(cfg)
        if in_sweep and before is not None and before.state == "done":
            log.info("done before, skipped: %s", run_dir)
            return before.value, Outcome("skipped", before.value)
        config.save()
        with _status_kept(run_dir, _how_to_go_on(cfg, run_dir)):
            result = carry_out(config)
            end(run_dir, "done", result)
    return result, Outcome("done", as_number(result))


@contextmanager
def _status_kept(run_dir: Path, how: str) -> Iterator[None]:
    begin(run_dir)
    try:
        yield
    except (Interrupted, KeyboardInterrupt):
        end(run_dir, "interrupted", error=how)
        raise
    except Exception as error:
        with suppress(NoSpaceError):  # the first error is the one to report
            end(run_dir, "failed", error=str(error) or type(error).__name__)
        raise


def _report(error: BaseException, run_dir: Path, cfg: DictConfig) -> Outcome:
    """Log in a sentence why a run did not end well."""
    if isinstance(error, (Interrupted, KeyboardInterrupt)):
        # Without a saved config the run has not begun and cannot be resumed.
        how = _how_to_go_on(cfg, run_dir) if RunFolder(run_dir).is_run else ""
        log.warning("%s; %s", str(error) or "interrupted", how or "nothing has begun")
        pressed = isinstance(error, KeyboardInterrupt)
        return Outcome(
            "interrupted", None, how, KEYBOARD_INTERRUPT if pressed else EXIT_INTERRUPTED
        )
    message = str(error) or type(error).__name__
    expected = isinstance(error, (UserError, NoSpaceError, OmegaConfBaseException))
    log.error("%s", message, exc_info=None if expected and not cfg.debug else error)
    if isinstance(error, Refused):
        return Outcome("refused", None, message, 1)
    if not RunFolder(run_dir).is_run:
        with suppress(NoSpaceError):
            end(run_dir, "failed", error=message)
    return Outcome("failed", None, message, 1)


def _how_to_go_on(cfg: DictConfig, run_dir: Path) -> str:
    folder = shlex.quote(os.path.relpath(run_dir))
    if task_class(cfg.task).resumable:
        return f"go on with: python -m vaelab.run resume={folder}"
    return f"the same command goes on with run_dir={folder}"
