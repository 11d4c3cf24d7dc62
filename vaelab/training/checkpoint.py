"""Weights as plain state dicts: written atomically, read without running code."""

from __future__ import annotations

import pickle
import struct
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from vaelab.atomic import replacing
from vaelab.errors import UserError
from vaelab.models.vae import VAE

PREFIX = "model."
"""Where the network sits in ``VAELitModule``, and so in a Lightning checkpoint."""


def save_weights(state_dict: Mapping[str, Tensor], path: str | Path) -> None:
    """Write a state dict so that the file is either the old one or the new one, never half."""
    with replacing(path) as partial:
        torch.save(dict(state_dict), partial)


def load_checkpoint(path: str | Path) -> dict[str, object]:
    """Read a Lightning checkpoint or a state dict with ``weights_only=True``, on the CPU.

    Raises:
        UserError: when the file is missing, unreadable, or carries more than data.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path}: no such file; has this run saved a checkpoint?")
    try:
        content: object = torch.load(path, map_location="cpu", weights_only=True)
    # By where a file was cut or damaged torch.load raises any of these; some say nothing.
    except (
        pickle.UnpicklingError, EOFError, OSError, RuntimeError, ValueError, LookupError,
        TypeError, AttributeError, AssertionError, struct.error,
    ) as error:  # fmt: skip
        reason = next(iter(str(error).strip().splitlines()), "it ends too early")
        raise UserError(f"{path}: not a readable checkpoint ({reason})") from error
    if not isinstance(content, dict):
        raise UserError(f"{path}: holds a {type(content).__name__}, not a state dict")
    return content


def weights_in(checkpoint: Mapping[str, object]) -> dict[str, Tensor]:
    """The network's state dict within a Lightning checkpoint."""
    if "state_dict" not in checkpoint:
        raise UserError("a Lightning checkpoint is needed; this file holds weights alone")
    state = checkpoint["state_dict"]
    assert isinstance(state, Mapping)
    return {key[len(PREFIX) :]: value for key, value in state.items() if key.startswith(PREFIX)}


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
