"""Whose record is it? Patients in the names of files and folders.

A split by patient is worth as much as what is known of patients, and names are all there is.
Grouping too much costs a few records; grouping too little tests on what was learned from.
"""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from vaelab.data.findings import Finding, errors
from vaelab.errors import UserError

log = logging.getLogger(__name__)

KEY = "dataset.patient_pattern"
OWN = "^(.+)$"
"""The pattern that makes every name a patient of its own."""
MOST_RECORDS = 10  # of one patient, on average; a group with more is a site or a class
FEWEST_GROUPS = 5  # without a number in their names, below which they may be classes
EXAMPLES = 4  # names in a message


class Release(NamedTuple):
    """A published data set whose names tell the patient."""

    title: str
    pattern: str
    """As ``dataset.patient_pattern``."""


RELEASES = (
    Release("Kaggle chest X-rays", r"^(person\d+|(?:NORMAL2-)?IM-\d+)"),
    # A number is one child, whatever the class of the image.
    Release("Mendeley chest X-rays", r"^(?:NORMAL|BACTERIA|VIRUS)-(\d+)-\d+"),
    Release("ChestX-ray14", r"^(\d{8})_\d{3}(?!\d)"),
    Release("CheXpert", r"^(?:.*/)?(patient\d{5,})/study\d+/"),
    Release("MIMIC-CXR", r"^(?:.*/)?(p\d{8})/s\d{8}/"),
    Release("BIDS", r"^(sub-[A-Za-z0-9]+)(?![A-Za-z0-9])"),
    Release("BraTS 2023 and later", r"^(BraTS-[A-Za-z]+(?:-[A-Za-z]+)*-\d+)-\d+"),
    Release("BraTS 2020 and 2021", r"^(BraTS(?:20_[A-Za-z]+|2021)_\d+)"),
    Release("BraTS 2017 to 2019", r"^((?:Brats|BraTS)1[789]_[^_/]+_[^_/]+)_\d+"),
    Release("TCGA", r"^(TCGA-[A-Z0-9]{2}-[A-Z0-9]{4})(?![A-Z0-9])"),
    Release("UCSF-PDGM", r"^(UCSF-PDGM-\d+)"),
    Release("UPENN-GBM", r"^(UPENN-GBM-\d+)"),
    Release("IXI", r"^(IXI\d+)-"),
    Release("OASIS", r"^(OAS[123]_?\d+)_MR"),
    Release("ADNI", r"^(\d{3}_S_\d{4,})"),
)

# What else names do: a patient and a number, or a patient and the rest.
HABITS = (r"^(.+)[-_]\d+(?:\.[A-Za-z]+)*$", r"^([^-_/]+)[-_]")


def patient_of(path: str, pattern: str) -> str:
    """The patient in a name: group 1 of ``pattern``, or the whole name.

    A name that does not match is a patient of its own, which can never leak.

    Args:
        path: a name, or folders and a name, with ``/``.
        pattern: searched from the beginning of the name, then from that of the whole path.
    """
    return _group(path, pattern) or _name(path)


def patients_of(paths: Sequence[str], pattern: str | None = None) -> list[str]:
    """The patient of each name among others.

    Args:
        paths: names, or folders and names, with ``/``.
        pattern: see ``patient_of``. None: names of ``RELEASES`` are known; where others are
            evidently a patient and a number, all but the number is the patient.
    """
    if pattern is not None:
        return [patient_of(path, pattern) for path in paths]
    known = [_known(path) for path in paths]
    unknown = [path for path, patient in zip(paths, known, strict=True) if patient is None]
    habit = _habit(unknown)
    return [
        patient or (patient_of(path, habit) if habit and _is_sure(unknown, habit) else _name(path))
        for path, patient in zip(paths, known, strict=True)
    ]


def doubts(paths: Sequence[str], pattern: str | None = None) -> list[Finding]:
    """What makes it doubtful that patients are what the names say, each with its cure."""
    if pattern is None:
        unknown = [path for path in paths if _known(path) is None]
        habit = _habit(unknown)
        if habit is None:
            return []
        what = (
            "names of no known release, taken for several records of a patient"
            if _is_sure(unknown, habit)
            else "names of no known release, each a patient of its own though they repeat"
        )
        cure = f"set {KEY}={habit!r} if these are patients, {OWN!r} if each is one"
        return [Finding("warning", KEY, what, cure, _shown(unknown, habit))]
    unmatched = [path for path in paths if _group(path, pattern) is None]
    others = {patient_of(path, pattern) for path in paths}
    key, cure = f"{KEY}={pattern!r}", f"{_better(paths)}"
    if paths and len(unmatched) == len(paths):
        what = f"matches none of {len(paths)} names"
        return [Finding("error", key, what, cure, _examples(paths))]
    if len(paths) > 1 and len(others) == 1:
        what = f"puts all {len(paths)} records into one patient, {others.pop()}"
        return [Finding("error", key, what, cure, _examples(paths))]
    if unmatched:
        what = "does not match every name; the others are patients of their own"
        detail = f"{len(unmatched)} of {len(paths)}: {_examples(unmatched)}"
        return [Finding("warning", key, what, cure, detail)]
    better = _pattern_for(paths)
    if better and len(others) == len(paths) and pattern.strip("^$") not in ("(.+)", "(.*)"):
        what = "makes every record a patient of its own, though names repeat"
        return [Finding("warning", key, what, cure, _shown(paths, better))]
    return []


def report_doubts(paths: Sequence[str], pattern: str | None) -> None:
    """Log the ``doubts``.

    Raises:
        UserError: for a pattern that tells no patients at all.
    """
    found = doubts(paths, pattern)
    if errors(found):
        raise UserError("; ".join(str(finding) for finding in errors(found)))
    for finding in found:
        log.warning("%s", finding)


def check_pattern(pattern: str | None) -> None:
    """Raise ``UserError`` unless the patient pattern is a regular expression with one group."""
    if pattern is None:
        return
    try:
        groups = re.compile(pattern).groups
    except re.error as error:
        raise UserError(f"{KEY}={pattern!r}: not a regular expression ({error})") from error
    if groups != 1:
        raise UserError(
            f"{KEY}={pattern!r}: exactly one group must hold the patient, this has {groups}; "
            "try '^(.+)-\\d+$'"
        )


def _group(path: str, pattern: str) -> str | None:
    match = re.match(pattern, _name(path)) or re.match(pattern, path)
    return (match.group(1) if match else None) or None


def _name(path: str) -> str:
    return path.rpartition("/")[2]


def _known(path: str) -> str | None:
    patients = (_group(path, release.pattern) for release in RELEASES)
    return next((patient for patient in patients if patient), None)


def _pattern_for(paths: Sequence[str]) -> str | None:
    """The pattern that would do: of the release that all names are of, or of a habit."""
    for release in RELEASES:
        if all(_group(path, release.pattern) for path in paths):
            groups = _groups(paths, release.pattern)
            return release.pattern if len(groups) < len(paths) else None
    return _habit(paths)


def _habit(paths: Sequence[str]) -> str | None:
    """The first of ``HABITS`` by which names are patients of a few records each."""
    for pattern in HABITS:
        groups = _groups(paths, pattern)
        fits = sum(groups.values()) == len(paths) > len(groups) > 1
        numbered = all(map(_has_number, groups)) or len(groups) >= FEWEST_GROUPS
        if fits and numbered and len(paths) <= MOST_RECORDS * len(groups):
            return pattern
    return None


def _is_sure(paths: Sequence[str], habit: str) -> bool:
    """Whether what a habit takes for patients is numbered, as patients are and words are not."""
    return all(map(_has_number, _groups(paths, habit)))


def _groups(paths: Iterable[str], pattern: str) -> Counter[str]:
    groups = (_group(path, pattern) for path in paths)
    return Counter(patient for patient in groups if patient)


def _has_number(text: str) -> bool:
    return any(character.isdigit() for character in text)


def _better(paths: Sequence[str]) -> str:
    known = sum(_known(path) is not None for path in paths)
    if paths and known == len(paths):
        return f"set {KEY}=null, which knows these names"
    pattern = _pattern_for(paths)
    if pattern:
        return f"set {KEY}={pattern!r}"
    return f"set {KEY} so that group 1 is the patient, {OWN!r} if each record is one"


def _shown(paths: Sequence[str], pattern: str) -> str:
    """Names of a patient that has several."""
    groups = _groups(paths, pattern)
    patient = next(name for name, count in groups.items() if count > 1)
    return _examples([path for path in paths if _group(path, pattern) == patient])


def _examples(paths: Sequence[str]) -> str:
    names = ", ".join(_name(path) for path in paths[:EXAMPLES])
    return f"{names}, ..." if len(paths) > EXAMPLES else names
