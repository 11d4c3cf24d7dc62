"""The one door: ``python -m vaelab.run``.

Compose the config, resolve it, seed, build the parts, hand them to the task.
"""

from __future__ import annotations

import logging
import sys
import warnings
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from vaelab.errors import UserError
from vaelab.saved_config import RunConfig, arguments_for
from vaelab.sweep import write_status

log = logging.getLogger(__name__)

PACKAGE = Path(__file__).resolve().parent
# An installed wheel carries conf/ inside the package; a checkout has it beside.
CONF = PACKAGE / "conf" if (PACKAGE / "conf").is_dir() else PACKAGE.parent / "conf"


def run(cfg: DictConfig) -> Any:
    """Resolve, seed, build, hand over. Returns what the task returns."""
    config = RunConfig.of(cfg)

    import lightning as L  # seconds, and not needed for --help

    from vaelab.tasks.experiment import Experiment

    _quieten_lightning()
    L.seed_everything(config.values.train.seed, workers=True, verbose=False)
    parts = config.build()
    task = parts.pop("task")
    result = task(Experiment(**parts))
    log.info("everything is in %s", parts["run_dir"])
    return result


def _quieten_lightning() -> None:
    """Leave its warnings; drop its second console, its advertisement and its own deprecations."""
    logging.getLogger("lightning").handlers.clear()
    logging.getLogger("lightning.pytorch.utilities.rank_zero").setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", module="lightning.pytorch.utilities._pytree")
    # Ours read from memory or from a cache: workers are a choice, see conf/dataset.
    warnings.filterwarnings("ignore", message=".*does not have many workers.*")


def job(cfg: DictConfig) -> Any:
    """One job: ``run`` with errors told in one sentence, unless ``debug=true``."""
    logging.captureWarnings(True)
    run_dir = Path(HydraConfig.get().runtime.output_dir)
    try:
        result = run(cfg)
    except Exception as error:
        expected = isinstance(error, (UserError, OmegaConfBaseException))
        write_status(run_dir, "failed", error=str(error) or type(error).__name__)
        log.error("%s", error, exc_info=not expected or bool(cfg.debug))
        if HydraConfig.get().mode == RunMode.MULTIRUN:
            return float("nan")  # the other jobs go on; the table at the end tells
        sys.exit(1)
    write_status(run_dir, "done", result)
    return result


def main() -> None:
    """Entry point of the command line."""
    try:
        sys.argv[1:] = arguments_for(sys.argv[1:])
    except UserError as error:
        sys.exit(f"vaelab: {error}")
    hydra.main(version_base="1.3", config_path=str(CONF), config_name="config")(job)()


if __name__ == "__main__":
    main()
