"""Which subjects a BraTS tree holds, and what each of them lacks."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from vaelab.data.index import Record, check_root, enumerate_names, patient_of
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


def index_subjects(root: Path, keys: Sequence[str], patient_pattern: str) -> Subjects:
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
    subjects = index_subjects(root, keys, patient_pattern)
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
        raise UserError(nothing_found(root, keys))
    return subjects.complete


def nothing_found(root: Path, keys: Sequence[str]) -> str:
    """The sentence for a root without subjects."""
    return f"dataset.root_dir={root}: no subject found; expected folders with files named " + (
        ", ".join(f"*-{key}.nii.gz" for key in keys)
    )
