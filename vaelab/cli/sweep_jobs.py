"""Check all jobs of a sweep before the first begins."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from vaelab.cli.parts import check_parts, resolve
from vaelab.errors import UserError


@dataclass(frozen=True)
class SweepJob:
    """One job of a sweep.

    Args:
        number: from 0, in the order of the command line.
        overrides: that Hydra composes it from.
        folder: its run folder.
        name: path of that folder within the sweep's.
        varied: its values of the keys that are varied.
    """

    number: int
    overrides: tuple[str, ...]
    folder: Path
    name: str
    varied: dict[str, str]


def planned(
    loader: Any, config: Any, job_overrides: Iterable[Sequence[str]], first: int = 0
) -> list[SweepJob]:
    """The jobs that Hydra will run, and the folders it will give them.

    Args:
        loader: Hydra's config loader.
        config: of the sweep, as its jobs get to know it.
        job_overrides: of each job.
        first: number of the first job.
    """
    jobs = []
    for number, given in enumerate(job_overrides, first):
        hydra_config = loader.load_sweep_config(config, list(given)).hydra
        sweep = Path(hydra_config.sweep.dir)
        folder = sweep / hydra_config.sweep.subdir
        varied = varied_values(given, hydra_config.callbacks.sweep.swept)
        jobs.append(SweepJob(number, tuple(given), folder, os.path.relpath(folder, sweep), varied))
    return jobs


def varied_values(overrides: Iterable[str], swept: Iterable[str]) -> dict[str, str]:
    """The values that ``overrides`` give to the keys that are varied."""
    keys = set(swept)
    pairs = (item.split("=", 1) for item in overrides if "=" in item)
    return {key: value for key, value in pairs if key in keys}


def check_jobs(config: DictConfig, swept: Sequence[str]) -> None:
    """Compose every job of a sweep and check its keys and values, as the job itself will.

    Constructor and data errors surface when the job runs. Jobs of sweepers other than Hydra's own
    are not known beforehand, and are not checked.

    Args:
        config: of the sweep.
        swept: keys that are varied.

    Raises:
        UserError: listing the jobs that cannot be run, with reasons.
    """
    if not config.hydra.sweeper["_target_"].endswith(".BasicSweeper"):
        return
    try:
        jobs = overrides_of_jobs(config)
        reasons = [_refusal(config, overrides) for overrides in jobs]
    except HydraException:
        return  # the sweeper composes all jobs next, and raises the same error
    wrong = []
    for overrides, reason in zip(jobs, reasons, strict=True):
        if reason:
            varied = [item for item in overrides if item.split("=", 1)[0] in swept]
            wrong.append(f"\n  - {' '.join(varied)}: {reason}")
    if wrong:
        raise UserError(
            f"{len(wrong)} of {len(jobs)} jobs cannot be run, and none has begun; correct them or "
            f"leave them out:{''.join(wrong)}"
        )


def overrides_of_jobs(config: DictConfig) -> list[list[str]]:
    """The overrides of each job, in order, that Hydra's own sweeper will run."""
    params = config.hydra.sweeper.get("params") or {}
    given = [f"{key}={value}" for key, value in params.items()]
    parser = OverridesParser.create(config_loader=GlobalHydra.instance().config_loader())
    choices: dict[str, list[str]] = {}
    for override in parser.parse_overrides([*given, *config.hydra.overrides.task]):
        key = override.get_key_element()
        if override.is_sweep_override():
            values = list(override.sweep_string_iterator())
        else:
            values = [override.get_value_element_as_str()]
        choices[key] = [f"{key}={value}" for value in values]
    return [list(job) for job in product(*choices.values())]


def _refusal(config: DictConfig, overrides: list[str]) -> str:
    """Reason why a job cannot be run; empty if it can."""
    loader, known = GlobalHydra.instance().config_loader(), HydraConfig.instance()
    before = known.cfg
    try:
        job = loader.load_sweep_config(config, overrides)
        known.set_config(job)  # the config refers to Hydra's own
        OmegaConf.set_struct(job, False)
        del job["hydra"]
        check_parts(resolve(job))
    except (UserError, OmegaConfBaseException) as error:
        return str(error)
    finally:
        known.cfg = before
    return ""
