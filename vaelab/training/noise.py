"""Random numbers that are the same on every device and for every number of processes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from vaelab.data.batches import Rows


class CPUNoise(TorchFunctionMode):
    """Context in which ``torch.randn`` and ``torch.randn_like`` draw on the CPU, from a seed.

    Generators of different devices give different numbers.
    """

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.generator = torch.Generator().manual_seed(seed)

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Draw, or call ``func`` as it is."""
        if func is torch.randn_like:
            return torch.randn(args[0].shape, generator=self.generator).to(args[0])
        if func is torch.randn:
            drawn = torch.randn(*args, generator=self.generator)
            return drawn.to((kwargs or {}).get("device") or "cpu")
        return func(*args, **(kwargs or {}))


class SharedNoise(TorchFunctionMode):
    """Context in which several processes draw for their samples what a single process would draw.

    ``torch.randn_like`` draws for all samples that the processes take in a step, from the global
    generator, which every process seeds alike, and gives this process its own rows.
    ``torch.rand(k, samples)``, as augmentation draws, is cut along its last side likewise.
    """

    def __init__(self, rows: Rows) -> None:
        super().__init__()
        self.rows = rows

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Draw, or call ``func`` as it is."""
        before, own, total = self.rows
        if func is torch.randn_like and len(args[0]) == own:
            like: Tensor = args[0]
            drawn = torch.randn(total, *like.shape[1:], dtype=like.dtype, device=like.device)
            return drawn[before : before + own]
        if func is torch.rand and args and args[-1] == own:
            return torch.rand(*args[:-1], total, **(kwargs or {}))[..., before : before + own]
        return func(*args, **(kwargs or {}))
