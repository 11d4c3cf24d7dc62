"""How the latent space fares while a run is trained, and whether it is used at all."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor

from vaelab.metrics.decomposition import kl_decomposition
from vaelab.metrics.latent import PAID_NATS, active_units, kl_of_units, mu_variance
from vaelab.metrics.prior_match import mean_norm
from vaelab.training.gather import counts, gathered

log = logging.getLogger(__name__)

WARM_UP_EPOCHS = 2
"""Epochs in which idle latent units are no sign of collapse; the third may be warned of."""

FEW_UNITS = 0.1
"""Share of the latent units below which, while they grow fewer, a collapse is under way."""

SAMPLES_OF_INFORMATION = 64
"""Validation samples whose mutual information is estimated; the time grows with their square."""

SAMPLES_OF_ERRORS = 16
"""First validation samples whose error at mu is compared with that at other places."""

DRAWS = 4
"""z ~ N(0, I) that are decoded in an epoch, the same in all, beside z = 0."""

SETTLED_STEPS = 500
"""Steps of the optimiser before which units may idle: networks learn the average image first."""

IGNORED_NATS = 1.0
"""Response to mu below which the decoder ignores z: all units together tell less than a nat.
Measured in the third epoch, after 300 steps: at most 0.5 with a decoder of coordinates that has no
need of z (12 runs), at least 5.8 with the same one when it has (12 runs)."""

BARELY_BETTER = 0.9
"""Share of the error at z = 0 that is left at mu, below which z is of use whatever the response is.
A healthy network of 32² radiographs, whose response was 0.93 nats in the third epoch, had 0.82."""

ERRORS = ("recon_at_mu", "recon_at_zero", "recon_at_draw", "response_to_mu")


class LatentHealth(Callback):
    """Logs how the latent space fares, and warns, once, when it is not used.

    Of all validation samples: ``val/active_units``, and ``val/mu_variance``, the mean over units of
    the variance that makes one active; ``val/paid_units``, ``val/unit_kl_median`` and
    ``val/unit_kl_max``, the KL of single units in nats; ``val/aggregate_mean_norm``, how far the
    mean of q(z) is from the prior's, in its standard deviations: KL that is paid for an offset. Of
    the first ``SAMPLES_OF_INFORMATION``: ``val/mutual_information`` in nats, at most the log of
    their number. Of the first ``SAMPLES_OF_ERRORS``, as squared error per voxel:
    ``val/recon_at_mu``, ``val/recon_at_zero``, of what z = 0 is decoded to, and
    ``val/recon_at_draw``, of ``DRAWS`` fixed draws from the prior. Of the same samples,
    ``val/response_to_mu``: the squared difference of x_hat(mu) from x_hat(0), summed over channels
    and voxels. The likelihood of the ELBO here has a variance of 1/2, so this is the KL in nats of
    what the decoder says at mu from what it says at 0. This costs ``DRAWS`` + 1 passes of one
    sample through the decoder.

    Units fall idle where the KL is paid for and they are worth less than it. Some always do. The
    warning comes when nearly all have and there are fewer than there were: before the last one,
    while a run can still be stopped and set up otherwise. It comes, too, when the decoder ignores
    z although units vary: when the response to mu is below ``IGNORED_NATS``. Neither comes before
    the third epoch and ``settled_steps``.

    Args:
        settled_steps: steps of the optimiser before which there is no warning.
    """

    def __init__(self, settled_steps: int = SETTLED_STEPS) -> None:
        self.settled_steps = settled_steps
        self._values = 0  # of a sample
        self._posteriors: list[Tensor] = []
        self._errors: list[Tensor] = []
        self._elsewhere: list[Tensor] = []
        self._most = 0
        self._warned = False

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run has to know."""
        return {"most": self._most, "warned": self._warned}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take it up again."""
        self._most, self._warned = state_dict["most"], state_dict["warned"]

    def on_validation_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Forget the epoch before; decode what is compared with."""
        self._posteriors, self._errors = [], []
        model: Any = pl_module.model
        draws = torch.randn(DRAWS, model.z_dim, generator=torch.Generator().manual_seed(0))
        places = torch.cat([torch.zeros(1, model.z_dim), draws]).to(pl_module.device)
        with trainer.precision_plugin.forward_context():
            # One at a time, in no more memory than validation takes.
            self._elsewhere = [model.decode(z[None]) for z in places]
        self._values = self._elsewhere[0].numel()

    def on_validation_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: dict[str, Any],
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Keep the posteriors, a kilobyte a sample, and the first samples' errors."""
        if not counts(batch):
            return
        output = outputs.output
        posterior = torch.stack([output.mu, output.logvar])  # (2, B, z)
        self._posteriors.append(posterior.detach().float().cpu())
        if self._elsewhere:
            x, x_hat = batch["image"], output.x_hat.detach()
            at_zero, *at_draws = (_errors(x, other) for other in self._elsewhere)
            change = _errors(x_hat, self._elsewhere[0])
            columns = [_errors(x, x_hat), at_zero, torch.stack(at_draws).mean(0), change]
            self._errors.append(torch.stack(columns, 1).cpu())  # (B, 4)
        if sum(map(len, self._errors)) >= SAMPLES_OF_ERRORS:
            self._elsewhere = []  # as large as samples

    def on_validation_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Log, and say so when the latents are not used."""
        self._elsewhere = []
        mu, logvar = torch.cat(gathered(trainer, self._posteriors), 1)
        errors = torch.cat(gathered(trainer, self._errors))[:SAMPLES_OF_ERRORS].mean(0)
        found = dict(zip(ERRORS, errors.tolist(), strict=True))
        found["response_to_mu"] = response = found["response_to_mu"] * self._values
        several = len(mu) > 1  # a variance over samples needs two
        if several:
            found |= _use_of_units(mu, logvar)
        entries = {f"val/{key}": value for key, value in found.items()}
        pl_module.log_dict(entries, logger=False, sync_dist=True)  # alike in all processes
        active = int(found["active_units"]) if several else None
        most, self._most = self._most, max(active or 0, self._most)
        # An untrained network tells nothing yet.
        if trainer.current_epoch < WARM_UP_EPOCHS or trainer.global_step < self.settled_steps:
            return
        if active is not None and _is_few(active, most, mu.shape[1]):
            if _beta(trainer) > 0:  # nor does an encoder that has not met its KL
                self._warn(trainer, _collapses(active, max(active, most), mu.shape[1]))
        elif response < IGNORED_NATS and _is_no_better_at_mu(found):
            self._warn(trainer, _ignores_z(found))

    def _warn(self, trainer: L.Trainer, message: str) -> None:
        if not self._warned:
            log.warning("epoch %d: %s", trainer.current_epoch, message)
        self._warned = True


def _is_no_better_at_mu(found: Mapping[str, float]) -> bool:
    return found["recon_at_mu"] > BARELY_BETTER * found["recon_at_zero"]


def _ignores_z(found: Mapping[str, float]) -> str:
    at_mu, at_zero, at_draw, response = (found[name] for name in ERRORS)
    return (
        f"the decoder ignores z: the squared error per voxel is {at_mu:.4g} at mu, {at_zero:.4g} "
        f"at 0 and {at_draw:.4g} at draws from the prior, and an image at mu differs from that at "
        f"0 by {response:.2g} nats; leave out what the decoder can do without z by, such as "
        "coordinates, or lower train.kl_beta"
    )


def _is_few(active: int, most: int, units: int) -> bool:
    return active == 0 or (active < most and active <= FEW_UNITS * units)


def _collapses(active: int, most: int, units: int) -> str:
    return (
        f"{active} of {units} latent units vary over the validation samples, {most} did: the "
        "posterior collapses; a lower train.kl_beta or a longer train.kl_annealing_epochs may help"
    )


def _errors(x: Tensor, x_hat: Tensor) -> Tensor:
    """Squared error per voxel of each sample, (B, C, ...) and (B or 1, C, ...) → (B,) float64."""
    return (x.float() - x_hat.float()).square().flatten(1).mean(1, dtype=torch.float64)


def _use_of_units(mu: Tensor, logvar: Tensor) -> dict[str, float]:
    some = slice(SAMPLES_OF_INFORMATION)
    parts = kl_decomposition(mu[some], logvar[some], torch.Generator().manual_seed(0))
    kl = kl_of_units(mu, logvar)
    return {
        "active_units": float(active_units(mu)),
        "mu_variance": float(mu_variance(mu).mean()),
        "paid_units": float((kl > PAID_NATS).sum()),
        "unit_kl_median": float(kl.median()),
        "unit_kl_max": float(kl.max()),
        "mutual_information": parts.mutual_information,
        "aggregate_mean_norm": mean_norm(mu),
    }


def _beta(trainer: L.Trainer) -> float:
    return float(trainer.callback_metrics.get("val/beta", 0.0))
