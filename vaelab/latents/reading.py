"""Images of sources as batches, in their order."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from vaelab.data.index import enumerate_names
from vaelab.data.module import SplitDataModule
from vaelab.errors import UserError
from vaelab.latents.sources import Source, Unreadable, own_sources
from vaelab.progress import progress


def batches_of(
    data: SplitDataModule, members: Sequence[Source], progress_bar: bool, desc: str
) -> Iterator[Tensor]:
    """Images of subjects in their order, without random transforms, (B, C, ...).

    Raises:
        UserError: listing the subjects that cannot be read.
    """
    size = data.batch_size
    batches = [range(i, min(i + size, len(members))) for i in range(0, len(members), size)]
    loader: DataLoader[Any] = DataLoader(
        own_sources(data).load(members),
        batch_sampler=[list(batch) for batch in batches],
        num_workers=data.num_workers,
        collate_fn=list,
    )
    bar = progress(loader, desc, unit="batch", shown=progress_bar)
    seen = 0
    for batch in bar:
        bad = [
            f"{members[seen + place].id}: {sample.reason}"
            for place, sample in enumerate(batch)
            if isinstance(sample, Unreadable)
        ]
        if bad:
            raise UserError(f"{len(bad)} subjects could not be read:{enumerate_names(bad)}")
        seen += len(batch)
        yield torch.stack([torch.as_tensor(sample["image"]) for sample in batch])
