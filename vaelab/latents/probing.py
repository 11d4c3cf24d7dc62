"""Probes of the factors that are known of every sample: from its segmentation, or from a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.nn.functional import avg_pool2d, avg_pool3d

from vaelab.assembly import Run
from vaelab.data.contract import SEGMENTED
from vaelab.latents.covariates import read_covariates
from vaelab.latents.factor_table import as_columns, is_factor, sample_factors
from vaelab.latents.reading import images_of, samples_of
from vaelab.latents.subjects import Subject, own_subjects
from vaelab.metrics.probes import (
    Floats,
    latent_features,
    probe,
    voxel_features,
)
from vaelab.models.vae import VAE

FEWEST_PATIENTS = 10
"""Below, a fold would be judged on a single patient."""
VOXEL_BYTES = 2**30
"""All images together; larger ones are averaged over blocks of voxels until they fit."""


def probe_factors(
    run: Run, model: VAE, factors: Sequence[str], num_resamples: int, seed: int
) -> dict[str, Any]:
    """R² of each factor from mu, from voxels and from volume, over all samples of the dataset.

    A factor is a column of the dataset's table, else one of the segmentation. Volumes in mm³ are
    probed by their logarithm, log(1 + V). A factor is judged on the samples that have it, and left
    out where it is the same for all or known of fewer than ``FEWEST_PATIENTS`` patients.

    Returns:
        Empty where no factor can be probed.
    """
    table = read_covariates(None, run.data).numbers if factors else {}
    of_seg = run.data.spacing is not None and any(map(is_factor, factors))
    if not of_seg and not set(factors) & set(table):
        return {}
    members = own_subjects(run.data).members
    patients = np.array([one.patient for one in members])
    if len(set(patients)) < FEWEST_PATIENTS:
        return {}
    seen = _see(run, model, members)
    columns = dict(seen.factors)
    for name, known in table.items():
        columns[name] = np.array([known.get(one.id, np.nan) for one in members])
    targets = {
        name: target
        for name in factors
        if name in columns and _can_be_probed(target := _target(columns[name], name), patients)
    }
    if not targets:
        return {}
    found = probe(
        targets,
        latent_features(seen.mu),
        voxel_features(seen.gram, seen.mu.shape[1]),
        None if SEGMENTED not in columns else _target(columns[SEGMENTED], SEGMENTED),
        [name for name in targets if _is_volume(name)],
        list(patients),
        num_resamples,
        seed,
    )
    return {
        "r2": {name: asdict(one) for name, one in found.items()},
        "subjects": len(members),
        "patients": len(set(patients)),
        "latent_units": seen.mu.shape[1],
        "voxel_components_at_most": min(seen.mu.shape[1], len(members) - 1),
        "voxel_block": seen.block,
    }


class _Seen(NamedTuple):
    """What probes need of all samples."""

    mu: Floats
    """(N, z)."""
    gram: Floats
    """Inner products of images, (N, N)."""
    block: int
    """Side of the blocks of voxels that were averaged, 1 for none."""
    factors: dict[str, Floats]
    """Of segmentations, column → (N,), NaN where unknown."""


@torch.inference_mode()
def _see(run: Run, model: VAE, members: Sequence[Subject]) -> _Seen:
    """One pass over all samples."""
    mus, images, known, block = [], [], [], 0
    bar = run.logging.progress_bar
    for samples in samples_of(run.data, members, bar, "encoding for probes"):
        x = images_of(samples)
        mus.append(model.encode(x.to(run.hardware.device))[0].float().cpu())
        known += [sample_factors(sample, run.data) for sample in samples]
        if not block:
            block = 1
            while len(members) * x[0].numel() * 4 / block ** (x.dim() - 2) > VOXEL_BYTES:
                block *= 2
        pool = avg_pool3d if x.dim() == 5 else avg_pool2d
        images.append((pool(x, block) if block > 1 else x).flatten(1))
    flat = torch.cat(images)
    # Their mean goes first, or the products would be large and nearly equal.
    flat = flat - flat.mean(0)
    return _Seen(
        torch.cat(mus).double().numpy(),
        (flat @ flat.T).double().numpy(),
        block,
        as_columns(known),
    )


def _target(values: Floats, name: str) -> Floats:
    return np.log1p(values) if name.endswith("_mm3") else values


def _is_volume(name: str) -> bool:
    return name.endswith(("_mm3", "_log"))


def _can_be_probed(target: Floats, patients: np.ndarray) -> bool:
    known = np.isfinite(target)
    return len(set(patients[known])) >= FEWEST_PATIENTS and bool(np.ptp(target[known]) > 0)


def probe_headline(probes: Mapping[str, Any]) -> list[str]:
    """R² of each factor, for the log; and what was done to the voxels, where it was something."""
    block = probes["voxel_block"]
    voxels = f"voxels (averaged over blocks of {block})" if block > 1 else "voxels"
    lines = []
    for name, found in probes["r2"].items():
        mu, low, high = (found["latents"][key] for key in ("value", "low", "high"))
        parts = [
            f"{name} from mu R² {mu:.2f} ({low:.2f} to {high:.2f}), nonlinear "
            f"{found['latents_nonlinear']['value']:.2f}",
            f"from {voxels} {found['voxels']['value']:.2f}, nonlinear "
            f"{found['voxels_nonlinear']['value']:.2f}",
        ]
        if found["volume"] is not None:
            parts.append(f"from volume {found['volume']['value']:.2f}")
        lines.append(", ".join(parts))
    return lines
