"""Which jobs a sweep has, and whether each can be run, before the first begins."""

from __future__ import annotations

from collections.abc import Sequence

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from vaelab.cli.parts import check_parts, resolve
from vaelab.errors import UserError


def check_jobs(config: DictConfig, swept: Sequence[str]) -> None:
    """Compose every job of a sweep and check its keys and values, as the job itself will.

    What a constructor or the data refuse is found when the job's turn has come. Sweepers other
    than Hydra's own do not know beforehand what they will try: their jobs are not checked.

    Args:
        config: of the sweep.
        swept: keys that are varied.

    Raises:
        UserError: listing the jobs that cannot be run, and why.
    """
    if not config.hydra.sweeper["_target_"].endswith(f".{BasicSweeper.__name__}"):
        return
    try:
        jobs = _jobs(config)
        reasons = [_refusal(config, overrides) for overrides in jobs]
    except HydraException:
        return  # the sweeper composes all jobs next, and tells it in its own words
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


def _jobs(config: DictConfig) -> list[list[str]]:
    """The overrides of each job, in order."""
    params = config.hydra.sweeper.get("params") or {}
    given = [f"{key}={value}" for key, value in params.items()]
    parser = OverridesParser.create(config_loader=GlobalHydra.instance().config_loader())
    overrides = parser.parse_overrides([*given, *config.hydra.overrides.task])
    (jobs,) = BasicSweeper.split_arguments(overrides, None)
    return jobs


def _refusal(config: DictConfig, overrides: list[str]) -> str:
    """Why a job cannot be run; empty if it can."""
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
