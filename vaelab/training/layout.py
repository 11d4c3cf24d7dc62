"""Channels-last: a memory layout of images and weights in which convolutions are often faster."""

from __future__ import annotations

import torch
from torch import nn

CHANNELS_LAST = {4: torch.channels_last, 5: torch.channels_last_3d}
"""Dimensions of a tensor → its channels-last layout."""


def to_channels_last(model: nn.Module) -> None:
    """Lay out the weights of all convolutions channels-last, in place; values stay as they are.

    A channels-last image is not enough: a decoder starts from a vector, whose features take the
    layout of the weights.
    """
    for weight in model.parameters():
        if weight.dim() in CHANNELS_LAST:
            weight.data = weight.data.to(memory_format=CHANNELS_LAST[weight.dim()])


def to_contiguous(model: nn.Module) -> None:
    """Lay out all weights as PyTorch makes them, in place; values stay as they are."""
    for weight in model.parameters():
        # Not contiguous(): it leaves the channels-last strides of a weight of one channel, by
        # which convolutions choose their layout.
        weight.data = weight.data.clone(memory_format=torch.contiguous_format)
