"""Where runs put the same scans: once, scanned again, and drawn from the posterior."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vaelab.assembly import Run
from vaelab.latents.reading import batches_of
from vaelab.latents.sources import Source
from vaelab.metrics.latent import is_active
from vaelab.models.vae import VAE
from vaelab.objective.elbo import kl_divergence
from vaelab.runs.folder import RunFolder
from vaelab.training.checkpoint import load_weights

Floats = NDArray[np.float64]

Repeat = Callable[[Tensor, torch.Generator, Sequence[float] | None], Tensor]
"""(batch, generator, spacing in mm or None) → the batch as another scan of the same subjects."""


@dataclass(frozen=True)
class Space:
    """Where one run puts all scans."""

    name: str
    mu: Floats
    """(N, z)."""
    rescanned: Floats
    """Posterior means of repeats, the original first, (N, k, z)."""
    drawn: Floats
    """Two draws of z of each scan, (N, 2, z)."""
    mse: float
    kl: float

    @property
    def active(self) -> NDArray[np.bool_]:
        """Units whose mu varies over scans, (z,)."""
        return np.asarray(is_active(torch.from_numpy(self.mu)))


@torch.inference_mode()
def encode(
    run: Run,
    name: str,
    folder: Path,
    scans: Sequence[Source],
    rescan: Repeat,
    repeats: int,
    seed: int,
) -> Space:
    """Encode scans with the weights of a run, whose network is that of another.

    Args:
        run: its data, network and hardware.
        name: of the run.
        folder: of the run.
        scans: whom to encode.
        rescan: makes a repeat of a batch.
        repeats: of each scan, the original among them.
        seed: of what is drawn: every run sees the same repeats.
    """
    device = run.hardware.device
    weights = RunFolder(folder).weights(run.train.weights_name)
    model: VAE = load_weights(copy.deepcopy(run.model), weights).to(device)
    draw = torch.Generator().manual_seed(seed)
    mus: list[Tensor] = []
    rescanned: list[Tensor] = []
    drawn: list[Tensor] = []
    error = kl = 0.0
    values = 0
    bar = run.logging.progress_bar
    spacing = run.data.spacing
    for x in batches_of(run.data, scans, bar, f"encoding {name}"):
        output = model(x.to(device))
        x_hat, mu, logvar = (part.float().cpu() for part in output[:3])
        again = [rescan(x, draw, spacing).to(device) for _ in range(repeats - 1)]
        others = [model.encode(repeat)[0].float().cpu() for repeat in again]
        noise = torch.randn(len(x), 2, mu.shape[1], generator=draw)
        mus.append(mu)
        rescanned.append(torch.stack([mu, *others], 1))
        drawn.append(mu[:, None] + noise * torch.exp(0.5 * logvar)[:, None])
        error += float((x - x_hat).square().sum(dtype=torch.float64))
        values += x.numel()
        kl += float(kl_divergence(mu, logvar).sum())
    return Space(
        name,
        torch.cat(mus).double().numpy(),
        torch.cat(rescanned).double().numpy(),
        torch.cat(drawn).double().numpy(),
        error / values,
        kl / len(scans),
    )


def first_scans(scans: Sequence[Source]) -> list[int]:
    """Place of each patient's first time point among the scans."""
    first: dict[str, int] = {}
    for place, scan in enumerate(scans):
        held = first.get(scan.patient)
        if held is None or scan.time_point < scans[held].time_point:
            first[scan.patient] = place
    return list(first.values())


def names_of(runs: Sequence[Path]) -> list[str]:
    """A short name of each run: its folder's own, with the folder above where two are alike."""
    short = [path.resolve().name for path in runs]
    return [
        name if short.count(name) == 1 else "/".join(path.resolve().parts[-2:])
        for name, path in zip(short, runs, strict=True)
    ]
