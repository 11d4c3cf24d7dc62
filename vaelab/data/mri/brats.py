"""BraTS-MEN: folders of four co-registered MRI series and a tumour segmentation.

LaBella et al. 2023 (arXiv:2305.07642). Layout: ``<root>/<subject>/<subject>-t1c.nii.gz`` and
so on, where ``BraTS-MEN-00004-000`` and ``-001`` are two time points of patient
``BraTS-MEN-00004``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch.utils.data import Dataset
from tqdm import tqdm

from vaelab.data.build import thread_pool
from vaelab.data.cache import cached_dataset
from vaelab.data.findings import Examination, Finding, Severity, errors
from vaelab.data.index import Record, check_root, enumerate_names
from vaelab.data.module import Phantoms, SplitDataModule
from vaelab.data.volumes.grids import (
    check_grids,
    examine_subject,
    sound_preprocessing,
    volume_keys,
)
from vaelab.data.volumes.index import (
    PATIENT_PATTERN,
    ROOT_HINT,
    index_subjects,
    nothing_found,
    scan_brats,
)
from vaelab.data.volumes.transforms import train_pipeline, val_pipeline
from vaelab.errors import UserError


class BraTSDataModule(SplitDataModule):
    """Loaders of ``{"image", "seg", "id"}`` batches of multi-modal volumes.

    ``image`` is float32 (B, C, D, H, W), ``seg`` uint8 labels (B, 1, D, H, W), ``id`` a list.

    Args:
        root_dir: folder of subjects; with ``phantoms``, the folder to write them under.
        splits_dir, cache_dir, patient_pattern, val_split, seed, batch_size, num_workers,
            cache_rate, phantoms, cache_dtype, progress_bar: see ``SplitDataModule``.
        modalities: channels of ``image``, in order.
        roi_size: (D, H, W) of every sample, in voxels.
        spacing: voxel size in mm.
        orientation: axis codes.
        align_to: modality onto whose grid the others are resampled; None demands one grid.
        with_seg: whether subjects have a segmentation; without, batches have no ``seg``.
        nonzero: take mean and deviation of a volume from voxels that are not 0, which stay 0.
        skip_incomplete: leave incomplete subjects out instead of raising.

    Raises:
        UserError: for a value that cannot work, before any data is read.
    """

    def __init__(
        self,
        root_dir: str | None,
        splits_dir: str,
        cache_dir: str,
        modalities: Sequence[str] = ("t1c", "t1n", "t2f", "t2w"),
        roi_size: Sequence[int] = (128, 128, 128),
        spacing: Sequence[float] = (1.0, 1.0, 1.0),
        orientation: str = "RAS",
        align_to: str | None = None,
        with_seg: bool = True,
        skip_incomplete: bool = False,
        patient_pattern: str = PATIENT_PATTERN,
        val_split: float = 0.1,
        seed: int = 42,
        batch_size: int = 2,
        num_workers: int = 0,
        cache_rate: float = 1.0,
        phantoms: Phantoms | None = None,
        cache_dtype: str = "float32",
        progress_bar: bool = True,
        nonzero: bool = False,
    ) -> None:
        super().__init__(
            root_dir, splits_dir, cache_dir, patient_pattern, val_split, seed,
            batch_size, num_workers, cache_rate, phantoms,
            cache_dtype=cache_dtype, progress_bar=progress_bar,
        )  # fmt: skip
        _check_geometry(modalities, roi_size, spacing, orientation, align_to)
        self.channel_names = list(modalities)
        self.skip_incomplete = skip_incomplete
        self.settings: dict[str, Any] = {
            "modalities": list(modalities),
            "roi_size": list(roi_size),
            "spacing": list(spacing),
            "orientation": orientation,
            "align_to": align_to,
            "with_seg": with_seg,
            "nonzero": nonzero,
        }

    def scan(self, root_dir: str | Path | None) -> list[Record]:
        """Index the subjects and make sure that each one's series share a grid."""
        records = scan_brats(
            root_dir,
            self.settings["modalities"],
            self.settings["with_seg"],
            self.skip_incomplete,
            self.patient_pattern,
        )
        check_grids(records, self.settings)
        return records

    def inventory(self, root_dir: str | Path | None) -> tuple[list[Record], list[Finding]]:
        """Every subject, complete or not, and what stands in the way of training on it."""
        root = check_root(root_dir, ROOT_HINT)
        keys = volume_keys(self.settings)
        subjects = index_subjects(root, keys, self.patient_pattern)
        severity: Severity = "warning" if self.skip_incomplete else "error"
        cure = "complete it, or leave it out with dataset.skip_incomplete=true"
        findings = [
            Finding(severity, record["id"], "an incomplete subject", cure, f"no {missing}")
            for record, missing in subjects.incomplete
        ]
        what, cure = "an ambiguous subject", "keep one file for each modality"
        findings += [
            Finding("error", record["id"], what, cure, f"more than one file for {names}")
            for record, names in subjects.ambiguous
        ]
        what, cure = "a link that leads nowhere", "fetch what it points to or remove it"
        findings += [Finding("error", name, what, cure) for name in subjects.lost]
        partial = [record for record, _ in subjects.incomplete + subjects.ambiguous]
        records = sorted(subjects.complete + partial, key=lambda record: str(record["id"]))
        if not records:
            what, cure = "no subject found", "point dataset.root_dir at the folder of subjects"
            findings.append(Finding("error", str(root), what, cure, nothing_found(root, keys)))
        return records, findings

    def examine(self, record: Record) -> Examination:
        """Header and voxels of every file of a subject, and whether they share a grid."""
        return examine_subject(record, self.settings)

    def setup(self, stage: str | None = None) -> None:
        """Scan and split; before training look at the subjects that no cache will decode first.

        Raises:
            UserError: listing every one of those that is damaged.
        """
        super().setup(stage)
        if stage != "fit" or self.cache_rate == 1:
            return
        parts = (self.splits[name] for name in ("train", "val"))
        records = [r for part in parts for r in part[round(self.cache_rate * len(part)) :]]
        problems: list[Finding] = []
        with thread_pool() as pool:
            for one in tqdm(
                pool.map(self.examine, records), "examining", len(records), unit="subject",
                leave=False, disable=not self.progress_bar,
            ):  # fmt: skip
                problems += errors(one.findings)
        if problems:
            raise UserError(f"{len(problems)} files cannot be read:{enumerate_names(problems)}")

    def dataset(self, split: str) -> Dataset[Any]:
        """The subjects of one split behind the cache; only "train" has random transforms."""
        deterministic = sound_preprocessing(self.settings)
        with_seg = self.settings["with_seg"]
        pipeline = (
            train_pipeline(deterministic, self.settings["roi_size"], with_seg)
            if split == "train"
            else val_pipeline(deterministic, with_seg)
        )
        records = [
            {key: value for key, value in record.items() if key != "patient"}
            for record in self.splits[split]
        ]
        voxels = math.prod(self.settings["roi_size"])
        return cached_dataset(
            records, pipeline, self.settings, self.cache_dir, self.cache_rate, self.cache_dtype,
            values=voxels * len(self.channel_names), labels=voxels if with_seg else 0,
        )  # fmt: skip


def _check_geometry(
    modalities: Sequence[str],
    roi_size: Sequence[int],
    spacing: Sequence[float],
    orientation: str,
    align_to: str | None,
) -> None:
    if not modalities or len(set(modalities)) < len(modalities):
        raise UserError(
            f"dataset.modalities={list(modalities)}: different names are needed; "
            "try [t1c,t1n,t2f,t2w]"
        )
    if len(roi_size) != 3 or not all(side > 0 for side in roi_size):
        raise UserError(
            f"dataset.roi_size={list(roi_size)}: three sides in voxels are needed; "
            "try [128,128,128]"
        )
    if len(spacing) != 3 or not all(0 < size < math.inf for size in spacing):
        raise UserError(
            f"dataset.spacing={list(spacing)}: three sizes in mm above 0 are needed; try [1,1,1]"
        )
    axes = sorted({"L": "R", "P": "A", "I": "S"}.get(code, code) for code in orientation)
    if axes != ["A", "R", "S"]:
        raise UserError(
            f"dataset.orientation={orientation}: three axis codes, one each of L/R, P/A and I/S, "
            "are needed; try RAS"
        )
    if align_to is not None and align_to not in modalities:
        raise UserError(
            f"dataset.align_to={align_to}: must be one of dataset.modalities={list(modalities)}"
        )
