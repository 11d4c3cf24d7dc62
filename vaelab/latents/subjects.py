"""Whom to encode: the subjects of a run's own dataset, or of any folder."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch.utils.data import Dataset

from vaelab.data.cache import CacheFullError
from vaelab.data.index import patient_of
from vaelab.data.inputs import (
    find_radiographs,
    find_subjects,
    read_radiograph,
    read_subject,
)
from vaelab.data.module import SplitDataModule
from vaelab.data.mri.brats import BraTSDataModule
from vaelab.data.xray.chest_xray import ChestXrayDataModule
from vaelab.data.xray.grey_image import LoadGreyImage
from vaelab.errors import UserError
from vaelab.latents.table import time_point_of

# A split that another contains comes first, so that a subject keeps the narrower name.
SPLIT_ORDER = ("train", "val", "calibration", "test", "test_full")
INPUTS = "inputs"
"""The split of subjects that are not of the run's dataset."""
SEGMENTED = "segmented_mm3"
"""Volume of all labels of a segmentation within what the network sees."""

LABEL = "label"
"""Of a radiograph: 0 normal, 1 sick."""


class Subject(NamedTuple):
    """One image or volume, and what its name says."""

    id: str
    patient: str
    time_point: int
    split: str
    source: Mapping[str, Any]
    """What it is read from: its record, or ``path`` and the files there."""


class Unreadable(NamedTuple):
    """In place of a sample: why there is none."""

    reason: str


class Subjects(NamedTuple):
    """Subjects in the order of the table, and how to read them."""

    members: list[Subject]
    load: Callable[[Sequence[Subject]], Dataset[Any]]
    """Some of them → their samples, dicts with ``image`` (C, ...) and, where known, ``seg``."""
    covariates: Mapping[str, Callable[[Mapping[str, Any]], float]]
    """Name → what a sample itself tells of its subject."""


def own_subjects(data: SplitDataModule) -> Subjects:
    """All subjects of a run's dataset, each once, under the first of its splits."""
    data.setup("test")
    rank = {name: place for place, name in enumerate(SPLIT_ORDER)}
    names = sorted(data.splits, key=lambda name: (rank.get(name, len(rank)), name))
    radiographs = isinstance(data, ChestXrayDataModule)  # numbered, but not by time
    found: dict[str, Subject] = {}
    for split in names:
        for record in data.splits[split]:
            name, patient = str(record["id"]), str(record["patient"])
            point = 0 if radiographs else time_point_of(name, patient)
            found.setdefault(name, Subject(name, patient, point, split, record))
    members = sorted(found.values(), key=lambda s: (names.index(s.split), *_order(s)))
    if isinstance(data, ChestXrayDataModule):  # whose datasets hold all their images in memory
        return Subjects(members, partial(_Images, LoadGreyImage(**data.settings)), {LABEL: _label})
    covariates = {}
    if isinstance(data, BraTSDataModule) and data.settings["with_seg"]:
        covariates[SEGMENTED] = partial(_segmented, math.prod(data.settings["spacing"]))
    return Subjects(members, partial(_records, data), covariates)


def subjects_in(inputs: str | Sequence[str], data: SplitDataModule, output_dir: Path) -> Subjects:
    """Subjects anywhere, read as the run's own are; a patient is told by the name, if at all.

    Raises:
        UserError: when there are none, or for a dataset that has no reader of new files.
    """
    load: Callable[[Sequence[Subject]], Dataset[Any]]
    if isinstance(data, ChestXrayDataModule):
        found = find_radiographs(inputs, output_dir)
        load = partial(_Images, LoadGreyImage(**data.settings))
    elif isinstance(data, BraTSDataModule):
        found = find_subjects(inputs, data.settings["modalities"], output_dir)
        load = partial(_Volumes, data.settings)
    else:
        raise UserError(f"task.inputs: cannot read new inputs for a {type(data).__name__}")
    members = []
    for one in found:
        base = one.path.name
        patient = patient_of(base, data.patient_pattern)
        # Two files of one name in two folders, where the name tells no patient, are two patients.
        patient = one.name if patient == base else patient
        files = sorted(one.path.glob("[!.]*")) if one.path.is_dir() else []
        source = {"path": str(one.path), **{file.name: str(file) for file in files}}
        point = time_point_of(base, patient) if one.path.is_dir() else 0
        members.append(Subject(one.name, patient, point, INPUTS, source))
    return Subjects(sorted(members, key=_order), load, {})


def _label(sample: Mapping[str, Any]) -> float:
    return float(sample[LABEL])


def _segmented(voxel_mm3: float, sample: Mapping[str, Any]) -> float:
    return float((sample["seg"] > 0).sum()) * voxel_mm3


def _order(subject: Subject) -> tuple[str, int, str]:
    return subject.patient, subject.time_point, subject.id


def _records(data: SplitDataModule, subjects: Sequence[Subject]) -> Dataset[Any]:
    """Records behind the run's own cache; of a split that is not "train", so nothing is random."""
    part = copy.copy(data)
    part.splits = {INPUTS: [dict(subject.source) for subject in subjects]}
    return _Readable(part.dataset(INPUTS))


class _Readable(Dataset[Any]):
    """A dataset that says what it could not read instead of ending the work on all others."""

    def __init__(self, dataset: Dataset[Any]) -> None:
        self.dataset = dataset

    def __getitem__(self, index: int) -> Any:
        try:
            return self.dataset[index]
        except CacheFullError:
            raise  # of no subject's making
        except (UserError, RuntimeError) as error:  # MONAI's Compose wraps what a transform raises
            return Unreadable(" ".join(str(error.__cause__ or error).split()))


class _Images(Dataset[Any]):
    """Image files, decoded one at a time."""

    def __init__(self, loader: LoadGreyImage, subjects: Sequence[Subject]) -> None:
        self.loader = loader
        self.sources = [subject.source for subject in subjects]

    def __getitem__(self, index: int) -> Any:
        source = self.sources[index]
        try:
            image = read_radiograph(Path(source["path"]), self.loader).image
        except UserError as error:
            return Unreadable(" ".join(str(error).split()))
        return {"image": image, **({LABEL: source[LABEL]} if LABEL in source else {})}


class _Volumes(Dataset[Any]):
    """Folders of subjects, read one at a time, without a segmentation."""

    def __init__(self, settings: Mapping[str, Any], subjects: Sequence[Subject]) -> None:
        self.settings = dict(settings)
        self.paths = [Path(subject.source["path"]) for subject in subjects]

    def __getitem__(self, index: int) -> Any:
        try:
            image = read_subject(self.paths[index], self.settings).image
        except UserError as error:
            return Unreadable(" ".join(str(error).split()))
        return {"image": torch.as_tensor(image)}
