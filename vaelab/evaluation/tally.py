"""What ``task=evaluate`` keeps of each sample: numbers, and nothing the size of an image."""

from __future__ import annotations

import csv
import math
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vaelab.anomaly.detector import Finding
from vaelab.atomic import replacing
from vaelab.metrics.image import (
    SSIM_WINDOW,
    foreground,
    mean_squared_error,
    psnr,
    squared_error_within,
    ssim,
)
from vaelab.metrics.latent import active_units
from vaelab.objective.elbo import kl_per_dimension, squared_error


class Tally:
    """Numbers of all samples of the split that is judged.

    Args:
        channel_names: of the channels of an image, in order.
        device: where convolutions over images are computed.
    """

    def __init__(self, channel_names: Sequence[str], device: torch.device) -> None:
        self.channel_names = list(channel_names)
        # MPS has computed 3D convolutions wrongly in silence; see PyTorch issue 141780.
        self.device = device if device.type == "cuda" else torch.device("cpu")
        self.ids: list[str] = []
        self.labels: list[int] = []
        self.scores: list[Tensor] = []
        self.errors: list[Tensor] = []
        self.mus: list[Tensor] = []
        self.logvars: list[Tensor] = []
        self.by_channel: dict[str, list[Tensor]] = defaultdict(list)
        self.tumour = torch.zeros(2, dtype=torch.float64)
        self.rest = torch.zeros(2, dtype=torch.float64)

    def add(self, batch: dict[str, Any], finding: Finding) -> None:
        """Take note of a batch."""
        x: Tensor = batch["image"]
        self.ids += list(batch["id"])
        self.scores.append(finding.score)
        self.errors.append(squared_error(x, finding.x_hat))
        self.mus.append(finding.output.mu)
        self.logvars.append(finding.output.logvar)
        for name, values in channel_metrics(x.to(self.device), finding.x_hat.to(self.device)):
            self.by_channel[name].append(values.cpu())
        if "label" in batch:
            self.labels += batch["label"].tolist()
        if "seg" in batch:
            tumour = batch["seg"] > 0
            self.tumour += torch.stack(squared_error_within(x, finding.x_hat, tumour))
            self.rest += torch.stack(squared_error_within(x, finding.x_hat, ~tumour))

    @property
    def mu(self) -> Tensor:
        """Posterior means, (N, z)."""
        return torch.cat(self.mus)

    @property
    def logvar(self) -> Tensor:
        """Log posterior variances, (N, z)."""
        return torch.cat(self.logvars)

    @property
    def kl(self) -> Tensor:
        """KL of each sample and unit in nats, (N, z)."""
        return kl_per_dimension(self.mu, self.logvar)

    def metrics(self, beta: float) -> dict[str, Any]:
        """What ``metrics.json`` says of reconstruction, objective and use of the latents."""
        recon = float(torch.cat(self.errors).double().sum())
        kl_sum = float(self.kl.double().sum())
        result: dict[str, Any] = {
            "samples": len(self.ids),
            "reconstruction": {
                "mse": float(torch.cat(self.by_channel["mse"]).mean()),
                **{
                    f"{name}_per_channel": self._over_samples(torch.cat(values))
                    for name, values in self.by_channel.items()
                },
            },
            "objective": {
                "beta": beta,
                "recon_sum": recon,
                "kl_sum_nats": kl_sum,
                "neg_elbo_sum": recon + beta * kl_sum,
            },
            "latent": {
                "active_units": active_units(self.mu) if len(self.ids) > 1 else None,
                "units": self.mu.shape[1],
                "kl_nats_per_sample": kl_sum / len(self.ids),
                "kl_nats_per_unit": [round(value, 6) for value in self.kl_of_units().tolist()],
            },
        }
        if float(self.tumour[1]) > 0:
            tumour, rest = (float(total / count) for total, count in (self.tumour, self.rest))
            result["tumour"] = {"mse_tumour": tumour, "mse_rest": rest, "ratio": tumour / rest}
        return result

    def scores_and_labels(self) -> tuple[np.ndarray, np.ndarray]:
        """Anomaly score and label of each sample, both (N,)."""
        return torch.cat(self.scores).numpy(), np.array(self.labels)

    def kl_of_units(self) -> np.ndarray:
        """Mean KL of each unit in nats, (z,)."""
        mean: np.ndarray = self.kl.double().mean(0).numpy()
        return mean

    def write_scores(self, path: Path) -> None:
        """Write ``scores.csv``: id, label where there is one, score."""
        labels: list[int | str] = [*self.labels] if self.labels else [""] * len(self.ids)
        rows = zip(self.ids, labels, torch.cat(self.scores).tolist(), strict=True)
        with replacing(path) as partial, partial.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(["id", "label", "score"])
            writer.writerows(rows)

    def _over_samples(self, values: Tensor) -> dict[str, float | None]:
        """Mean over samples; None where it is not finite, as PSNR is for a constant channel."""
        means = [mean if math.isfinite(mean) else None for mean in values.mean(0).tolist()]
        return dict(zip(self.channel_names, means, strict=True))


def channel_metrics(x: Tensor, x_hat: Tensor) -> list[tuple[str, Tensor]]:
    """Name → (B, C): over the whole image, and of volumes within the brain too.

    Images smaller than a window of SSIM have none.
    """
    large = min(x.shape[2:]) >= SSIM_WINDOW
    result = [("mse", mean_squared_error(x, x_hat)), ("psnr_db", psnr(x, x_hat))]
    if large:
        result.append(("ssim", ssim(x, x_hat)))
    if x.dim() == 5:
        brain = foreground(x)
        result.append(("mse_brain", mean_squared_error(x, x_hat, brain)))
        result.append(("psnr_db_brain", psnr(x, x_hat, brain)))
        if large:
            result.append(("ssim_brain", ssim(x, x_hat, brain)))
    return result
