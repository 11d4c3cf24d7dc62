"""Precisions by Lightning's names, and the autocast that each of them means."""

from __future__ import annotations

import torch

AUTOCAST = {"32-true": torch.float32, "16-mixed": torch.float16, "bf16-mixed": torch.bfloat16}
"""Lightning's name of a precision → dtype of its autocast; float32 is none."""


def autocast(device: torch.device, dtype: torch.dtype) -> torch.autocast:
    """Autocast to ``dtype`` on a device; to float32, none."""
    mixed = dtype != torch.float32
    return torch.autocast(device.type, dtype=dtype if mixed else None, enabled=mixed)
