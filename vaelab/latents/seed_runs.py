"""Runs that differ in their seed alone: trained, or found in folders."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped, unused-ignore]

from vaelab.assembly import PARTS, Run
from vaelab.errors import UserError
from vaelab.runs.config_difference import rerooted
from vaelab.runs.folder import RunFolder
from vaelab.runs.launch import run_apart
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
    with run.folder.config.open(encoding="utf-8") as file:
        config = yaml.safe_load(file)
    folders = []
    for seed in seeds:
        folder = run.folder.seed(seed).path
        folders.append(folder)
        if is_done(folder):
            log.info("seed %d: trained already, in %s", seed, folder)
            continue
        if RunFolder(folder).last_checkpoint.is_file():
            arguments = [f"resume={folder}"]
        else:
            shutil.rmtree(folder, ignore_errors=True)  # cut off before its first checkpoint
            arguments = overrides(config, run.folder.path, folder, seed)
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


def overrides(config: Mapping[str, Any], run_dir: Path, folder: Path, seed: int) -> list[str]:
    """Arguments of the door that train a saved config anew, in another folder with another seed.

    Args:
        config: what ``config_resolved.yaml`` holds.
        run_dir: the run's folder; paths below it become paths below ``folder``, but for the split
            and the cache, which are shared.
        folder: of the new run.
        seed: of the new run.
    """
    arguments = [f"{group}={option}" for group, option in config["choices"].items()]
    moved = rerooted(config, str(config["run_dir"]), str(folder))
    for section in PARTS:
        for key, value in _leaves(moved[section], section):
            arguments.append(f"++{key}={_literal(value)}")
    return [
        *arguments,
        "task=train",
        "~task.then",
        f"train.seed={seed}",
        f"dataset.seed={seed}",
        f"dataset.splits_dir={_literal(str(RunFolder(run_dir).splits))}",
        f"dataset.cache_dir={_literal(str(config['dataset']['cache_dir']))}",
        f"run_dir={folder}",
    ]


def runs_in(folders: Sequence[str], weights: str) -> list[Path]:
    """Trained runs: each folder itself, or those directly in it, ordered by name.

    Raises:
        UserError: for a folder that holds none.
    """
    found: list[Path] = []
    for name in folders:
        folder = Path(name).expanduser()
        inside = sorted(folder.iterdir()) if folder.is_dir() else []
        runs = [one for one in (folder, *inside) if RunFolder(one).weights(weights).is_file()]
        if not runs:
            raise UserError(
                f"task.runs={name}: neither a trained run, with checkpoints/{weights}, nor a "
                "folder of such; runs are in outputs/ and multirun_sweeps/"
            )
        found += runs[:1] if runs[0] == folder else runs
    return found


def _leaves(node: Any, path: str) -> Iterator[tuple[str, Any]]:
    if isinstance(node, Mapping) and node:
        for key, value in node.items():
            yield from _leaves(value, f"{path}.{key}")
    else:
        yield path, node


def _literal(value: Any) -> str:
    """A plain value as Hydra's grammar of overrides writes it."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        escaped = value.replace("'", "\\'")
        return f"'{escaped}'"
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{key}:{_literal(one)}" for key, one in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ",".join(_literal(one) for one in value) + "]"
    return str(value)
