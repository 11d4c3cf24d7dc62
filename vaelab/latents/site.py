"""Exported latents without what the site of a scan explains."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from vaelab.data.index import enumerate_names
from vaelab.errors import UserError
from vaelab.latents.table import Latents
from vaelab.metrics.harmonise import combat, site_accuracy

log = logging.getLogger(__name__)


def without_site(latents: Latents, site_of: Mapping[str, str], column: str) -> Latents:
    """The latents with ComBat's model of the site taken out of mu and logvar.

    It is fitted on all rows. ``recon`` and ``kl`` stay what the network said, and the network
    cannot decode such a mu. ``about`` says of which column, and how well the site could be told
    from mu before and after: balanced accuracy across patients, beside chance.

    Args:
        latents: of at least two units.
        site_of: id → site.
        column: that the sites are from, for messages.

    Raises:
        UserError: for a sample without a site, a single site, or one of a single sample.
    """
    key = f"task.remove_site={column}"
    unknown = [name for name in latents.ids if name not in site_of]
    if unknown:
        raise UserError(f"{key}: not known of {len(unknown)} samples:{enumerate_names(unknown)}")
    sites = [site_of[name] for name in latents.ids]
    counts = Counter(sites)
    if len(counts) < 2 or min(counts.values()) < 2:
        raise UserError(
            f"{key}: two sites of two samples each are needed at least; there are {dict(counts)}"
        )
    mu = latents.mu.astype(np.float64)
    harmonised = combat(mu, sites)
    before, after = (
        site_accuracy(values, sites, latents.patients) for values in (mu, harmonised.values)
    )
    log.info(
        "%s told from mu with balanced accuracy %.2f before its removal, %.2f after; chance is "
        "%.2f", column, before, after, 1 / len(counts),
    )  # fmt: skip
    told = {"column": column, "before": before, "after": after, "chance": 1 / len(counts)}
    return replace(
        latents,
        mu=harmonised.values.astype(np.float32),
        logvar=(latents.logvar + 2 * np.log(harmonised.scale)).astype(np.float32),
        about={**latents.about, "removed_site": told},
    )
