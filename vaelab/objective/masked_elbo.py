"""The negative ELBO of healthy tissue: what lies within a lesion costs nothing.

Every patient of a tumour data set has a tumour, and a VAE that must rebuild all of a volume learns
to rebuild tumours, which then leave no residual. Left out of the error, they are rebuilt as what
usually lies there: healthy tissue.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from vaelab.errors import UserError
from vaelab.objective.contract import Step
from vaelab.objective.elbo import compute_elbo


class MaskedELBOLoss(nn.Module):
    """``compute_elbo`` with the squared error of lesion voxels left out.

    The KL is unchanged, and so is the network's input: lesions are seen, and not learned. Sums are
    over the voxels that are left; ``masked_share`` is the sum over samples of the share left out.
    """

    def forward(self, batch: Mapping[str, Any], output: Any, step: Step) -> dict[str, Tensor]:
        """``loss``, ``recon`` and ``kl`` as of ``compute_elbo``, and ``masked_share``.

        Args:
            batch: with ``seg``, (B, 1, D, H, W): a lesion where it is not 0.
            output: of the model.
            step: where in training.

        Raises:
            UserError: for a batch without ``seg``.
        """
        if "seg" not in batch:
            raise UserError(
                "objective=masked_elbo: the batches have no seg; use dataset.with_seg=true, or "
                "objective=elbo"
            )
        x, lesion = batch["image"], batch["seg"] != 0
        # Both 0 there: no error, and no gradient.
        healthy = x.where(~lesion, 0), output.x_hat.where(~lesion, 0)
        sums = compute_elbo(*healthy, output.mu, output.logvar, step.beta)
        return sums | {"masked_share": lesion.flatten(1).float().mean(1).sum()}
