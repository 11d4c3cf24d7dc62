"""Channels-last: a memory layout of images and weights in which convolutions are often faster.

By ``task=benchmark`` on two cores of an Intel Xeon with avx512_bf16, alone, rounds in turn;
float32 in the default layout is 1 (2026-11-24): channels-last 1.15 ± 0.09 times as fast for Exp1
at 2×4×128³ (seven rounds), 1.08 ± 0.12 at 64³, 1.33 ± 0.18 for the demo, 0.99 ± 0.05 at 4×4×32³
with 16 filters, 1.14 ± 0.06 for X-rays; exact but for rounding. An AMD EPYC at 1×4×128³: 1.5
times. With bfloat16 in this layout 0.79 ± 0.08 for Exp1 and 0.77 ± 0.07 for X-rays, 2.8 on that
EPYC: it depends on the processor. Activation checkpointing: 0.95 ± 0.06 for Exp1, 2.8 GiB instead
of 3.0.
"""

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
