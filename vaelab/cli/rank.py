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

FORMAT = "%(asctime)s %(levelname)s %(message)s"


def train_as_rank(process: Process) -> int:
    """Train; the exit status.

    Of processes that vaelab has started the first has a voice, in the console and in the run's
    log; the others, and those that follow a rank 0 elsewhere, say how they ended in the folder.
    """
    vaelab_started = process.launcher == "vaelab"
    folder = RunFolder(Path(process.launch)) if vaelab_started else follow(process)
    if folder is None:
        return 0
    _speak(folder, aloud=vaelab_started and process.rank == 0)
    try:
        value = _train(folder)
    except (Interrupted, KeyboardInterrupt):
        write_outcome(folder, process.rank, RankOutcome("interrupted", time=time.time()))
        return EXIT_INTERRUPTED
    except Exception as error:
        text = str(error) or type(error).__name__
        if not isinstance(error, UserError):
            logging.getLogger(__name__).exception("process %d", process.rank)
        write_outcome(folder, process.rank, RankOutcome("failed", error=text, time=time.time()))
        return 1
    write_outcome(folder, process.rank, RankOutcome("done", value, time=time.time()))
    return 0


def _train(folder: RunFolder) -> float:
    from vaelab.cli.job import carry_out
    from vaelab.cli.run_config import RunConfig
    from vaelab.training.preemption import Preemption

    with Preemption():
        return float(carry_out(RunConfig.load(folder.path)))


def _speak(folder: RunFolder, aloud: bool) -> None:
    """Log as a run does, or errors alone."""
    logging.captureWarnings(True)
    if not aloud:
        logging.basicConfig(level=logging.ERROR, format=FORMAT, datefmt="%H:%M:%S")
        return
    console: logging.Handler = logging.StreamHandler(sys.stdout)
    file = logging.FileHandler(folder.log, encoding="utf-8")
    handlers = [console, file]
    logging.basicConfig(level=logging.INFO, format=FORMAT, datefmt="%H:%M:%S", handlers=handlers)
