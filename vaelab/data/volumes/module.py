"""Loaders of volumes: a folder for each record, with a file for each series and its segmentation.

To add a dataset of this kind, subclass ``VolumeDataModule`` and say what differs: how the files are
called, and in a subclass of ``VolumeSettings`` what becomes of intensities.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from vaelab.data.build import thread_pool
from vaelab.data.cache import cached_dataset
from vaelab.data.contract import SEGMENTED, Covariate, InputSample, Paint
from vaelab.data.findings import Examination, Finding, Severity, errors
from vaelab.data.index import Record, check_root, enumerate_names
from vaelab.data.inputs import Input
from vaelab.data.module import Phantoms, SplitDataModule
from vaelab.data.patients import doubts
from vaelab.data.volumes.grids import check_grids, examine_record, sound_preprocessing
from vaelab.data.volumes.index import (
    ROOT_HINT,
    find_records,
    nothing_found,
    usable_records,
)
from vaelab.data.volumes.inputs import find_volumes, read_volume
from vaelab.data.volumes.layouts import advice, series_by_name
from vaelab.data.volumes.native import save_native
from vaelab.data.volumes.settings import CROP_CENTRE, VolumeSettings
from vaelab.data.volumes.transforms import plain_pipeline, train_pipeline, val_pipeline
from vaelab.errors import UserError
from vaelab.progress import progress

if TYPE_CHECKING:
    from typing_extensions import Self


@runtime_checkable
class ScalablePhantoms(Phantoms, Protocol):
    """Phantoms of which there can be as many as asked."""

    def with_patients(self, count: int) -> ScalablePhantoms:
        """As many patients, of one small record each."""
        ...


class VolumeDataModule(SplitDataModule):
    """Loaders of ``{"image", "seg", "id"}`` batches of volumes of one or several series.

    ``image`` is float32 (B, C, D, H, W), ``seg`` uint8 labels (B, 1, D, H, W), ``id`` a list.

    Args:
        root_dir: folder of one folder per record; with ``phantoms``, the folder to write under.
        splits_dir, cache_dir, patient_pattern, val_split, seed, batch_size, num_workers,
            cache_rate, phantoms, cache_dtype, progress_bar: see ``SplitDataModule``.
        modalities: channels of ``image``, in order; None takes ``usual_modalities``.
        roi_size, spacing, orientation, align_to, with_seg, nonzero, crop: see
            ``VolumeSettings``.
        skip_incomplete: leave incomplete records out instead of raising.
        files: key → pattern of the file's name without its suffix, as in a shell; None, or a key
            that is not in it: ``series_name``.
        label_map: label in a file → label in ``seg``; others stay.

    Raises:
        UserError: for a value that cannot work, before any data is read.
    """

    settings_type: ClassVar[type[VolumeSettings]] = VolumeSettings
    usual_modalities: ClassVar[Sequence[str]] = ()
    series_name: ClassVar[str] = "*-{key}.nii.gz"
    """Of a series in the folder of its record, as in a shell."""
    ids_carry_time_points = True

    def __init__(
        self,
        root_dir: str | None,
        splits_dir: str,
        cache_dir: str,
        modalities: Sequence[str] | None = None,
        roi_size: Sequence[int] = (128, 128, 128),
        spacing: Sequence[float] = (1.0, 1.0, 1.0),
        orientation: str = "RAS",
        align_to: str | None = None,
        with_seg: bool = True,
        skip_incomplete: bool = False,
        patient_pattern: str | None = None,
        val_split: float = 0.1,
        seed: int = 42,
        batch_size: int = 2,
        num_workers: int = 0,
        cache_rate: float = 1.0,
        phantoms: Phantoms | None = None,
        cache_dtype: str = "float32",
        progress_bar: bool = True,
        nonzero: bool = False,
        crop: str = CROP_CENTRE,
        files: Mapping[str, str] | None = None,
        label_map: Mapping[int, int] | None = None,
    ) -> None:
        super().__init__(
            root_dir, splits_dir, cache_dir, patient_pattern, val_split, seed,
            batch_size, num_workers, cache_rate, phantoms,
            cache_dtype=cache_dtype, progress_bar=progress_bar,
        )  # fmt: skip
        self.settings = self.settings_type(
            tuple(self.usual_modalities if modalities is None else modalities),
            tuple(roi_size), tuple(spacing), orientation, align_to, with_seg, nonzero, crop,
            label_map=tuple((label_map or {}).items()),
        )  # fmt: skip
        self.channel_names = list(self.settings.modalities)
        self.skip_incomplete = skip_incomplete
        self.files = dict(files or {})
        unknown = self.files.keys() - {*self.settings.modalities, "seg"}
        if unknown:
            raise UserError(
                f"dataset.files: {', '.join(sorted(unknown))} is none of dataset.modalities="
                f"{list(self.settings.modalities)} and seg"
            )

    def find_series(self, folder: Path) -> dict[str, list[Path]]:
        """Key → files in the folder of a record that may be this series; one is wanted."""
        return series_by_name(folder, self.series_name, self.settings.keys, self.files)

    def _expected(self, keys: Sequence[str]) -> str:
        return ", ".join(self.files.get(key) or self.series_name.format(key=key) for key in keys)

    # ------------------------------------------------------------- splits and loaders

    def scan(self, root_dir: str | Path | None) -> list[Record]:
        """Index the records and make sure that each one's series share a grid."""
        records = usable_records(
            root_dir,
            self.find_series,
            self.patient_pattern,
            self.skip_incomplete,
            self._expected(self.settings.keys),
        )
        check_grids(records, self.settings)
        return records

    def inventory(self, root_dir: str | Path | None) -> tuple[list[Record], list[Finding]]:
        """Every record, complete or not, and what stands in the way of training on it."""
        root = check_root(root_dir, ROOT_HINT)
        there = find_records(root, self.find_series, self.patient_pattern)
        severity: Severity = "warning" if self.skip_incomplete else "error"
        cure = "complete it, or leave it out with dataset.skip_incomplete=true"
        findings = [
            Finding(severity, record["id"], "an incomplete subject", cure, f"no {missing}")
            for record, missing in there.incomplete
        ]
        what, cure = "an ambiguous subject", "keep one file for each modality"
        findings += [
            Finding("error", record["id"], what, cure, f"more than one file for {names}")
            for record, names in there.ambiguous
        ]
        what, cure = "a link that leads nowhere", "fetch what it points to or remove it"
        findings += [Finding("error", name, what, cure) for name in there.lost]
        findings += doubts([r["id"] for r in there.complete], self.patient_pattern)
        partial_records = [record for record, _ in there.incomplete + there.ambiguous]
        records = sorted(there.complete + partial_records, key=lambda record: str(record["id"]))
        if not records:
            what, cure = "no subject found", "point dataset.root_dir at the folder of subjects"
            reason = nothing_found(root, self._expected(self.settings.keys))
            reason += advice(root, self.find_series, self.settings.keys)
            findings.append(Finding("error", str(root), what, cure, reason))
        return records, findings

    def examine(self, record: Record) -> Examination:
        """Header and voxels of every file of a record, and whether they share a grid."""
        return examine_record(record, self.settings)

    def setup(self, stage: str | None = None) -> None:
        """Scan and split; before training look at the records that no cache will decode first.

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
            for one in progress(
                pool.map(self.examine, records), "examining", len(records), unit="subject",
                shown=self.progress_bar,
            ):  # fmt: skip
                problems += errors(one.findings)
        if problems:
            raise UserError(f"{len(problems)} files cannot be read:{enumerate_names(problems)}")

    def dataset(self, split: str) -> Dataset[Any]:
        """The records of one split behind the cache; only "train" has random transforms."""
        deterministic = sound_preprocessing(self.settings)
        with_seg, roi_size = self.settings.with_seg, self.settings.roi_size
        pipeline = (
            train_pipeline(deterministic, roi_size, with_seg)
            if split == "train"
            else val_pipeline(deterministic, with_seg)
        )
        records = [
            {key: value for key, value in record.items() if key != "patient"}
            for record in self.splits[split]
        ]
        voxels = math.prod(roi_size)
        return cached_dataset(
            records, pipeline, self.sample_settings(), self.cache_dir, self.cache_rate,
            self.cache_dtype,
            values=voxels * len(self.channel_names), labels=voxels if with_seg else 0,
        )  # fmt: skip

    # ------------------------------------------------------------- what tasks ask

    def sample_settings(self) -> dict[str, Any]:
        """The settings of preprocessing."""
        return self.settings.as_dict()

    @property
    def spacing(self) -> tuple[float, ...]:
        """Size of a voxel in mm, for each axis."""
        return self.settings.spacing

    def affine(self, shape: Sequence[int]) -> NDArray[np.float64]:
        """Voxel indices of a sample → mm, its centre at 0: (4, 4)."""
        return self.settings.affine(tuple(shape))

    @property
    def covariates(self) -> Mapping[str, Covariate]:
        """The segmented volume, where there are segmentations."""
        if not self.settings.with_seg:
            return {}
        return {SEGMENTED: partial(_segmented, math.prod(self.settings.spacing))}

    def find_inputs(self, inputs: str | Sequence[str], output_dir: Path) -> list[Input]:
        """Folders with a series, named as those of the run."""
        keys = self.settings.modalities
        return find_volumes(inputs, self.find_series, keys, self._expected(keys), output_dir)

    def read_input(self, path: Path) -> InputSample:
        """A folder of series, without a segmentation."""
        return read_volume(path, self.find_series, self.settings)

    def save_map(self, heatmap: Tensor, sample: InputSample, stem: Path, paint: Paint) -> None:
        """Write ``<stem>/<name>_anomaly.nii.gz``, on the grid of the original."""
        assert sample.affine is not None
        path = stem / f"{stem.name}_anomaly.nii.gz"
        save_native(heatmap.numpy(), sample.affine, sample.original, path)

    def with_patients(self, count: int) -> Self:
        """A copy, not set up, of as many synthetic patients."""
        if not isinstance(self.phantoms, ScalablePhantoms):
            return super().with_patients(count)
        fresh = copy.copy(self)
        fresh.phantoms = self.phantoms.with_patients(count)
        fresh.splits = {}
        fresh.forget()
        return fresh

    def with_side(self, side: int) -> Self:
        """A copy whose samples are cubes of ``side`` voxels, of the same field of view."""
        sizes = zip(self.settings.roi_size, self.settings.spacing, strict=True)
        spacing = tuple(n * size / side for n, size in sizes)
        fresh = copy.copy(self)
        fresh.settings = replace(self.settings, roi_size=(side,) * 3, spacing=spacing)
        return fresh

    def plain_pipeline(self) -> Callable[[dict[str, Any]], Any]:
        """What one would write with MONAI alone."""
        return plain_pipeline(self.settings)


def _segmented(voxel_mm3: float, sample: Mapping[str, Any]) -> float:
    return float((sample["seg"] > 0).sum()) * voxel_mm3
