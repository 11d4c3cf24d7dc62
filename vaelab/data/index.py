"""Records, splits by patient, and the CSV files that hold them.

Pure functions: what a scan found goes in, two lists that share no patient come out.
"""

from __future__ import annotations

import csv
import os
import random
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from vaelab.atomic import replacing
from vaelab.errors import UserError
from vaelab.text import printable

# Names of files may hold bytes that are not UTF-8; they come back as they were.
ENCODING: Any = {"encoding": "utf-8", "errors": "surrogateescape"}

IGNORED = frozenset(
    (
        *("@eadir", "@tmp", "@recycle", "@recently-snapshot", "#recycle", "#snapshot"),  # NAS
        *("__macosx", "icon\r", "network trash folder", "temporary items"),  # macOS
        *("thumbs.db", "ehthumbs.db", "desktop.ini", "$recycle.bin", "recycler"),  # Windows
        *("system volume information", "found.000"),
        *("lost+found", "__pycache__"),
    )
)
"""Names in lower case that systems leave among data, as they do names that begin with a dot."""

Record = dict[str, Any]
"""One image or subject: at least ``id`` and ``patient``, both str, and paths as str."""


def check_val_split(val_split: float) -> None:
    """Raise ``UserError`` unless the share lies strictly between 0 and 1."""
    if not 0 < val_split < 1:
        raise UserError(
            f"dataset.val_split={val_split}: the share of patients kept for validation must lie "
            "between 0 and 1, both excluded; try 0.1"
        )


def split_by_patient(
    records: Sequence[Record], val_split: float, seed: int
) -> tuple[list[Record], list[Record]]:
    """Split records into train and validation so that no patient is in both.

    Args:
        records: in any order; the result does not depend on it.
        val_split: share of patients for validation, in (0, 1); at least one goes to each side.
        seed: the split is a function of the patients' names and this number alone.

    Returns:
        train and validation records, each ordered by id.

    Raises:
        UserError: when ``val_split`` is outside (0, 1) or there are fewer than two patients.
    """
    check_val_split(val_split)
    patients = sorted({record["patient"] for record in records})
    if len(patients) < 2:
        several = "".join(
            f", or set dataset.patient_pattern if the {len(records)} records of {patient} are not "
            "of one"
            for patient in patients
            if len(records) > 1
        )
        raise UserError(
            f"dataset.val_split={val_split}: a split by patient needs at least two patients, "
            f"found {len(patients)}; add data{several}"
        )
    random.Random(seed).shuffle(patients)
    count = min(max(1, round(val_split * len(patients))), len(patients) - 1)
    held_out = set(patients[:count])
    ordered = sorted(records, key=lambda record: str(record["id"]))
    train = [record for record in ordered if record["patient"] not in held_out]
    val = [record for record in ordered if record["patient"] in held_out]
    return train, val


def write_splits(splits_dir: str | Path, splits: dict[str, list[Record]]) -> None:
    """Write ``<splits_dir>/<name>.csv`` for each split: id, patient, then what a record holds.

    The first split, "train", comes last: once it is there, all are.
    """
    for name, records in reversed(splits.items()):
        columns = list(dict.fromkeys(key for record in records for key in record))
        path = Path(splits_dir) / f"{name}.csv"
        with replacing(path) as partial, partial.open("w", newline="", **ENCODING) as file:
            writer = csv.DictWriter(file, fieldnames=columns)
            writer.writeheader()
            writer.writerows(records)


def read_split(splits_dir: str | Path, name: str, records: Sequence[Record]) -> list[Record]:
    """The records that a run's earlier split named, in its order, as they are on disk now.

    Raises:
        UserError: listing every id of the split that is no longer among ``records``.
    """
    path = Path(splits_dir) / f"{name}.csv"
    with path.open(newline="", **ENCODING) as file:
        ids = [row["id"] for row in csv.DictReader(file)]
    known = {record["id"]: record for record in records}
    missing = [identifier for identifier in ids if identifier not in known]
    if missing:
        raise UserError(
            f"{path}: {len(missing)} of its {len(ids)} ids are not under dataset.root_dir any "
            f"more: {enumerate_names(missing)}. Point dataset.root_dir at the data this run was "
            "trained on, or start a new run"
        )
    return [known[identifier] for identifier in ids]


def enumerate_names(names: Sequence[object]) -> str:
    """All names, one a line and indented: an error lists every offender, not the first."""
    return "".join(f"\n  - {printable(name)}" for name in names)


def data_names(names: Iterable[str]) -> list[str]:
    """Names of files or folders in order, without hidden ones and those of ``IGNORED``."""
    return sorted(n for n in names if not n.startswith(".") and n.casefold() not in IGNORED)


def walk_files(folder: str | Path) -> Iterator[tuple[Path, list[str]]]:
    """Each folder with its ``data_names``.

    Links are followed, but no folder is entered twice, so that a loop ends.
    """
    seen: set[str] = set()
    for current, folders, files in os.walk(folder, followlinks=True):
        real = os.path.realpath(current)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        folders[:] = data_names(folders)
        yield Path(current), data_names(files)


def check_root(root_dir: str | Path | None, hint: str) -> Path:
    """``root_dir`` as a path, or a ``UserError`` that says what should be there."""
    if not root_dir:
        raise UserError(f"dataset.root_dir is not set: {hint}")
    root = Path(root_dir).expanduser()
    if not root.is_dir():
        what = "is a file, not a folder" if root.exists() else "does not exist"
        raise UserError(f"dataset.root_dir={root_dir}: {what}; {hint}")
    return root
