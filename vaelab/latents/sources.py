"""What to encode: the records of a run's own dataset, or inputs from anywhere."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from torch.utils.data import Dataset

from vaelab.data.cache import CacheFullError
from vaelab.data.index import data_names
from vaelab.data.module import SplitDataModule
from vaelab.data.patients import patients_of
from vaelab.errors import UserError
from vaelab.latents.table import time_point_of

# A split that another contains comes first, so that a record keeps the narrower name.
SPLIT_ORDER = ("train", "val", "calibration", "test", "test_full")
INPUTS = "inputs"
"""The split of what is not of the run's dataset."""


class Source(NamedTuple):
    """Where one sample comes from, and what its name says."""

    id: str
    patient: str
    time_point: int
    split: str
    record: Mapping[str, Any]
    """A record of the dataset; of an input, ``path`` and the files there."""


class Unreadable(NamedTuple):
    """In place of a sample: why there is none."""

    reason: str


class Sources(NamedTuple):
    """Sources in the order of the table, and how to read their samples."""

    members: list[Source]
    load: Callable[[Sequence[Source]], Dataset[Any]]
    """Some of them → their samples, dicts with ``image`` (C, ...) and, where known, ``seg``."""
    own: bool
    """Whether they are records of the dataset, whose samples tell covariates; not inputs."""


def own_sources(data: SplitDataModule) -> Sources:
    """All records of a run's dataset, each once, under the first of its splits."""
    data.setup("test")
    rank = {name: place for place, name in enumerate(SPLIT_ORDER)}
    names = sorted(data.splits, key=lambda name: (rank.get(name, len(rank)), name))
    sources: dict[str, Source] = {}
    for split in names:
        for record in data.splits[split]:
            name, patient = str(record["id"]), str(record["patient"])
            point = time_point_of(name, patient) if data.ids_carry_time_points else 0
            sources.setdefault(name, Source(name, patient, point, split, record))
    members = sorted(sources.values(), key=lambda s: (names.index(s.split), *_order(s)))
    return Sources(members, partial(_own_samples, data), own=True)


def sources_of_inputs(
    inputs: str | Sequence[str], data: SplitDataModule, output_dir: Path
) -> Sources:
    """Inputs, read as the run's own records are; a patient is told by the name, if at all.

    Raises:
        UserError: when there are none, or for a dataset that has no reader of new files.
    """
    members = []
    found = data.find_inputs(inputs, output_dir)
    patients = patients_of([one.name for one in found], data.patient_pattern)
    for one, patient in zip(found, patients, strict=True):
        base = one.path.name
        # Two files of one name in two folders, where the name tells no patient, are two patients.
        patient = one.name if patient == base else patient
        names = data_names(os.listdir(one.path)) if one.path.is_dir() else []
        record = {"path": str(one.path), **{name: str(one.path / name) for name in names}}
        point = time_point_of(base, patient) if data.ids_carry_time_points else 0
        members.append(Source(one.name, patient, point, INPUTS, record))
    return Sources(sorted(members, key=_order), partial(_Inputs, data), own=False)


def _order(source: Source) -> tuple[str, int, str]:
    return source.patient, source.time_point, source.id


def _own_samples(data: SplitDataModule, sources: Sequence[Source]) -> Dataset[Any]:
    return _Readable(data.samples([dict(source.record) for source in sources]))


class _Readable(Dataset[Any]):
    """A dataset that says what it could not read instead of ending the work on all others."""

    def __init__(self, dataset: Dataset[Any]) -> None:
        self.dataset = dataset

    def __getitem__(self, index: int) -> Any:
        try:
            return self.dataset[index]
        except CacheFullError:
            raise  # of no file's making
        except (UserError, RuntimeError) as error:  # MONAI's Compose wraps what a transform raises
            return Unreadable(" ".join(str(error.__cause__ or error).split()))


class _Inputs(Dataset[Any]):
    """Inputs, read one at a time, without a segmentation."""

    def __init__(self, data: SplitDataModule, sources: Sequence[Source]) -> None:
        self.data = copy.copy(data)  # goes to worker processes, without what it has read
        self.data.splits = {}
        self.data.forget()
        self.paths = [Path(source.record["path"]) for source in sources]

    def __getitem__(self, index: int) -> Any:
        try:
            return {"image": self.data.read_input(self.paths[index]).image}
        except UserError as error:
            return Unreadable(" ".join(str(error).split()))
