"""Probes of the factors that are known of every sample: from its segmentation, or from a table."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import numpy as np
import torch
from torch.nn.functional import avg_pool2d, avg_pool3d

from vaelab.data.contract import SEGMENTED
from vaelab.data.index import Record
from vaelab.data.module import SplitDataModule
from vaelab.latents.covariates import read_covariates
from vaelab.latents.factor_table import as_columns, is_factor
from vaelab.latents.reading import batches_of
from vaelab.latents.sources import Source, own_sources
from vaelab.metrics.probes import Floats, Probes, latent_features, probe, voxel_features

FEWEST_PATIENTS = 10
"""Below, a fold would be judged on a single patient."""
VOXEL_BYTES = 2**30
"""All images together; larger ones are averaged over blocks of voxels until they fit."""


class Encoded(Protocol):
    """What the network and the sample itself say of a record."""

    @property
    def mu(self) -> np.ndarray:
        """(z,)."""

    @property
    def covariates(self) -> Mapping[str, float]:
        """Factors of the segmentation among them, where there is one."""


Encode = Callable[[Sequence[Record]], Sequence[Encoded]]


def probe_factors(
    data: SplitDataModule, encode: Encode, factors: Sequence[str], num_resamples: int, seed: int
) -> Probes | None:
    """R² of each factor from mu, from voxels and from volume, over all records of the dataset.

    A factor is a column of the dataset's table, else one of the segmentation. Volumes in mm³ are
    probed by their logarithm, log(1 + V). A factor is judged on the records that have it, and left
    out where it is the same for all or known of fewer than ``FEWEST_PATIENTS`` patients.

    Returns:
        None where no factor can be probed.
    """
    table = read_covariates(None, data).numbers if factors else {}
    of_seg = data.spacing is not None and any(map(is_factor, factors))
    if not of_seg and not set(factors) & set(table):
        return None
    members = own_sources(data).members
    patients = [source.patient for source in members]
    if len(set(patients)) < FEWEST_PATIENTS:
        return None
    encoded = encode([dict(source.record) for source in members])
    columns = as_columns([record.covariates for record in encoded])
    for name, known in table.items():
        columns[name] = np.array([known.get(source.id, np.nan) for source in members])
    targets = {
        name: target
        for name in factors
        if name in columns and _can_be_probed(target := _target(columns[name], name), patients)
    }
    if not targets:
        return None
    mu = np.stack([record.mu for record in encoded]).astype(np.float64)
    gram, block = _gram(data, members)
    r2 = probe(
        targets,
        latent_features(mu),
        voxel_features(gram, mu.shape[1]),
        None if SEGMENTED not in columns else _target(columns[SEGMENTED], SEGMENTED),
        [name for name in targets if _is_volume(name)],
        patients,
        num_resamples,
        seed,
    )
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


def _target(values: Floats, name: str) -> Floats:
    return np.log1p(values) if name.endswith("_mm3") else values


def _is_volume(name: str) -> bool:
    return name.endswith(("_mm3", "_log"))


def _can_be_probed(target: Floats, patients: Sequence[str]) -> bool:
    known = np.isfinite(target)
    of_patients = len(set(np.asarray(patients)[known]))
    return of_patients >= FEWEST_PATIENTS and bool(np.ptp(target[known]) > 0)


def probe_headline(probes: Probes) -> list[str]:
    """R² of each factor, for the log; and what was done to the voxels, where it was something."""
    block = probes.voxel_block
    voxels = f"voxels (averaged over blocks of {block})" if block > 1 else "voxels"
    lines = []
    for name, found in probes.r2.items():
        mu = found.latents
        parts = [
            f"{name} from mu R² {mu.value:.2f} ({mu.low:.2f} to {mu.high:.2f}), nonlinear "
            f"{found.latents_nonlinear.value:.2f}",
            f"from {voxels} {found.voxels.value:.2f}, nonlinear {found.voxels_nonlinear.value:.2f}",
        ]
        if found.volume is not None:
            parts.append(f"from volume {found.volume.value:.2f}")
        lines.append(", ".join(parts))
    return lines
