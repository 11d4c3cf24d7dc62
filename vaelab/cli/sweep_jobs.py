"""Check all jobs of a sweep before the first begins."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

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
        jobs = _jobs(config)
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


def _jobs(config: DictConfig) -> list[list[str]]:
    """The overrides of each job, in order."""
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
