"""Which samples make a batch, in one process or shared out among several."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from torch.utils.data import Dataset, Sampler

FILLER = "filler"
"""Key of a batch that only keeps a process in step with the others, and counts for nothing."""


class Share(NamedTuple):
    """One process of several that train together."""

    rank: int = 0
    world_size: int = 1


@dataclass(frozen=True)
class Filler:
    """In place of an index: read this sample, and mark it as no part of the data."""

    index: int


class WithFillers(Dataset[Any]):
    """A dataset that is asked for ``Filler`` too."""

    def __init__(self, dataset: Any) -> None:
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int | Filler) -> Any:
        if isinstance(index, Filler):
            return {**self.dataset[index.index], FILLER: True}
        return self.dataset[index]


class EpochOrder(Sampler[int]):
    """Every sample once, in an order that is a function of the seed and the epoch alone.

    A resumed run thus sees what an uninterrupted one would have seen. Lightning calls
    ``set_epoch``.

    Args:
        size: number of samples.
        seed: of the orders of all epochs; None keeps the order of the split.
        epoch: whose order comes first.
    """

    def __init__(self, size: int, seed: int | None, epoch: int = 0) -> None:
        self.size = size
        self.seed = seed
        self.epoch = epoch

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose order comes next."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.size

    def __iter__(self) -> Iterator[int]:
        if self.seed is None:
            return iter(range(self.size))
        order = np.random.default_rng([self.seed, self.epoch]).permutation(self.size)
        return iter(order.tolist())


class Rows(NamedTuple):
    """Where a process's samples are among those that all processes take in one step."""

    before: int
    own: int
    total: int


class EpochBatches(Sampler[list[Any]]):
    """Batches of one process, so that those of all processes are every sample once.

    In each step the processes take ``world_size * batch_size`` consecutive samples of the epoch's
    order, as one process with that batch size would. Where the last step has too few for all, the
    later processes take a ``Filler``: PyTorch's own sampler repeats samples instead, and sums over
    processes count them twice.

    Args:
        order: of the samples.
        batch_size: of each process.
        share: which process this is.
    """

    def __init__(self, order: EpochOrder, batch_size: int, share: Share) -> None:
        self.sampler = order  # Lightning looks for it, to set the epoch
        self.batch_size = batch_size
        self.share = share
        self.drop_last = False

    def __len__(self) -> int:
        return -(-len(self.sampler) // (self.batch_size * self.share.world_size))

    def rows(self, step: int) -> Rows:
        """Of the samples of a step, those of this process; none in a filler."""
        together = self.batch_size * self.share.world_size
        total = min(together, len(self.sampler) - step * together)
        before = min(self.share.rank * self.batch_size, total)
        return Rows(before, min(self.batch_size, total - before), total)

    def first_row(self, step: int) -> int:
        """Place in the epoch of this process's first sample of a step."""
        return step * self.batch_size * self.share.world_size + self.rows(step).before

    def __iter__(self) -> Iterator[list[Any]]:
        order = list(self.sampler)
        for step in range(len(self)):
            rows, first = self.rows(step), self.first_row(step)
            yield order[first : first + rows.own] or [Filler(order[0])]
