"""Which records a tree of folders holds, one a folder, and what each of them lacks."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import NamedTuple

from vaelab.data.index import Record, check_root, data_names, enumerate_names
from vaelab.data.patients import patients_of, report_doubts
from vaelab.data.volumes.layouts import FindSeries, advice
from vaelab.errors import UserError

log = logging.getLogger(__name__)

LISTED = 5  # subjects, where all are incomplete
ROOT_HINT = "a folder with one folder per subject is needed"


class FoundRecords(NamedTuple):
    """What the folders under a root hold."""

    complete: list[Record]
    incomplete: list[tuple[Record, str]]
    """Records of the files that are there, and the keys that are not."""
    ambiguous: list[tuple[Record, str]]
    """Records of the files that are clear, and what is there twice."""
    lost: list[str]
    """Names of links that lead nowhere."""


def find_records(root: Path, find_series: FindSeries, patient_pattern: str | None) -> FoundRecords:
    """Look into every folder of ``root``, those of ``data_names``, ordered by id."""
    entries = [root / name for name in data_names(os.listdir(root))]
    lost = [entry.name for entry in entries if entry.is_symlink() and not entry.exists()]
    records = FoundRecords([], [], [], lost)
    folders = [entry for entry in entries if entry.is_dir()]
    patients = patients_of([folder.name for folder in folders], patient_pattern)
    for folder, patient in zip(folders, patients, strict=True):
        series = find_series(folder)
        missing = [key for key, paths in series.items() if not paths]
        twice = [key for key, paths in series.items() if len(paths) > 1]
        record: Record = {"id": folder.name, "patient": patient}
        record |= {key: str(paths[0]) for key, paths in series.items() if len(paths) == 1}
        if twice:
            names = ", ".join(path.name for key in twice for path in series[key])
            records.ambiguous.append((record, f"{', '.join(twice)} ({names})"))
        elif missing:
            records.incomplete.append((record, ", ".join(missing)))
        else:
            records.complete.append(record)
    return records


def usable_records(
    root_dir: str | Path | None,
    find_series: FindSeries,
    patient_pattern: str | None,
    skip_incomplete: bool,
    expected: str,
) -> list[Record]:
    """Index every folder of a record under ``root_dir``, ordered by id.

    Args:
        root_dir: folder that holds one folder per record.
        find_series: finds the files in it.
        patient_pattern: see ``patients_of``.
        skip_incomplete: leave incomplete records out, with a warning that names them.
        expected: the files of a record, in words.

    Returns:
        One record per folder: a path for each key, ``id``, ``patient``.

    Raises:
        UserError: for a root that holds nothing, or listing every incomplete or ambiguous record.
    """
    root = check_root(root_dir, ROOT_HINT)
    records = find_records(root, find_series, patient_pattern)
    if records.ambiguous:
        lines = [f"{record['id']}: more than one file for {what}" for record, what in records[2]]
        raise UserError(
            f"dataset.root_dir={root}: {len(lines)} subjects are ambiguous; keep one file for "
            f"each modality:{enumerate_names(lines)}"
        )
    if records.lost:
        raise UserError(
            f"dataset.root_dir={root}: {len(records.lost)} subjects are links that lead nowhere; "
            f"fetch what they point to or remove them:{enumerate_names(records.lost)}"
        )
    incomplete = [f"{record['id']}: no {missing}" for record, missing in records.incomplete]
    keys = list(dict.fromkeys(key for _, what in records.incomplete for key in what.split(", ")))
    seg_only = all(missing == "seg" for _, missing in records.incomplete)
    if not records.complete and incomplete and not seg_only:
        more = len(incomplete) - LISTED
        lines = incomplete[:LISTED] + ([f"and {more} more"] if more > 0 else [])
        raise UserError(
            f"dataset.root_dir={root}: all {len(incomplete)} subjects are incomplete; expected "
            f"{expected}{advice(root, find_series, keys)}{enumerate_names(lines)}"
        )
    if incomplete and not skip_incomplete:
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
    if not records.complete:
        raise UserError(nothing_found(root, expected) + advice(root, find_series, []))
    report_doubts([record["id"] for record in records.complete], patient_pattern)
    return records.complete


def nothing_found(root: Path, expected: str) -> str:
    """The sentence for a root without records."""
    return (
        f"dataset.root_dir={root}: no subject found; expected folders with files named {expected}"
    )
