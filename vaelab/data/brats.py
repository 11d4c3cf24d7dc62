"""BraTS-MEN: folders of four co-registered MRI series and a tumour segmentation.

LaBella et al. 2023 (arXiv:2305.07642). Layout: ``<root>/<subject>/<subject>-t1c.nii.gz`` and
so on, where ``BraTS-MEN-00004-000`` and ``-001`` are two time points of patient
``BraTS-MEN-00004``.
"""

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from torch.utils.data import Dataset
from tqdm import tqdm

from vaelab.data.build import available_cores
from vaelab.data.cache import cached_dataset
from vaelab.data.findings import Examination, Finding, Severity, errors
from vaelab.data.index import Record, check_root, enumerate_names, patient_of
from vaelab.data.module import Phantoms, SplitDataModule
from vaelab.data.transforms import CheckSameGridd, preprocessing, train_pipeline, val_pipeline
from vaelab.data.volume_checks import (
    Grid,
    LoadSoundVolumesd,
    examine_header,
    examine_volume,
    grid_of,
)
from vaelab.errors import UserError

log = logging.getLogger(__name__)

PATIENT_PATTERN = r"^(.+)-\d+$"
ROOT_HINT = "a folder with one folder per subject is needed, e.g. BraTS-MEN-Train"


class Subjects(NamedTuple):
    """What the folders under a root hold."""

    complete: list[Record]
    incomplete: list[tuple[Record, str]]
    """Records of the files that are there, and the keys that are not."""
    ambiguous: list[tuple[Record, str]]
    """Records of the files that are clear, and what is there twice."""
    lost: list[str]
    """Names of links that lead nowhere."""


def find_subjects(root: Path, keys: Sequence[str], patient_pattern: str) -> Subjects:
    """Look into every folder of ``root``, hidden ones apart, ordered by id."""
    subjects = Subjects([], [], [], [])
    for folder in sorted(root.glob("[!.]*")):
        if folder.is_symlink() and not folder.exists():
            subjects.lost.append(folder.name)
        if not folder.is_dir():
            continue
        there = sorted(folder.glob("[!.]*.nii.gz"))
        found = {key: [p for p in there if p.name[1:].endswith(f"-{key}.nii.gz")] for key in keys}
        missing = [key for key, paths in found.items() if not paths]
        twice = [key for key, paths in found.items() if len(paths) > 1]
        record: Record = {"id": folder.name, "patient": patient_of(folder.name, patient_pattern)}
        record |= {key: str(paths[0]) for key, paths in found.items() if len(paths) == 1}
        if twice:
            names = ", ".join(path.name for key in twice for path in found[key])
            subjects.ambiguous.append((record, f"{', '.join(twice)} ({names})"))
        elif missing:
            subjects.incomplete.append((record, ", ".join(missing)))
        else:
            subjects.complete.append(record)
    return subjects


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
    root = check_root(root_dir, ROOT_HINT)
    keys = [*modalities, "seg"] if with_seg else [*modalities]
    subjects = find_subjects(root, keys, patient_pattern)
    if subjects.ambiguous:
        lines = [f"{record['id']}: more than one file for {what}" for record, what in subjects[2]]
        raise UserError(
            f"dataset.root_dir={root}: {len(lines)} subjects are ambiguous; keep one file for "
            f"each modality:{enumerate_names(lines)}"
        )
    if subjects.lost:
        raise UserError(
            f"dataset.root_dir={root}: {len(subjects.lost)} subjects are links that lead nowhere; "
            f"fetch what they point to or remove them:{enumerate_names(subjects.lost)}"
        )
    incomplete = [f"{record['id']}: no {missing}" for record, missing in subjects.incomplete]
    if incomplete and not skip_incomplete:
        seg_only = with_seg and all(missing == "seg" for _, missing in subjects.incomplete)
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
    if not subjects.complete:
        raise UserError(_nothing_found(root, keys))
    return subjects.complete


def _nothing_found(root: Path, keys: Sequence[str]) -> str:
    return f"dataset.root_dir={root}: no subject found; expected folders with files named " + (
        ", ".join(f"*-{key}.nii.gz" for key in keys)
    )


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
        subjects = find_subjects(root, keys, self.patient_pattern)
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
            findings.append(Finding("error", str(root), what, cure, _nothing_found(root, keys)))
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
        with ThreadPoolExecutor(available_cores()) as pool:
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


def volume_keys(settings: Mapping[str, Any]) -> list[str]:
    """Keys of a record's files: the modalities and, if there is one, the segmentation."""
    return [*settings["modalities"], *(["seg"] if settings["with_seg"] else [])]


def sound_preprocessing(settings: Mapping[str, Any]) -> list[Any]:
    """``preprocessing`` that refuses, by name, a file that is damaged or holds no usable values."""
    load, *steps = preprocessing(**settings)
    return [LoadSoundVolumesd(load, volume_keys(settings)), *steps]


def check_grids(records: Sequence[Record], settings: Mapping[str, Any]) -> None:
    """Find subjects whose series do not share a grid, before any time is spent on training.

    Only headers are read; a subject whose headers differ is spaced as training would, since
    different headers may still end on one grid. What else is odd about headers is a warning.

    Raises:
        UserError: listing every subject that needs ``align_to``, or whose header is unreadable.
    """
    problems: list[str] = []
    refused = 0
    odd: list[Finding] = []
    for record in records:
        grids: dict[str, Grid] = {}
        broken = False
        for key in volume_keys(settings):
            image, findings = examine_header(record[key])
            problems += [str(finding) for finding in errors(findings)]
            odd += [finding for finding in findings if finding.severity == "warning"]
            if errors(findings):
                broken = True
            else:
                grids[key] = grid_of(image)
        problem = None if broken else grid_problem(record, grids, settings)
        if problem:
            problems.append(problem)
        refused += broken or problem is not None
    if problems:
        raise UserError(f"{refused} subjects cannot be read:{enumerate_names(problems)}")
    if odd:
        kinds = Counter(finding.what for finding in odd)
        lines = [
            f"{what}: {count} files, such as {_first(odd, what)}" for what, count in kinds.items()
        ]
        log.warning("odd headers; task=check_data lists all of them:%s", enumerate_names(lines))


def grid_problem(
    record: Record, grids: Mapping[str, Grid], settings: Mapping[str, Any]
) -> str | None:
    """Why the files of a subject do not end on one grid, or None if they do."""
    reference = next(iter(grids.values()))
    if settings["align_to"] or all(_equal(grid, reference) for grid in grids.values()):
        return None
    item: Any = dict(record)
    try:
        for step in sound_preprocessing(settings):
            item = step(item)
            if isinstance(step, CheckSameGridd):
                break
    except UserError as error:
        return str(error)
    return None


def examine_subject(record: Record, settings: Mapping[str, Any]) -> Examination:
    """All that the files of a subject say; an incomplete one is examined as far as it goes.

    Facts are ``shape``, ``spacing [mm]`` and ``orientation`` of the first file, the range of each
    series and the volume of each label.
    """
    findings: list[Finding] = []
    facts: dict[str, str | float] = {}
    contents: dict[str, str] = {}
    grids: dict[str, Grid] = {}
    keys = volume_keys(settings)
    for key in (key for key in keys if key in record):
        one, grid = examine_volume(record[key], key == "seg")
        findings += one.findings
        for name, value in one.facts.items():
            ranged = name in ("minimum", "maximum")
            facts.setdefault(f"{key} {name}" if ranged else name, value)
        if key != "seg":  # two empty segmentations are no copy of each other
            contents |= one.contents
        if grid is not None:
            grids[key] = grid
    if len(grids) == len(keys):
        problem = grid_problem(record, grids, settings)
        if problem and not errors(findings):
            what = "series that do not share a grid"
            cure = f"resample them by dataset.align_to={keys[0]}"
            findings.append(Finding("error", record["id"], what, cure, problem))
    twins = Counter(contents.values())
    same = [Path(path).name for path, digest in contents.items() if twins[digest] > 1]
    if same:
        what, cure = "files with the same voxels", "look which series it is, and find the other"
        findings.append(Finding("warning", record["id"], what, cure, ", ".join(same)))
    return Examination(findings, facts, contents)


def _first(findings: Sequence[Finding], what: str) -> str:
    return next(finding.file for finding in findings if finding.what == what)


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


def _equal(one: Grid, other: Grid) -> bool:
    return one.shape == other.shape and bool(np.allclose(one.affine, other.affine, atol=1e-3))
