"""Runs that differ in their seed alone: trained, or found in folders."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vaelab.assembly import PARTS, Run
from vaelab.errors import UserError
from vaelab.runs.differences import rerooted
from vaelab.runs.folder import RunFolder
from vaelab.runs.launch import run_apart
from vaelab.runs.overrides import leaves, overrides
from vaelab.runs.reading import read_config, run_folders, search_path
from vaelab.runs.status import read_status

log = logging.getLogger(__name__)


def train_seeds(run: Run, seeds: Sequence[int]) -> list[Path]:
    """Train the run's config once for each seed, in processes of their own, one after another.

    Weights, order of batches and sampling vary; the split by patient is the run's. A seed that is
    done is left as it is, one that was cut off goes on.

    Returns:
        The runs' folders, ``<run_dir>/seeds/seed_<seed>``.

    Raises:
        UserError: when a training fails.
        Interrupted: when one was asked to stop.
    """
    if not seeds:
        return []
    run.data.setup("fit")  # writes the split that all share
    config = read_config(run.folder)
    folders = []
    for seed in seeds:
        folder = run.folder.seed(seed).path
        folders.append(folder)
        if is_done(folder):
            log.info("seed %d: trained already, in %s", seed, folder)
            continue
        if RunFolder(folder).last_checkpoint.is_file():
            arguments = overrides({"resume": str(folder)})
        else:
            shutil.rmtree(folder, ignore_errors=True)  # cut off before its first checkpoint
            arguments = arguments_of_seed(config, run.folder.path, folder, seed)
        log.info("seed %d: training in %s", seed, folder)
        status = run_apart(folder, arguments)
        if status.state != "done":
            raise UserError(
                f"task.seeds: training of seed {seed} failed: {status.error}; see "
                f"{RunFolder(folder).log}; the same command goes on with it"
            )
    return folders


def is_done(folder: Path) -> bool:
    """Whether a run says of itself that it ended well."""
    status = read_status(folder)
    return status is not None and status.state == "done"


def arguments_of_seed(
    config: Mapping[str, Any], run_dir: Path, folder: Path, seed: int
) -> list[str]:
    """Command-line arguments that train a saved config anew, in another folder with another seed.

    Args:
        config: what ``config_resolved.yaml`` holds.
        run_dir: the run's folder; paths below it become paths below ``folder``, but for the split
            and the cache, which are shared.
        folder: of the new run.
        seed: of the new run.
    """
    moved = rerooted(config, str(config["run_dir"]), str(folder))
    sections = {name: moved[name] for name in PARTS if name in moved}
    changed = {
        "train.seed": seed,
        "dataset.seed": seed,
        "dataset.splits_dir": str(RunFolder(run_dir).splits),
        "dataset.cache_dir": config["dataset"]["cache_dir"],
        "run_dir": str(folder),
    }
    return [
        *search_path(RunFolder(run_dir)),
        *overrides(config["choices"]),
        *overrides(dict(leaves(sections)), "++"),
        "task=train",
        "~task.then",
        *overrides(changed),
    ]


def trained_runs(folders: Sequence[str], weights: str) -> list[Path]:
    """Trained runs: each folder itself, or those directly in it.

    Raises:
        UserError: for a folder that holds none.
    """
    return run_folders(
        folders,
        lambda folder: RunFolder(folder).weights(weights).is_file(),
        f"a trained run, with checkpoints/{weights},",
    )
