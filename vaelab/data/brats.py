"""BraTS-MEN: folders of four co-registered MRI series and a tumour segmentation.

LaBella et al. 2023 (arXiv:2305.07642). Layout: ``<root>/<subject>/<subject>-t1c.nii.gz`` and
so on, where ``BraTS-MEN-00004-000`` and ``-001`` are two time points of patient
``BraTS-MEN-00004``.
"""

from __future__ import annotations

import logging
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
from torch.utils.data import Dataset

from vaelab.data.cache import cached_dataset
from vaelab.data.index import Record, check_root, enumerate_names, patient_of
from vaelab.data.module import Phantoms, SplitDataModule
from vaelab.data.transforms import CheckSameGridd, preprocessing, train_pipeline, val_pipeline
from vaelab.errors import UserError

log = logging.getLogger(__name__)

PATIENT_PATTERN = r"^(.+)-\d+$"
# What nibabel raises for a file that is cut off, damaged or no NIfTI at all.
UNREADABLE = (
    OSError,
    EOFError,
    ValueError,
    zlib.error,
    nibabel.filebasedimages.ImageFileError,
    nibabel.spatialimages.HeaderDataError,
)


def scan_brats(
    root_dir: str | Path | None,
    modalities: Sequence[str],
    with_seg: bool = True,
    skip_incomplete: bool = False,
    patient_pattern: str = PATIENT_PATTERN,
) -> list[Record]:
    """Index every subject folder under ``root_dir``, ordered by id.

    Args:
        root_dir: folder that holds one folder per subject.
        modalities: endings to look for, as in ``*-t1c.nii.gz``.
        with_seg: whether a ``*-seg.nii.gz`` is needed too.
        skip_incomplete: leave incomplete subjects out, with a warning that names them.
        patient_pattern: regular expression whose group 1 is the patient in a subject's name.

    Returns:
        One record per subject: a path for each modality, ``seg`` if asked for, ``id``, ``patient``.

    Raises:
        UserError: for a root that holds nothing, or listing every incomplete or ambiguous subject.
    """
    root = check_root(
        root_dir, "a folder with one folder per subject is needed, e.g. BraTS-MEN-Train"
    )
    keys = [*modalities, "seg"] if with_seg else [*modalities]
    records: list[Record] = []
    incomplete: list[str] = []
    ambiguous: list[str] = []
    for folder in sorted(path for path in root.glob("[!.]*") if path.is_dir()):  # none hidden
        found = {key: sorted(folder.glob(f"[!.]*-{key}.nii.gz")) for key in keys}
        missing = [key for key, paths in found.items() if not paths]
        twice = [key for key, paths in found.items() if len(paths) > 1]
        if twice:
            names = ", ".join(path.name for key in twice for path in found[key])
            ambiguous.append(f"{folder.name}: more than one file for {', '.join(twice)} ({names})")
        elif missing:
            incomplete.append(f"{folder.name}: no {', '.join(missing)}")
        else:
            record: Record = {
                "id": folder.name,
                "patient": patient_of(folder.name, patient_pattern),
            }
            records.append(record | {key: str(paths[0]) for key, paths in found.items()})
    if ambiguous:
        raise UserError(
            f"dataset.root_dir={root}: {len(ambiguous)} subjects are ambiguous; keep one file for "
            f"each modality:{enumerate_names(ambiguous)}"
        )
    if incomplete and not skip_incomplete:
        seg_only = with_seg and all(line.endswith(": no seg") for line in incomplete)
        without = " (or dataset.with_seg=false, for data that has none)" if seg_only else ""
        raise UserError(
            f"dataset.root_dir={root}: {len(incomplete)} subjects are incomplete; complete them or "
            f"leave them out with dataset.skip_incomplete=true{without}:"
            f"{enumerate_names(incomplete)}"
        )
    if incomplete:
        log.warning(
            "%d incomplete subjects left out:%s", len(incomplete), enumerate_names(incomplete)
        )
    if not records:
        raise UserError(
            f"dataset.root_dir={root}: no subject found; expected folders with files named "
            + ", ".join(f"*-{key}.nii.gz" for key in keys)
        )
    return records


class BraTSDataModule(SplitDataModule):
    """Loaders of ``{"image", "seg", "id"}`` batches of multi-modal volumes.

    ``image`` is float32 (B, C, D, H, W), ``seg`` uint8 labels (B, 1, D, H, W), ``id`` a list.

    Args:
        root_dir: folder of subjects; with ``phantoms``, the folder to write them under.
        splits_dir, cache_dir, patient_pattern, val_split, seed, batch_size, num_workers,
            cache_rate, phantoms: see ``SplitDataModule``.
        modalities: channels of ``image``, in order.
        roi_size: (D, H, W) of every sample, in voxels.
        spacing: voxel size in mm.
        orientation: axis codes.
        align_to: modality onto whose grid the others are resampled; None demands one grid.
        with_seg: whether subjects have a segmentation; without, batches have no ``seg``.
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
    ) -> None:
        super().__init__(
            root_dir, splits_dir, cache_dir, patient_pattern, val_split, seed,
            batch_size, num_workers, cache_rate, phantoms,
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

    def dataset(self, split: str) -> Dataset[Any]:
        """The subjects of one split behind the cache; only "train" has random transforms."""
        deterministic = preprocessing(**self.settings)
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
        return cached_dataset(records, pipeline, self.settings, self.cache_dir, self.cache_rate)


def check_grids(records: Sequence[Record], settings: Mapping[str, Any]) -> None:
    """Find subjects whose series do not share a grid, before any time is spent on training.

    Only headers are read; a subject whose headers differ is spaced as training would, since
    different headers may still end on one grid.

    Raises:
        UserError: listing every subject that needs ``align_to``, or whose header is unreadable.
    """
    problems: list[str] = []
    keys = [*settings["modalities"], *(["seg"] if settings["with_seg"] else [])]
    steps = preprocessing(**settings)
    last = next(i for i, step in enumerate(steps) if isinstance(step, CheckSameGridd))
    for record in records:
        try:
            headers = {key: read_grid(record[key]) for key in keys}
        except UserError as error:
            problems.append(str(error))
            continue
        reference = headers[keys[0]]
        if settings["align_to"] or all(_equal(header, reference) for header in headers.values()):
            continue
        item: Any = dict(record)
        try:
            for step in steps[: last + 1]:
                item = step(item)
        except UserError as error:
            problems.append(str(error))
    if problems:
        raise UserError(f"{len(problems)} subjects cannot be read:{enumerate_names(problems)}")


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
    if len(spacing) != 3 or not all(size > 0 for size in spacing):
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


def read_grid(path: str) -> tuple[tuple[int, ...], np.ndarray]:
    """Shape and affine from a NIfTI header, without reading its voxels."""
    try:
        image = nibabel.load(path)
    except UNREADABLE as error:
        raise UserError(f"{path}: not a readable NIfTI file ({error})") from error
    assert isinstance(image, nibabel.spatialimages.SpatialImage)
    if len(image.shape) != 3:
        raise UserError(f"{path}: a volume with 3 axes is needed, this has shape {image.shape}")
    assert image.affine is not None
    return image.shape, image.affine


def _equal(
    one: tuple[tuple[int, ...], np.ndarray], other: tuple[tuple[int, ...], np.ndarray]
) -> bool:
    return one[0] == other[0] and bool(np.allclose(one[1], other[1], atol=1e-3))
