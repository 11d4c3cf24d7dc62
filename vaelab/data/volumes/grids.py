"""Whether the series of a subject can be read, and whether they share a grid."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vaelab.data.findings import Examination, Finding, errors
from vaelab.data.index import Record, enumerate_names
from vaelab.data.volumes.headers import Grid, examine_header, grid_of
from vaelab.data.volumes.settings import VolumeSettings
from vaelab.data.volumes.transforms import CheckSameGridd, preprocessing
from vaelab.data.volumes.voxel_checks import LoadSoundVolumesd, examine_volume
from vaelab.errors import UserError

log = logging.getLogger(__name__)


def sound_preprocessing(settings: VolumeSettings) -> list[Any]:
    """``preprocessing`` that refuses, by name, a file that is damaged or holds no usable values."""
    load, *steps = preprocessing(settings)
    return [LoadSoundVolumesd(load, settings.keys, settings.known_labels), *steps]


def check_grids(records: Sequence[Record], settings: VolumeSettings) -> None:
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
        for key in settings.keys:
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


def grid_problem(record: Record, grids: Mapping[str, Grid], settings: VolumeSettings) -> str | None:
    """Why the files of a subject do not end on one grid, or None if they do."""
    reference = next(iter(grids.values()))
    if settings.align_to or all(_equal(grid, reference) for grid in grids.values()):
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


def examine_record(record: Record, settings: VolumeSettings) -> Examination:
    """All that the files of a subject say; an incomplete one is examined as far as it goes.

    Facts are ``shape``, ``spacing [mm]`` and ``orientation`` of the first file, the range of each
    series and the volume of each label.
    """
    findings: list[Finding] = []
    facts: dict[str, str | float] = {}
    contents: dict[str, str] = {}
    grids: dict[str, Grid] = {}
    keys = settings.keys
    for key in (key for key in keys if key in record):
        one, grid = examine_volume(record[key], key == "seg", settings.known_labels)
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


def _equal(one: Grid, other: Grid) -> bool:
    return one.shape == other.shape and bool(np.allclose(one.affine, other.affine, atol=1e-3))
