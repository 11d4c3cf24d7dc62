"""Collect the batches of several processes in the order of the split."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain, zip_longest
from typing import Any

import lightning as L
from torch import Tensor, distributed

from vaelab.data.batches import FILLER


def counts(batch: Mapping[str, Any]) -> bool:
    """Whether a batch counts; fillers only keep a process in step with the others."""
    return FILLER not in batch


def gathered(trainer: L.Trainer, batches: Sequence[Tensor]) -> list[Tensor]:
    """The batches of all processes, in the order of the split; the same in each of them.

    Args:
        trainer: at the same point in all processes.
        batches: of this process, on the CPU, one for each step, without fillers.
    """
    if trainer.world_size == 1:
        return list(batches)
    everyone: list[Sequence[Tensor]] = [[] for _ in range(trainer.world_size)]
    distributed.all_gather_object(everyone, list(batches))
    in_turn = chain.from_iterable(zip_longest(*everyone))
    return [batch for batch in in_turn if batch is not None]
