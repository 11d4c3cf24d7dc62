"""Linear probes of the factors that are known of every subject."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, avg_pool3d
from torch.utils.data import DataLoader

from vaelab.data.index import Record, enumerate_names
from vaelab.data.module import SplitDataModule
from vaelab.errors import UserError
from vaelab.latents.pictures import Covariates, read_covariates
from vaelab.latents.sources import Source, Unreadable, own_sources
from vaelab.metrics.probes import Probe, Probes, latent_features, probe, voxel_features
from vaelab.progress import progress

FEWEST_PATIENTS = 10
"""Below, a fold would be judged on a single patient."""
VOXEL_BYTES = 2**30
"""All images together; larger ones are averaged over blocks of voxels until they fit."""


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


Encode = Callable[[Sequence[Record]], np.ndarray]
"""Records → their posterior means, (N, z) float64."""


def probe_factors(
    data: SplitDataModule, encode: Encode, factors: Sequence[str], num_resamples: int, seed: int
) -> Probes | None:
    """R² of each factor from mu and from voxels, over all subjects of the dataset.

    Volumes in mm³ are probed by their logarithm, log(1 + V). A factor that is unknown, or the
    same for all, is left out.

    Returns:
        None where no factor is known, or of fewer than ``FEWEST_PATIENTS`` patients.
    """
    known: Covariates = {} if not factors else read_covariates(None, data)
    found = [name for name in factors if name in known]
    subjects = own_sources(data).members if found else []
    members = [one for one in subjects if all(one.id in known[name] for name in found)]
    patients = [one.patient for one in members]
    if len(set(patients)) < FEWEST_PATIENTS:
        return None
    mu = encode([dict(subject.record) for subject in members])
    gram, block = _gram(data, members)
    latents, voxels = latent_features(mu), voxel_features(gram, mu.shape[1])
    r2: dict[str, Probe] = {}
    for name in found:
        values = np.array([known[name][one.id] for one in members])
        values = np.log1p(values) if name.endswith("_mm3") else values
        if np.ptp(values) > 0:
            r2[name] = probe(values, latents, voxels, patients, num_resamples, seed)
    return Probes(
        r2=r2,
        subjects=len(members),
        patients=len(set(patients)),
        latent_units=mu.shape[1],
        voxel_components_at_most=min(mu.shape[1], len(members) - 1),
        voxel_block=block,
    )


def _gram(data: SplitDataModule, members: Sequence[Source]) -> tuple[np.ndarray, int]:
    """Inner products of images (N, N), and the side of the blocks that they are averaged over."""
    images, block = [], 0
    for x in batches_of(data, members, data.progress_bar, "reading voxels for probes"):
        if not block:
            block = 1
            while len(members) * x[0].numel() * 4 / block ** (x.dim() - 2) > VOXEL_BYTES:
                block *= 2
        pool = avg_pool3d if x.dim() == 5 else avg_pool2d
        images.append((pool(x, block) if block > 1 else x).flatten(1))
    flat = torch.cat(images)
    # Their mean goes first, or the products would be large and nearly equal.
    flat = flat - flat.mean(0)
    return (flat @ flat.T).double().numpy(), block


def probe_headline(probes: Probes) -> list[str]:
    """R² of each factor, for the log."""
    return [
        f"{name} from mu R² {found.latents.value:.2f} "
        f"({found.latents.low:.2f} to {found.latents.high:.2f}), "
        f"from voxels {found.voxels.value:.2f}"
        for name, found in probes.r2.items()
    ]
