"""``task=decode``: what a run's decoder makes of chosen places in its latent space."""

from __future__ import annotations

import gzip
import json
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import torch
from safetensors.numpy import save
from torch import Tensor

from vaelab.assembly import Run, Task
from vaelab.atomic import replacing
from vaelab.data.identity import digest_of
from vaelab.errors import UserError
from vaelab.evaluation.judge import judge_of
from vaelab.latents.paths import (
    LINEAR,
    SPHERICAL,
    Means,
    Places,
    farthest,
    interpolation,
    prior_samples,
    traversal,
)
from vaelab.latents.table import ABOUT, TABLE, read_latents
from vaelab.models.vae import VAE
from vaelab.report.canvas import save_figure
from vaelab.report.latent_figures import decoded_grid
from vaelab.report.slices import axial

log = logging.getLogger(__name__)

MODES = ("samples", "interpolation", "traversal")


class Decode(Task):
    """Writes pictures, volumes and the z of them into ``decoded/``.

    - ``samples``: z ~ N(0, temperature² I), decoded.
    - ``interpolation``: from mu of one subject to mu of another.
    - ``traversal``: the most active units (variance of mu over the split, Burda et al. 2016,
      section 5.2), one a row, from ``-reach`` to ``+reach`` standard deviations of mu about the
      split's mean, all other units at their mean.

    Each gives ``<mode>.png``: 2D images, or the central axial slice of volumes. Volumes are
    NIfTI too, one file a modality, on the grid that the network works on, its
    centre at 0 mm; grey values are the network's, standard deviations of a series. All z are in
    ``z.safetensors``.

    Args:
        num_samples: draws from the prior; 0 leaves them out.
        temperature: standard deviation of the draws; 1 is the prior, less is more typical.
        seed: of the draws.
        between: ids of two encoded subjects; None takes those of the split that are farthest
            apart.
        path: "linear" in mu, or "spherical" (Shoemake 1985), which keeps the length of z.
        steps: columns of the interpolation and the traversal.
        units: rows of the traversal; 0 leaves it out.
        reach: of the traversal, in standard deviations of mu.
        split: whose subjects the traversal and a ``between`` of None go by.
        modality: shown in the traversal of volumes; None is the first.
        save_volumes: which of the three modes are written as NIfTI too.

    Raises:
        UserError: for a value that cannot work.
    """

    parts = ("dataset", "model", "hardware", "train", "logging")

    def __init__(
        self,
        num_samples: int = 8,
        temperature: float = 1.0,
        seed: int = 0,
        between: Sequence[str] | None = None,
        path: str = LINEAR,
        steps: int = 7,
        units: int = 8,
        reach: float = 3.0,
        split: str = "val",
        modality: str | None = None,
        save_volumes: Sequence[str] = ("samples", "interpolation"),
    ) -> None:
        if num_samples < 0 or units < 0:
            raise UserError(
                f"task.num_samples={num_samples}, task.units={units}: cannot be negative; 0 is off"
            )
        if not temperature > 0 or not reach > 0:
            raise UserError(
                f"task.temperature={temperature}, task.reach={reach}: above 0; try 1 and 3"
            )
        if between is not None and len(between) != 2:
            raise UserError(f"task.between={list(between)}: two ids are needed, as [a,b]")
        if path not in (LINEAR, SPHERICAL):
            raise UserError(f"task.path={path}: one of {LINEAR}, {SPHERICAL}")
        if steps < 2:
            raise UserError(f"task.steps={steps}: at least 2 are needed; try 7")
        unknown = [name for name in save_volumes if name not in MODES]
        if unknown:
            raise UserError(f"task.save_volumes={list(save_volumes)}: some of {', '.join(MODES)}")
        self.num_samples = num_samples
        self.temperature = temperature
        self.seed = seed
        self.between = between
        self.path = path
        self.steps = steps
        self.units = units
        self.reach = reach
        self.split = split
        self.modality = modality
        self.save_volumes = save_volumes

    def __call__(self, run: Run) -> None:
        """Decode all that was asked for."""
        judge = judge_of(run)
        model = judge.model
        channels = list(run.data.channel_names)
        if self.modality is not None and self.modality not in channels:
            raise UserError(f"task.modality={self.modality}: one of {', '.join(channels)}")
        everyone, own, source = _means(run, model, self.split)
        plans = list(self._plans(everyone, own))
        folder = run.folder.decoded
        decoder = _Decoder(model, run, folder, self.modality)
        for plan in plans:
            decoder.draw(plan, save_volumes=plan.name in self.save_volumes)
        about = {
            **source, "seed": self.seed, "temperature": self.temperature,
            "path": self.path, "split": self.split, "reach": self.reach,
            "rows": {plan.name: plan.rows for plan in plans},
            "columns": {plan.name: plan.columns for plan in plans},
        }  # fmt: skip
        with replacing(folder / "z.safetensors") as partial:
            arrays = {plan.name: np.ascontiguousarray(plan.z) for plan in plans}
            partial.write_bytes(save(arrays, {ABOUT: json.dumps(about)}))
        log.info("decoded %s: %s", ", ".join(plan.name for plan in plans), folder)

    def _plans(self, everyone: Means, own: Means) -> Iterator[Places]:
        if self.num_samples:
            z_dim = everyone.mu.shape[1]
            yield prior_samples(self.num_samples, z_dim, self.temperature, self.seed)
        pair = list(self.between) if self.between else farthest(own)
        unknown = [name for name in pair if name not in everyone.ids]
        if unknown:
            raise UserError(
                f"task.between: {', '.join(unknown)} not among the {len(everyone.ids)} encoded "
                "subjects; after task=encode all subjects of the run are, see its splits/"
            )
        if pair:
            places = (everyone.ids.index(name) for name in pair)
            start, end = (Means([everyone.ids[i]], everyone.mu[i : i + 1]) for i in places)
            yield interpolation(start, end, self.steps, self.path)
        if self.units and len(own.ids) > 1:
            yield traversal(own, self.units, self.steps, self.reach, self.split)
        elif self.units:
            log.info("no traversal: the variance of mu needs two subjects in %s", self.split)


class _Decoder:
    """Decodes one z at a time: of a volume only a slice is kept in memory."""

    def __init__(self, model: VAE, run: Run, folder: Path, modality: str | None) -> None:
        self.model = model
        self.device = run.hardware.device
        self.data = run.data
        self.folder = folder
        self.channels = list(run.data.channel_names)
        self.shown = self.channels.index(modality) if modality else 0

    def draw(self, plan: Places, save_volumes: bool) -> None:
        """Write the picture of a plan and, if asked for, its volumes."""
        rows, columns, _ = plan.z.shape
        decoded: list[np.ndarray] = []
        volumes = False
        for place, z in enumerate(plan.z.reshape(rows * columns, -1)):
            x_hat = self._decode(z)  # (C, ...)
            volumes = x_hat.ndim == 4
            if volumes and save_volumes:
                self._save(x_hat, plan.name, place, rows * columns)
            decoded.append(_flat(x_hat))
        pictures = np.stack(decoded)  # (rows · columns, C, H, W)
        pictures = pictures.reshape(rows, columns, *pictures.shape[1:])
        names, title = plan.rows, plan.title
        changes = None
        if rows == 1 and volumes:  # one row of z: there is room for a row of each modality
            pictures, names = pictures[0].swapaxes(0, 1), self.channels
        else:
            title += f", {self.channels[self.shown]}" if len(self.channels) > 1 else ""
            pictures = pictures[:, :, self.shown]
            changes = np.abs(pictures[:, -1] - pictures[:, 0]) if rows > 1 else None
        window = None if volumes else (0.0, 1.0)
        title += "; central axial slice" if volumes else ""
        figure = decoded_grid(pictures, names, plan.columns, title, window, changes)
        save_figure(figure, self.folder / f"{plan.name}.png")

    @torch.inference_mode()
    def _decode(self, z: np.ndarray) -> np.ndarray:
        x_hat: Tensor = self.model.decode(torch.from_numpy(z)[None].to(self.device))
        array: np.ndarray = x_hat[0].float().cpu().numpy()
        return array

    def _save(self, x_hat: np.ndarray, mode: str, place: int, count: int) -> None:
        affine = self.data.affine(x_hat.shape[1:])
        if affine is None:
            raise UserError(
                f"task.save_volumes: the voxels of a {type(self.data).__name__} have no known "
                "size; implement affine, or use []"
            )
        name = f"{mode}-{place:0{len(str(count - 1))}d}"
        for channel, volume in zip(self.channels, x_hat, strict=True):
            image = nibabel.Nifti1Image(volume, affine)
            image.header.set_xyzt_units("mm")
            image.set_sform(affine, code="aligned")
            image.set_qform(affine, code="aligned")
            with replacing(self.folder / mode / name / f"{name}-{channel}.nii.gz") as partial:
                # Without a time inside: equal volumes, equal files.
                partial.write_bytes(gzip.compress(image.to_bytes(), compresslevel=1, mtime=0))


def _flat(x_hat: np.ndarray) -> np.ndarray:
    """(C, H, W): an image as it is, or the central axial slice of a volume, (C, D, H, W)."""
    if x_hat.ndim == 3:
        return x_hat
    return np.stack([axial(volume, volume.shape[2] // 2) for volume in x_hat]).copy()


def _means(run: Run, model: VAE, split: str) -> tuple[Means, Means, dict[str, Any]]:
    """All encoded subjects, those of a split, and what they are of.

    From the table that ``task=encode`` has written if it is of these weights; else the split alone
    is encoded.
    """
    digest = digest_of(run.weights)
    table = run.folder.latents / TABLE
    if table.is_file():
        latents = read_latents(table)
        if latents.about.get("weights_sha256") == digest:
            own = latents.in_split(split)
            about = dict(latents.about)
            return Means(latents.ids, latents.mu), Means(own.ids, own.mu), about
        log.warning("%s is of other weights; %s is encoded anew", table, split)
    run.data.setup("test")
    if split not in run.data.splits:
        raise UserError(f"task.split={split}: one of {', '.join(run.data.splits)}")
    ids: list[str] = []
    parts: list[Tensor] = []
    with torch.inference_mode():
        for batch in run.data.loader(split):
            ids += batch["id"]
            parts.append(model.encode(batch["image"].to(run.hardware.device))[0].cpu())
    means = Means(ids, torch.cat(parts).numpy())
    return means, means, {"run": run.folder.name, "weights_sha256": digest}
