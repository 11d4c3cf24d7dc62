"""Sweeps that can be run again: stable folders, and a table of how each job ended.

The folder of a sweep is named by what all its jobs share, that of a job by what sets it apart.
So the same command finds its jobs again, whatever ended it: what is done is skipped, what was cut
off goes on, what failed is tried again, what is new is added.

Jobs may run in other processes and on other machines (see Hydra's launchers). Hence what they
tell each other lies in files: ``<sweep>/.attempts/<attempt>/<job>.json``.
"""

from __future__ import annotations

import csv
import hashlib
import json
import logging
import os
import re
import shutil
import sys
import uuid
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Quote, QuotedString
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from vaelab.atomic import replacing, write_json
from vaelab.cli.sweep_jobs import check_jobs
from vaelab.errors import EXIT_INTERRUPTED, UserError
from vaelab.runs.differences import deciding, differences
from vaelab.runs.status import SWEEP, read_status

log = logging.getLogger(__name__)

TABLE = "sweep.csv"
FOLDER = "multirun_sweeps"
ON_ERROR = ("continue", "stop")
LONGEST_NAME = 120
KEYBOARD_INTERRUPT = 130
"""128 + SIGINT, as a shell would say it."""


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


# hydra.sweep.subdir uses it. Whatever process runs a job has imported this file by then, because
# the callback below travels with the job.
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
    """What all jobs share, of all that decides results; interpolations are left as written."""
    with_hydra = OmegaConf.to_container(config, resolve=False)
    assert isinstance(with_hydra, dict)
    # group@package=option changes package, +key changes key.
    paths = [key.lstrip("+~").split("@")[-1].replace("/", ".") for key in swept]
    return deciding({str(key): value for key, value in with_hydra.items()}, tuple(paths))


# --- One attempt at a sweep -------------------------------------------------------------------


@dataclass(frozen=True)
class Outcome:
    """How one job of one attempt ended.

    Args:
        state: "running", "done", "skipped", "failed", "refused", "interrupted" or "not run".
        value: what the job returned.
        error: why, if it did not.
        code: exit status that the job alone would have had.
    """

    state: str
    value: float | None = None
    error: str = ""
    code: int = 0


@dataclass(frozen=True)
class Attempt:
    """One run of a sweep's command, as its jobs see it."""

    folder: Path
    id: str
    on_error: str

    @staticmethod
    def current() -> Attempt | None:
        """The attempt that the running job belongs to; None outside of a sweep."""
        hydra_config = HydraConfig.get()
        if hydra_config.mode != RunMode.MULTIRUN:
            return None
        callback = hydra_config.callbacks["sweep"]
        return Attempt(Path(hydra_config.sweep.dir), callback.attempt, callback.on_error)

    @property
    def outcomes(self) -> Path:
        """Folder of one JSON file per job that has been reached."""
        return self.folder / ".attempts" / self.id

    def record(self, outcome: Outcome) -> None:
        """Tell the other jobs, and the table, about the running job."""
        hydra_config = HydraConfig.get()
        number = int(hydra_config.job.num)
        content = {
            **asdict(outcome),
            "job": number,
            "folder": hydra_config.runtime.output_dir,
            "varied": _varied(hydra_config.overrides.task, hydra_config.callbacks["sweep"].swept),
        }
        write_json(self.outcomes / f"{number}.json", content)

    def read(self) -> list[dict[str, Any]]:
        """What has been recorded so far, in the order of the jobs."""
        found = [json.loads(path.read_text("utf-8")) for path in self.outcomes.glob("*.json")]
        return sorted(found, key=lambda content: int(content["job"]))

    def stopped(self) -> bool:
        """No further job is to begin."""
        states = {content["state"] for content in self.read()}
        stops = {"interrupted"} | ({"failed", "refused"} if self.on_error == "stop" else set())
        return bool(states & stops)


def _varied(overrides: Iterable[str], swept: Iterable[str]) -> dict[str, str]:
    keys = list(swept)
    pairs = (item.split("=", 1) for item in overrides if "=" in item)
    return {key: value for key, value in pairs if key in keys}


# --- Before and after -------------------------------------------------------------------------


class SweepRecord(Callback):
    """Hydra callback: chooses the folder of a sweep, and closes it with a table.

    Args:
        on_error: "continue" or "stop", what to do when a job has failed.
        swept: set by this class, for the jobs: the keys that are varied.
        attempt: set by this class, for the jobs: a name for this run of the command.
    """

    open: Attempt | None = None
    """The sweep that this process has begun; None in processes that run its jobs for it."""

    def __init__(
        self, on_error: str, swept: list[str] | None = None, attempt: str | None = None
    ) -> None:
        self.on_error = on_error

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Find or make the sweep's folder; what the jobs must know is added to their overrides.

        Raises:
            SystemExit: with status 1 and one sentence, when the sweep cannot begin.
        """
        try:
            if self.on_error not in ON_ERROR:
                raise UserError(f"sweep.on_error={self.on_error}: one of {', '.join(ON_ERROR)}")
            swept = swept_keys(config)
            check_jobs(config, swept)
            folder = _sweep_folder(config, base_config(config, swept))
        except UserError as error:
            # Hydra would turn any other exception of a callback into a warning.
            sys.exit(f"vaelab: {error}")
        attempt = Attempt(folder, uuid.uuid4().hex[:8], self.on_error)
        attempt.outcomes.mkdir(parents=True)
        keys = ",".join(_quoted(key) for key in swept)
        config.hydra.sweep.dir = str(folder)
        config.hydra.overrides.hydra.extend(
            [
                f"hydra.sweep.dir={_quoted(str(folder))}",
                f"hydra.callbacks.sweep.attempt={_quoted(attempt.id)}",
                f"hydra.callbacks.sweep.swept=[{keys}]",
            ]
        )
        SweepRecord.open = attempt

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        """Close the sweep.

        Raises:
            SystemExit: when not all is well; see ``close_sweep``.
        """
        code = close_sweep()
        if code:
            sys.exit(code)


def _quoted(text: str) -> str:
    return str(QuotedString(text, Quote.single).with_quotes())


def _sweep_folder(config: DictConfig, base: dict[str, Any]) -> Path:
    """The folder of this sweep, with its base config in it.

    Raises:
        UserError: when the folder that the user has chosen belongs to another sweep.
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
        found = differences(_load(saved), base)
        if found:
            raise UserError(
                f"hydra.sweep.dir={folder}: holds a sweep of another config: {found}. Put the "
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
    """Say what sets a new sweep apart from the latest of the same name."""
    prefix = folder.name.rpartition("_")[0]
    siblings = [
        path
        for path in folder.parent.glob(f"*/{SWEEP}")
        if path.parent.name.rpartition("_")[0] == prefix
        and any(map(read_status, path.parent.iterdir()))
    ]
    if siblings:
        latest = max(siblings, key=lambda path: path.stat().st_mtime)
        found = differences(_load(latest), base)
        log.info("it is not the one in %s; what has changed: %s", latest.parent, found)


def close_sweep() -> int:
    """Log the table of the sweep that is open, if one is, and write ``sweep.csv``.

    Returns:
        The exit status: 130 or 75 when the sweep was interrupted, 1 when a job has failed or was
        cut off, 0 otherwise.
    """
    attempt, SweepRecord.open = SweepRecord.open, None
    if attempt is None:
        return 0
    jobs = attempt.read()
    if not jobs:
        return 0
    for content in jobs:
        if content["state"] == "running":  # it should have said how it ended
            content |= {"state": "cut off", "error": "its process was ended", "code": 1}
    _write_table(attempt.folder / TABLE, jobs)
    keys = [key for key in _keys(jobs) if len({content["varied"].get(key) for content in jobs}) > 1]
    rows = [("job", "varied", "state", "value", "folder")]
    for content in jobs:
        varied = "  ".join(f"{key}={content['varied'].get(key, '')}" for key in keys)
        value = "" if content["value"] is None else f"{content['value']:.6g}"
        state, folder = str(content["state"]), os.path.relpath(content["folder"])
        rows.append((str(content["job"]), varied, state, value, folder))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        cells = zip(row, widths, strict=True)
        log.info("%s", "  ".join(cell.ljust(width) for cell, width in cells).rstrip())
    for content, row in zip(jobs, rows[1:], strict=True):
        if content["error"]:
            log.error("job %s (%s) %s: %s", *row[:3], content["error"])
    shutil.rmtree(attempt.outcomes, ignore_errors=True)
    codes = {content["code"] for content in jobs}
    code = next((c for c in (KEYBOARD_INTERRUPT, EXIT_INTERRUPTED, 1) if c in codes), 0)
    if code:
        log.info("run the same command again: what is done is skipped, the rest goes on")
    return code


def _keys(jobs: list[dict[str, Any]]) -> list[str]:
    return list(dict.fromkeys(key for content in jobs for key in content["varied"]))


def _write_table(path: Path, jobs: list[dict[str, Any]]) -> None:
    """One row per job; a column for each key that was varied."""
    keys = _keys(jobs)
    with replacing(path) as partial, partial.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["job", *keys, "state", "value", "error", "folder"])
        for content in jobs:
            varied = [content["varied"].get(key, "") for key in keys]
            value = "" if content["value"] is None else repr(content["value"])
            folder = os.path.relpath(content["folder"], path.parent)
            row = [content["job"], *varied, content["state"], value, content["error"], folder]
            writer.writerow(row)
