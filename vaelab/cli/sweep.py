"""Sweeps that can be run again: stable folders, and a table of the outcomes.

The folder of a sweep is named by the config that its jobs share, that of a job by its own
overrides. The same command therefore finds its jobs again, however it ended: finished jobs are
skipped, interrupted ones resumed, failed ones repeated, new ones added.
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
import signal
import sys
import uuid
from collections.abc import Iterable
from pathlib import Path
from types import FrameType
from typing import Any
from urllib.parse import quote

from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf

from vaelab.atomic import replacing
from vaelab.cli.sweep_jobs import check_jobs, overrides_of_jobs, planned
from vaelab.cli.sweep_table import Attempt, Outcome, conclude, on_slurm
from vaelab.errors import EXIT_INTERRUPTED, UserError
from vaelab.runs.differences import deciding, differences
from vaelab.runs.overrides import overrides
from vaelab.runs.status import SWEEP, read_status

log = logging.getLogger(__name__)

FOLDER = "multirun_sweeps"
ON_ERROR = ("continue", "stop")
MODES = ("run", "submit", "show")
LONGEST_NAME = 120


# --- Names ------------------------------------------------------------------------------------


def job_folder(overrides: Iterable[str], swept: Iterable[str] | None) -> str:
    """Folder name of a job: its swept overrides, sorted, safe for any file system.

    >>> job_folder(["train.kl_beta=0.5", "model.z_dim=8", "annealing=linear"],
    ...            ["train.kl_beta", "annealing"])
    'annealing=linear,train.kl_beta=0.5'
    """
    keys = set(swept or ())
    varied = sorted(item for item in overrides if item.split("=", 1)[0] in keys)
    # 4.0 and 4 are one value.
    varied = [re.sub(r"(=-?\d+)\.0+$", r"\1", item) for item in varied]
    name = quote(",".join(varied), safe="=,+@") or "job"
    if len(name) > LONGEST_NAME:
        name = f"{name[: LONGEST_NAME - 9]}_{_digest(name)}"
    return name


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:8]


# For hydra.sweep.subdir. Every process that runs a job has imported this file, since the callback
# below is part of the job's config.
OmegaConf.register_new_resolver("job_folder", job_folder, replace=True)


def swept_keys(config: DictConfig) -> list[str]:
    """Keys that the command line and ``hydra.sweeper.params`` vary."""
    parse = OverridesParser.create().parse_overrides
    params = config.hydra.sweeper.get("params") or {}
    varied = dict.fromkeys((str(key) for key in params), True)
    for override in parse(list(config.hydra.overrides.task)):
        varied[override.get_key_element()] = override.is_sweep_override()
    return [key for key, is_swept in varied.items() if is_swept]


def base_config(config: DictConfig, swept: Iterable[str]) -> dict[str, Any]:
    """The config that all jobs share, without keys that cannot change results, unresolved."""
    with_hydra = OmegaConf.to_container(config, resolve=False)
    assert isinstance(with_hydra, dict)
    # group@package=option changes package, +key changes key.
    paths = [key.lstrip("+~").split("@")[-1].replace("/", ".") for key in swept]
    return deciding({str(key): value for key, value in with_hydra.items()}, tuple(paths))


# --- Begin and end ----------------------------------------------------------------------------


class SweepRecord(Callback):
    """Hydra callback that chooses the folder of a sweep and writes its table at the end.

    Args:
        on_error: "continue" or "stop" when a job has failed.
        mode: "run"; "submit", to leave the jobs to SLURM; "show", for the table alone.
        swept: the keys that are varied; set by this class for the jobs.
        attempt: id of this execution of the command; set by this class for the jobs.
    """

    open: Attempt | None = None
    """The sweep that this process has begun; None in other processes that run its jobs."""

    def __init__(
        self,
        on_error: str,
        mode: str = "run",
        swept: list[str] | None = None,
        attempt: str | None = None,
    ) -> None:
        self.on_error = on_error
        self.mode = mode

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Find or create the sweep's folder, and pass its name and the varied keys to the jobs.

        Raises:
            SystemExit: with status 1 and a sentence, when the sweep cannot begin.
        """
        try:
            if self.on_error not in ON_ERROR:
                raise UserError(f"sweep.on_error={self.on_error}: one of {', '.join(ON_ERROR)}")
            _check_mode(self.mode, config)
            swept = swept_keys(config)
            check_jobs(config, swept)
            folder = _sweep_folder(config, base_config(config, swept))
        except UserError as error:
            # Hydra would turn any other exception of a callback into a warning.
            sys.exit(f"vaelab: {error}")
        on_cluster = on_slurm(config.hydra.launcher)
        attempt = Attempt(folder, uuid.uuid4().hex[:8], self.on_error, on_cluster)
        attempt.outcomes.mkdir(parents=True)
        config.hydra.sweep.dir = str(folder)
        for_jobs = {
            "hydra.sweep.dir": str(folder),
            "hydra.callbacks.sweep.attempt": attempt.id,
            "hydra.callbacks.sweep.swept": swept,
        }
        config.hydra.overrides.hydra.extend(overrides(for_jobs))
        SweepRecord.open = attempt
        signal.signal(signal.SIGTERM, _end_between_jobs)
        if self.mode == "show":
            loader = GlobalHydra.instance().config_loader()
            for job in planned(loader, config, overrides_of_jobs(config)):
                attempt.write(job, Outcome("queued"))
            sys.exit(close_sweep())
        if on_cluster:
            from vaelab.cli.slurm import SlurmLauncher  # an extra

            SlurmLauncher.take_over(attempt, waits=self.mode == "run")

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        """Close the sweep.

        Raises:
            SystemExit: when a job has failed or was interrupted; see ``conclude``.
        """
        if code := close_sweep():
            sys.exit(code)


def _check_mode(mode: str, config: DictConfig) -> None:
    cures = {
        "submit": (on_slurm(config.hydra.launcher), "needs hydra/launcher=submitit_slurm"),
        "show": (
            config.hydra.sweeper["_target_"].endswith(".BasicSweeper"),
            "another sweeper than Hydra's own does not know its jobs beforehand",
        ),
    }
    if mode not in MODES:
        raise UserError(f"sweep.mode={mode}: one of {', '.join(MODES)}")
    fits, why_not = cures.get(mode, (True, ""))
    if not fits:
        raise UserError(f"sweep.mode={mode}: {why_not}")


def _end_between_jobs(number: int, frame: FrameType | None) -> None:
    if SweepRecord.open is not None and not SweepRecord.open.on_cluster:
        SweepRecord.open.stop()
    log.warning("stopped by SIGTERM")
    sys.exit(EXIT_INTERRUPTED)


def _sweep_folder(config: DictConfig, base: dict[str, Any]) -> Path:
    """The folder of this sweep, with its base config in it.

    Raises:
        UserError: when the chosen folder belongs to another sweep.
    """
    chosen = Path(config.hydra.sweep.dir)
    choices = config.hydra.runtime.choices
    if str(chosen) == FOLDER:
        name = choices.get("experiment") or choices.get("dataset")
        digest = _digest(json.dumps(base, sort_keys=True, default=str))
        folder = chosen / f"{quote(str(name), safe='')}_{digest}"
    else:
        folder = chosen
    saved = folder / SWEEP
    if saved.is_file():
        changed = differences(_load(saved), base)
        if changed:
            raise UserError(
                f"hydra.sweep.dir={folder}: holds a sweep of another config: {changed}. Put the "
                "config back, or choose another folder"
            )
        log.info("going on with the sweep in %s", folder)
        return folder
    if folder.is_dir() and any(not path.name.startswith(".") for path in folder.iterdir()):
        raise UserError(
            f"hydra.sweep.dir={folder}: is not empty and holds no sweep; choose another folder"
        )
    log.info("a new sweep, in %s", folder)
    if folder != chosen:
        _name_sibling(folder, base)
    with replacing(saved) as partial:
        partial.write_text(OmegaConf.to_yaml(OmegaConf.create(base)), encoding="utf-8")
    return folder


def _load(path: Path) -> dict[str, Any]:
    content = OmegaConf.to_container(OmegaConf.load(path), resolve=False)
    assert isinstance(content, dict)
    return {str(key): value for key, value in content.items()}


def _name_sibling(folder: Path, base: dict[str, Any]) -> None:
    """Log how a new sweep differs from the latest of the same name."""
    prefix = folder.name.rpartition("_")[0]
    siblings = [
        path
        for path in folder.parent.glob(f"*/{SWEEP}")
        if path.parent.name.rpartition("_")[0] == prefix
        and any(map(read_status, path.parent.iterdir()))
    ]
    if siblings:
        latest = max(siblings, key=lambda path: path.stat().st_mtime)
        changed = differences(_load(latest), base)
        log.info("it is not the one in %s; what has changed: %s", latest.parent, changed)


def close_sweep() -> int:
    """Log the table of the open sweep, if there is one, and write ``sweep.csv``.

    Returns:
        The exit status; see ``conclude``.
    """
    attempt, SweepRecord.open = SweepRecord.open, None
    return 0 if attempt is None else conclude(attempt)
