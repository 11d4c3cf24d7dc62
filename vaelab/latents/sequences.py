"""Sequences of a patient's latents in time, for a model of how patients change.

Nothing here knows the network that the latents came from; see ``vaelab.latents.table``.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import Dataset

from vaelab.data.index import enumerate_names
from vaelab.errors import UserError
from vaelab.latents.table import read_latents


class LatentDataset(Dataset[dict[str, Any]]):
    """Sequences of latents, one of each patient, ordered by time point.

    An item is a dict of ``patient`` (str), ``ids`` (T strings), ``time`` (T,) int64, ``mu`` and
    ``logvar`` (T, z) float32 and, with ``sample``, ``z`` (T, z) drawn from N(mu, exp(logvar)).
    Patients are ordered by name. A linear model of change from one visit to the next::

        import torch
        from torch.utils.data import DataLoader
        from vaelab.latents.sequences import LatentDataset, collate

        visits = LatentDataset("outputs/<run>/latents", split="train", min_length=2)
        step = torch.nn.Linear(visits.z_dim, visits.z_dim)
        optimizer = torch.optim.AdamW(step.parameters(), lr=1e-3)
        for batch in DataLoader(visits, batch_size=16, shuffle=True, collate_fn=collate):
            now, later = batch["mu"][:, :-1], batch["mu"][:, 1:]  # (B, T-1, z)
            there = batch["mask"][:, 1:, None]  # (B, T-1, 1): not every patient has T visits
            loss = ((now + step(now) - later) * there).square().sum() / there.sum()
            optimizer.zero_grad(), loss.backward(), optimizer.step()

    Args:
        source: the folder ``<run>/latents`` or a Parquet file.
        split: name or names of splits; None takes all.
        min_length: time points that a patient must have to be here.
        sample: whether to draw ``z`` anew each time that an item is taken.
        generator: what to draw with; None is PyTorch's own. Worker processes would each draw the
            same with a copy of it: leave it out with ``num_workers`` above 0.

    Raises:
        UserError: for a file that cannot be used, or when no patient is left.
    """

    def __init__(
        self,
        source: str | Path,
        split: str | Sequence[str] | None = None,
        min_length: int = 1,
        sample: bool = False,
        generator: torch.Generator | None = None,
    ) -> None:
        if min_length < 1:
            raise UserError(f"min_length={min_length}: at least 1 time point is needed")
        latents = read_latents(source).in_split(split)
        twice = sorted(name for name, count in Counter(latents.ids).items() if count > 1)
        if twice:
            raise UserError(f"{source}: ids are there more than once:{enumerate_names(twice)}")
        visits: dict[str, list[int]] = defaultdict(list)
        for place, patient in enumerate(latents.patients):
            visits[patient].append(place)
        self.latents = latents
        self.patients = sorted(name for name, own in visits.items() if len(own) >= min_length)
        if not self.patients:
            most = max(map(len, visits.values()), default=0)
            raise UserError(
                f"min_length={min_length}: no patient has so many time points; the most is {most}"
            )
        self.visits = {
            name: sorted(visits[name], key=lambda i: (latents.time_points[i], latents.ids[i]))
            for name in self.patients
        }
        self.sample = sample
        self.generator = generator

    @property
    def z_dim(self) -> int:
        """Number of latent units."""
        return int(self.latents.mu.shape[1])

    def __len__(self) -> int:
        return len(self.patients)

    def __getitem__(self, index: int) -> dict[str, Any]:
        places = self.visits[self.patients[index]]
        mu = torch.from_numpy(self.latents.mu[places])  # (T, z)
        logvar = torch.from_numpy(self.latents.logvar[places])  # (T, z)
        item: dict[str, Any] = {
            "patient": self.patients[index],
            "ids": [self.latents.ids[place] for place in places],
            "time": torch.from_numpy(self.latents.time_points[places]),  # (T,)
            "mu": mu,
            "logvar": logvar,
        }
        if self.sample:
            eps = torch.randn(mu.shape, generator=self.generator)
            item["z"] = mu + eps * torch.exp(0.5 * logvar)
        return item


def collate(items: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """A batch of sequences, padded with 0 at the end to the longest, T.

    Returns:
        ``patient`` and ``ids`` as lists, ``time`` (B, T), ``mu``, ``logvar`` and, if sampled,
        ``z`` (B, T, z), and ``mask`` (B, T) bool, true where there is a time point.
    """
    batch: dict[str, Any] = {name: [item[name] for item in items] for name in ("patient", "ids")}
    for name in ("time", "mu", "logvar", "z"):
        if name in items[0]:
            batch[name] = _padded([item[name] for item in items])
    batch["mask"] = _padded([torch.ones(len(item["ids"]), dtype=torch.bool) for item in items])
    return batch


def _padded(sequences: list[Tensor]) -> Tensor:
    return pad_sequence(sequences, batch_first=True)
