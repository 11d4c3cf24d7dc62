"""A process that trains with others: it takes the config that rank 0 has saved, and trains."""

from __future__ import annotations

import logging
import sys
import time
from pathlib import Path

from vaelab.errors import EXIT_INTERRUPTED, Interrupted, UserError
from vaelab.runs.folder import RunFolder
from vaelab.runs.processes import Process, follow
from vaelab.runs.ranks import RankOutcome, write_outcome

log = logging.getLogger(__name__)

FORMAT = "%(asctime)s %(levelname)s %(message)s"


def train_as_rank(process: Process) -> int:
    """Train; the exit status.

    Of processes that vaelab has started the first logs to the console and to the run's log, and
    all say in the folder how they ended, to the process that waits for them. Those that torchrun or
    srun has started say on the console why they failed.
    """
    vaelab_started = process.launcher == "vaelab"
    folder = RunFolder(Path(process.launch)) if vaelab_started else follow(process)
    if folder is None:
        return 0
    _speak(folder, aloud=vaelab_started and process.rank == 0)
    outcome, code = _outcome(folder, process, aloud=not vaelab_started)
    if vaelab_started:
        write_outcome(folder, process.rank, outcome)
    return code


def _outcome(folder: RunFolder, process: Process, aloud: bool) -> tuple[RankOutcome, int]:
    try:
        value = _train(folder)
    except (Interrupted, KeyboardInterrupt):
        return RankOutcome("interrupted", time=time.time()), EXIT_INTERRUPTED
    except Exception as error:
        text = str(error) or type(error).__name__
        unexpected = None if isinstance(error, UserError) else error
        if aloud or unexpected:
            log.error("process %d: %s", process.rank, text, exc_info=unexpected)
        return RankOutcome("failed", error=text, time=time.time()), 1
    return RankOutcome("done", value, time=time.time()), 0


def _train(folder: RunFolder) -> float:
    from vaelab.cli.job import carry_out
    from vaelab.cli.run_config import RunConfig
    from vaelab.training.preemption import Preemption

    with Preemption():
        return float(carry_out(RunConfig.load(folder.path)))


def _speak(folder: RunFolder, aloud: bool) -> None:
    """Log as a run does, or errors alone; not what a launcher of Hydra has set up for a run."""
    logging.captureWarnings(True)
    if not aloud:
        logging.basicConfig(level=logging.ERROR, format=FORMAT, datefmt="%H:%M:%S", force=True)
        return
    console: logging.Handler = logging.StreamHandler(sys.stdout)
    file = logging.FileHandler(folder.log, encoding="utf-8")
    handlers = [console, file]
    logging.basicConfig(level=logging.INFO, format=FORMAT, datefmt="%H:%M:%S", handlers=handlers)
