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
from vaelab.data.volumes.crop import box_of, cut_off
from vaelab.data.volumes.headers import Grid, examine_header, grid_of
from vaelab.data.volumes.settings import VolumeSettings
from vaelab.data.volumes.transforms import CheckSameGridd, preprocessing
from vaelab.data.volumes.voxel_checks import LoadSoundVolumesd, examine_volume
from vaelab.errors import UserError

log = logging.getLogger(__name__)

LOST = 0.01  # share of brain or segmentation outside of the network's cube that is worth a warning


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
    series, the volume of each label, and how much of brain and labels is outside of the crop.
    """
    findings: list[Finding] = []
    facts: dict[str, str | float] = {}
    contents: dict[str, str] = {}
    grids: dict[str, Grid] = {}
    masks: dict[str, np.ndarray] = {}
    keys = settings.keys
    for key in (key for key in keys if key in record):
        one, grid, mask = examine_volume(record[key], key == "seg", settings.known_labels)
        findings += one.findings
        for name, value in one.facts.items():
            ranged = name in ("minimum", "maximum")
            facts.setdefault(f"{key} {name}" if ranged else name, value)
        if key != "seg":  # two empty segmentations are no copy of each other
            contents |= one.contents
        if grid is not None:
            grids[key] = grid
        if mask is not None and key in (keys[0], "seg"):
            masks[key] = mask
    if keys[0] in masks:
        lost = _lost(masks, grids[keys[0]], settings)
        facts |= {f"{name} cut off [%]": 100 * share for name, share in lost.items()}
        findings += _told_lost(record["id"], lost)
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


def _lost(
    masks: Mapping[str, np.ndarray], grid: Grid, settings: VolumeSettings
) -> dict[str, float]:
    """Share of the brain, the first of ``masks``, and of labels outside of the network's cube."""
    first, *others = masks.values()
    box = box_of(first)
    lost = {"brain": cut_off(first, box, grid.affine, settings)}
    if others and others[0].shape == first.shape and others[0].any():
        lost["segmentation"] = cut_off(others[0], box, grid.affine, settings)
    return lost


def _told_lost(name: str, lost: Mapping[str, float]) -> list[Finding]:
    if all(share <= LOST for share in lost.values()):
        return []
    # What is segmented is the worse loss: those records are a group of their own.
    what = "the brain is cut off by dataset.roi_size"
    if lost.get("segmentation", 0) > LOST:
        what = "what is segmented is cut off by dataset.roi_size"
    cure = "try dataset.crop=brain, and a dataset.spacing with which the brain fits"
    detail = ", ".join(f"{share:.0%} of the {part}" for part, share in lost.items())
    return [Finding("warning", name, what, cure, detail)]


def _first(findings: Sequence[Finding], what: str) -> str:
    return next(finding.file for finding in findings if finding.what == what)


def _equal(one: Grid, other: Grid) -> bool:
    return one.shape == other.shape and bool(np.allclose(one.affine, other.affine, atol=1e-3))
