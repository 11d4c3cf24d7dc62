"""Pictures of latent means, coloured by covariates."""

from __future__ import annotations

import importlib.util
import logging
import warnings
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from vaelab.data.contract import LABEL, SEGMENTED
from vaelab.errors import UserError
from vaelab.latents.table import Latents
from vaelab.report.canvas import save_figure
from vaelab.report.latent_figures import (
    Coloring,
    Embedding,
    embedding_figure,
    principal_components,
    trajectory_figure,
)

log = logging.getLogger(__name__)

TUMOUR = "tumour_volume_mm3"
USUAL = (TUMOUR, SEGMENTED, LABEL)
"""The first of these that is known is what pictures are coloured by."""
UNITS = {"_mm3": " (mm³)", "_mm": " (mm)"}
FEWEST_FOR_UMAP = 10
NEIGHBOURS = 15  # umap-learn's own default


def choose_colors(color_by: Sequence[str] | None, known: Sequence[str]) -> list[str]:
    """The columns to colour by.

    Raises:
        UserError: when a column is not known.
    """
    if color_by is None:
        return [name for name in USUAL if name in known][:1]
    unknown = [name for name in color_by if name not in known]
    if unknown:
        raise UserError(
            f"task.color_by: no column of numbers {', '.join(unknown)}; there are {sorted(known)}"
        )
    return list(color_by)


def draw_latents(latents: Latents, color_by: Sequence[str], folder: Path, umap: bool) -> None:
    """Write ``latent_pca.png``, ``latent_trajectories.png`` and ``latent_umap.png``.

    Trajectories need a patient with several time points; UMAP needs umap-learn and ten subjects.
    """
    if len(latents) < 3:
        log.info("%d subjects are too few for a picture of the latent space", len(latents))
        return
    colorings = [Coloring("split", np.array(latents.splits))]
    if len(set(latents.time_points.tolist())) > 1:
        colorings.append(Coloring("time point", latents.time_points))
    colorings += [Coloring(_shown(name), _values(latents, name)) for name in color_by]
    size = f"{len(latents):,} subjects, {latents.mu.shape[1]} units"
    plane = principal_components(latents.mu)
    title = f"Principal components of the latent means: {size}"
    save_figure(embedding_figure(plane, colorings, title), folder / "latent_pca.png")
    visits: dict[str, list[int]] = defaultdict(list)
    for place in np.lexsort((np.array(latents.ids), latents.time_points)).tolist():
        visits[latents.patients[place]].append(place)
    moving = [own for own in visits.values() if len(set(latents.time_points[own].tolist())) > 1]
    if moving:
        title = f"{len(moving)} patients from one time point to the next"
        save_figure(trajectory_figure(plane, moving, title), folder / "latent_trajectories.png")
    if umap and importlib.util.find_spec("umap") is None:
        log.info("no UMAP: umap-learn is not installed; pip install -e '.[umap]'")
    elif umap and len(latents) >= FEWEST_FOR_UMAP:
        title = f"UMAP of the latent means: {size}"
        picture = embedding_figure(umap_of(latents.mu), colorings, title)
        save_figure(picture, folder / "latent_umap.png")
    log.info("pictures of the latent space in %s", folder)


def umap_of(mu: np.ndarray, seed: int = 0) -> Embedding:
    """UMAP of posterior means, (N, z) → (N, 2), the same on every call.

    McInnes et al. 2018 (arXiv:1802.03426). Distances between far points mean little in it.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecations of what umap-learn itself calls
        from umap import UMAP  # ten seconds, which only this picture should cost

        # A seed makes it single-threaded, which it warns of unless n_jobs is 1.
        reducer = UMAP(
            n_neighbors=min(NEIGHBOURS, len(mu) - 1), init="pca", random_state=seed, n_jobs=1
        )
        points = np.asarray(reducer.fit_transform(mu), dtype=np.float64)
    return Embedding(points, ("UMAP 1", "UMAP 2"))


def _values(latents: Latents, name: str) -> np.ndarray:
    values = latents.covariates[name]
    return np.where(values > 0, "sick", "normal") if name == LABEL else values


def _shown(name: str) -> str:
    """``tumour_volume_mm3`` → ``tumour volume (mm³)``."""
    for suffix, unit in UNITS.items():
        if name.endswith(suffix):
            return name.removesuffix(suffix).replace("_", " ") + unit
    return name.replace("_", " ")
