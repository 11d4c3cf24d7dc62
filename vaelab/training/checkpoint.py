"""Checkpoints and weights: written whole or not at all, read without running code in them."""

from __future__ import annotations

import io
import logging
import os
import pickle
import re
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor

from vaelab.atomic import write_bytes
from vaelab.errors import UserError
from vaelab.models.vae import VAE
from vaelab.runs.folder import RunFolder

log = logging.getLogger(__name__)

MODEL, OBJECTIVE = "model.", "objective."
"""Prefixes of the two in ``VAELitModule``, and so in a Lightning checkpoint."""

LAST = RunFolder(Path()).last_checkpoint.name
"""Name of the checkpoint that every epoch writes and that a run is resumed from."""


class CarriesCode(UserError):  # noqa: N818  # named for what the file does
    """A file that would run code when it is read, and was therefore not read."""


class DamagedCheckpoint(UserError):  # noqa: N818
    """A file that is not a complete checkpoint."""


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes Lightning's checkpoints whole or not at all.

    Lightning's own writes to the system's temporary folder and moves the file from there. From
    another disk that is a copy, and a process killed meanwhile leaves half a checkpoint.
    """

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any | None = None
    ) -> None:
        """Write one checkpoint; raises ``NoSpaceError`` when the disk is full."""
        _save(checkpoint, path)


class _MovableCheckpoint(ModelCheckpoint):
    """ModelCheckpoint that restores its whole state even if the run folder was moved.

    Lightning's forgets the best score then, so that the next epoch would count as the best.
    """

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the state, with all paths in this run's folder."""
        assert self.dirpath is not None

        def here(path: str) -> str:
            return os.path.join(str(self.dirpath), os.path.basename(path)) if path else path

        paths = ("best_model_path", "kth_best_model_path", "last_model_path")
        moved = {key: here(state_dict[key]) for key in paths}
        models = {here(path): score for path, score in state_dict["best_k_models"].items()}
        super().load_state_dict(
            state_dict | moved | {"best_k_models": models, "dirpath": self.dirpath}
        )
        self.current_score = state_dict["current_score"]


def checkpoint_callbacks(folder: Path, monitor: str) -> tuple[ModelCheckpoint, ModelCheckpoint]:
    """``best_epoch_<E>.ckpt``, the smallest ``monitor`` so far, and ``last.ckpt``.

    In this order, since the last checkpoint contains the path of the best. Not ``save_last=True``,
    which (Lightning 2.6) skips every epoch that is not the best so far.
    """
    shared: dict[str, Any] = {
        "dirpath": folder,
        "auto_insert_metric_name": False,
        "save_on_train_epoch_end": True,  # runs are resumed between two epochs
        "enable_version_counter": False,
    }
    best = _MovableCheckpoint(
        filename="best_epoch_{epoch:04d}", monitor=monitor, mode="min", **shared
    )
    return best, _MovableCheckpoint(filename=Path(LAST).stem, **shared)


def save_weights(state_dict: Mapping[str, Tensor], path: str | Path) -> None:
    """Write a state dict, whole or not at all.

    Raises:
        NoSpaceError: when the disk is full.
    """
    _save(dict(state_dict), path)


def _save(content: object, path: str | Path) -> None:
    # Through memory: torch.save into a file reports a full disk as "unexpected pos".
    buffer = io.BytesIO()
    torch.save(content, buffer)
    write_bytes(path, buffer.getbuffer())


def load_checkpoint(path: str | Path) -> dict[str, object]:
    """Read a Lightning checkpoint or a state dict with ``weights_only=True``, on the CPU.

    Raises:
        CarriesCode: when the file contains code; none of it was run.
        DamagedCheckpoint: when the file is unreadable.
        UserError: when it is missing or holds something else.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path}: no such file; has this run saved a checkpoint?")
    try:
        content: object = torch.load(path, map_location="cpu", weights_only=True)
    # Depending on where a file is damaged torch.load raises any of these, some without a message.
    except (
        pickle.UnpicklingError, EOFError, OSError, RuntimeError, ValueError, LookupError,
        TypeError, AttributeError, AssertionError, struct.error,
    ) as error:  # fmt: skip
        if named := re.search(r"(?:GLOBAL|global:?) +(?:GLOBAL +)?([\w.]+\.\w+)", str(error)):
            raise CarriesCode(
                f"{path}: refused, not run: this file wants to call {named[1]}, and a checkpoint "
                "is data alone; if it is not from you, someone may mean harm"
            ) from error
        reason = next(iter(str(error).strip().splitlines()), "it ends too early")
        raise DamagedCheckpoint(f"{path}: not a readable checkpoint ({reason})") from error
    if not isinstance(content, dict):
        raise UserError(f"{path}: holds a {type(content).__name__}, not a state dict")
    return content


def checkpoint_to_resume(folder: str | Path) -> tuple[Path, int] | None:
    """The newest undamaged checkpoint of a run and its epoch; None if there are no checkpoints.

    That is ``last.ckpt``; if it is damaged, the newest of the others, with a warning that names
    both.

    Raises:
        CarriesCode: when a checkpoint contains code.
        UserError: when all of them are damaged.
    """
    folder = Path(folder)
    others = sorted(folder.glob("*.ckpt"), reverse=True)  # best_epoch_0007 before best_epoch_0003
    candidates = [path for path in (folder / LAST,) if path.is_file()]
    candidates += [path for path in others if path.name != LAST]
    damaged: list[DamagedCheckpoint] = []
    for path in candidates:
        try:
            epoch = load_checkpoint(path).get("epoch")
        except DamagedCheckpoint as error:
            damaged.append(error)
            continue
        if not isinstance(epoch, int):
            raise UserError(f"{path}: not a checkpoint of a training; it names no epoch")
        for damage in damaged:
            log.warning("%s; going on from %s, epoch %d, instead", damage, path, epoch)
        if not damaged and path.name != LAST:
            log.warning("%s is not there; going on from %s, epoch %d", folder / LAST, path, epoch)
        return path, epoch
    if damaged:
        reasons = "; ".join(str(error) for error in damaged)
        raise UserError(f"nothing to resume, every checkpoint is damaged: {reasons}")
    return None


def objective_path(weights: Path) -> Path:
    """Where the weights of the objective are, beside those of the network: ``*_objective.pth``."""
    return weights.with_name(f"{weights.stem}_objective{weights.suffix}")


def weights_in(checkpoint: Mapping[str, object], part: str = MODEL) -> dict[str, Tensor]:
    """The state dict of the network, or of the objective, within a Lightning checkpoint."""
    if "state_dict" not in checkpoint:
        raise UserError("a Lightning checkpoint is needed; this file holds weights alone")
    state = checkpoint["state_dict"]
    assert isinstance(state, Mapping)
    return {key[len(part) :]: value for key, value in state.items() if key.startswith(part)}


def load_weights(model: VAE, path: str | Path) -> VAE:
    """Load weights that ``save_weights`` wrote into ``model`` and return it in evaluation mode.

    Raises:
        UserError: when the weights are of another network, naming what differs.
    """
    state = load_checkpoint(path)
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        detail = "; ".join(line.strip() for line in str(error).splitlines()[1:4])
        raise UserError(
            f"{path}: these weights are of another network than the config describes: {detail}"
        ) from error
    return model.eval()
