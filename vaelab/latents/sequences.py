"""Sequences of a patient's latents in time, for a model of how patients change.

Nothing here knows the network that the latents came from; see ``vaelab.latents.table``.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import Dataset

from vaelab.data.index import enumerate_names
from vaelab.errors import UserError
from vaelab.latents.covariates import joined, read_covariates
from vaelab.latents.table import Latents, read_latents


class LatentDataset(Dataset[dict[str, Any]]):
    """Sequences of latents, one of each patient, ordered in time.

    An item is a dict of ``patient`` (str), ``ids`` (T strings), ``time`` (T,) int64, the number of
    each visit, ``time_days`` (T,) float32, when it was (NaN: not known), ``mu`` and ``logvar``
    (T, z) float32 and, with ``sample``, ``z`` (T, z) drawn from N(mu, exp(logvar)).

    Patients are ordered by name. Their visits are in the order of ``time_days`` where those are all
    known, else of their numbers; ids decide between equals. Numbers may leave some out and times
    between visits may be of any length. A linear model of change, integrated over these times::

        import torch
        from torch.utils.data import DataLoader
        from vaelab.latents.sequences import LatentDataset, collate

        visits = LatentDataset("outputs/<run>/latents", "train", 2, covariates="visits.csv")
        rate = torch.nn.Linear(visits.z_dim, visits.z_dim)  # dz/dt, a year
        optimizer = torch.optim.AdamW(rate.parameters(), lr=1e-3)
        for batch in DataLoader(visits, batch_size=16, shuffle=True, collate_fn=collate):
            now, later = batch["mu"][:, :-1], batch["mu"][:, 1:]  # (B, T-1, z)
            dt = batch["dt"][..., None] / 365.25  # (B, T-1, 1), years
            known = batch["dt_mask"][..., None]  # false after a patient's last visit
            loss = ((now + dt * rate(now) - later) * known).square().sum() / known.sum()
            optimizer.zero_grad(), loss.backward(), optimizer.step()

    Args:
        source: the folder ``<run>/latents`` or a Parquet file.
        split: name or names of splits; None takes all.
        min_length: time points that a patient must have to be here.
        sample: whether to draw ``z`` anew each time that an item is taken.
        generator: what to draw with; None is PyTorch's own. Worker processes would each draw the
            same with a copy of it: leave it out with ``num_workers`` above 0.
        covariates: a CSV file with a column ``id`` and one of ``days`` or ``date``; see
            ``vaelab.latents.covariates``. None: the times are those that ``task=encode`` was given.

    Raises:
        UserError: for a file that cannot be used, when no patient is left, or when the times that
            are known of a patient contradict the numbers of the visits.
    """

    def __init__(
        self,
        source: str | Path,
        split: str | Sequence[str] | None = None,
        min_length: int = 1,
        sample: bool = False,
        generator: torch.Generator | None = None,
        covariates: str | Path | None = None,
    ) -> None:
        if min_length < 1:
            raise UserError(f"min_length={min_length}: at least 1 time point is needed")
        latents = joined(read_latents(source), read_covariates(covariates)).in_split(split)
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
        self.visits = {name: _in_order(latents, visits[name]) for name in self.patients}
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
            "time_days": torch.from_numpy(self.latents.time_days[places]).float(),  # (T,)
            "mu": mu,
            "logvar": logvar,
        }
        if self.sample:
            eps = torch.randn(mu.shape, generator=self.generator)
            item["z"] = mu + eps * torch.exp(0.5 * logvar)
        return item


def _in_order(latents: Latents, places: Sequence[int]) -> list[int]:
    """A patient's visits in time."""
    days, ids = latents.time_days, latents.ids
    by_number = sorted(places, key=lambda i: (latents.time_points[i], ids[i]))
    if np.isfinite(days[by_number]).all():
        return sorted(by_number, key=lambda i: days[i])
    known = [i for i in by_number if np.isfinite(days[i])]
    for before, after in pairwise(known):
        if days[after] < days[before]:
            when = f"{ids[before]} on day {days[before]:g}, {ids[after]} on day {days[after]:g}"
            raise UserError(
                f"patient {latents.patients[before]}: {when}, against the order of these names; "
                "mend the times, or give those of all the patient's visits, which then order them"
            )
    return by_number


def collate(items: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """A batch of sequences, padded at the end to the longest, T, with 0 (``time_days`` with NaN).

    Returns:
        ``patient`` and ``ids`` as lists, ``time`` and ``time_days`` (B, T), ``mu``, ``logvar`` and,
        if sampled, ``z`` (B, T, z), and ``mask`` (B, T) bool, true where there is a time point.
        Between visits and the next: ``dt`` (B, T-1) in days, 0 where a time is not known, and
        ``dt_mask`` (B, T-1) bool, true where both are.
    """
    batch: dict[str, Any] = {name: [item[name] for item in items] for name in ("patient", "ids")}
    for name in ("time", "mu", "logvar", "z"):
        if name in items[0]:
            batch[name] = _padded([item[name] for item in items])
    batch["mask"] = _padded([torch.ones(len(item["ids"]), dtype=torch.bool) for item in items])
    batch["time_days"] = _padded([item["time_days"] for item in items], float("nan"))
    between = batch["time_days"].diff(dim=1)
    batch["dt_mask"] = between.isfinite()
    batch["dt"] = between.nan_to_num(nan=0.0)
    return batch


def _padded(sequences: list[Tensor], value: float = 0.0) -> Tensor:
    return pad_sequence(sequences, batch_first=True, padding_value=value)
