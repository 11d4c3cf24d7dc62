"""What lies in the Kaggle "Chest X-Ray Images (Pneumonia)" layout.

Kermany et al. 2018 (doi:10.17632/rscbjbr9sj.2): ``{train,val,test}/{NORMAL,PNEUMONIA}/*.jpeg``.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from vaelab.data.index import (
    Record,
    check_root,
    data_names,
    enumerate_names,
    walk_files,
)
from vaelab.data.patients import patients_of, report_doubts
from vaelab.errors import UserError
from vaelab.text import printable

NORMAL, SICK = "NORMAL", "PNEUMONIA"
SUFFIXES = {".jpeg", ".jpg", ".png"}
HINT = f"the Kaggle layout is needed, with train/{NORMAL}, test/{NORMAL} and test/{SICK}"


def scan_chest_xray(
    root_dir: str | Path | None, patient_pattern: str | None = None
) -> list[Record]:
    """Index every image under ``root_dir``, ordered by id.

    Returns:
        One record per image: ``id`` (path below the root), ``patient``, ``label`` (0 normal,
        1 sick), ``part`` (train, val or test) and ``path``.

    Raises:
        UserError: when the root or one of the three folders that are needed holds no image, or
            listing every link that leads nowhere.
    """
    root = check_root(root_dir, HINT)
    records = find_images(root, patient_pattern)
    lost = [record["id"] for record in records if not os.path.exists(record["path"])]
    if lost:
        raise UserError(
            f"dataset.root_dir={root}: {len(lost)} images are links that lead nowhere; fetch what "
            f"they point to or remove them:{enumerate_names(lost)}"
        )
    missing = missing_folders(root, records)
    if missing:
        raise UserError(f"dataset.root_dir={root}: {missing}")
    report_doubts([within_class(record) for record in records], patient_pattern)
    return records


def find_images(root: Path, patient_pattern: str | None) -> list[Record]:
    """Every image of the Kaggle layout, links that lead nowhere included, ordered by id."""
    depth = len(root.parts)
    records: list[Record] = [
        {
            "id": "/".join(path.parts[depth:]),
            "patient": "",
            "label": label,
            "part": part,
            "path": str(path),
        }
        for part in ("train", "val", "test")
        for label, name in enumerate((NORMAL, SICK))
        for path in _images(root / part / name)
    ]
    patients = patients_of([within_class(record) for record in records], patient_pattern)
    return [
        record | {"patient": patient} for record, patient in zip(records, patients, strict=True)
    ]


def within_class(record: Record) -> str:
    """The path of an image below the folder of its part and class."""
    return str(record["id"]).split("/", 2)[2]


def missing_folders(root: Path, records: Sequence[Record]) -> str:
    """Which folders that are needed hold no image and what is there instead; empty if none."""
    found = {(record["part"], record["label"]) for record in records}
    needed = {("train", 0): f"train/{NORMAL}", ("test", 0): f"test/{NORMAL}"}
    needed[("test", 1)] = f"test/{SICK}"
    empty = [folder for key, folder in needed.items() if key not in found]
    if not empty:
        return ""
    names = data_names(os.listdir(root))
    there = ", ".join(names[:8]) + (", ..." if len(names) > 8 else "") if names else "nothing"
    inner = [name for name in names if (root / name / "train" / NORMAL).is_dir()]
    cure = f"; did you mean dataset.root_dir={root / inner[0]}?" if inner else ""
    return f"no image in {', '.join(empty)}; {HINT}. Found there: {printable(there)}{cure}"


def mask_paths(records: Sequence[Record], folder: Path | None) -> dict[str, str]:
    """Id → mask of the sick images; empty where the tree has no masks.

    Args:
        records: to judge.
        folder: of the masks, laid out as the images are; None where there is none.

    Raises:
        UserError: naming every sick image without a mask. Left black it would count as healthy, and
            every hit as a false alarm.
    """
    if folder is None:
        return {}
    paths = {
        record["id"]: folder / Path(record["id"]).with_suffix(".png")
        for record in records
        if record["label"] == 1
    }
    missing = [str(path) for path in paths.values() if not path.is_file()]
    if missing:
        raise UserError(
            f"{folder}: {len(missing)} sick test images have no mask; add them, or move "
            f"the folder away to judge without:{enumerate_names(missing)}"
        )
    return {identifier: str(path) for identifier, path in paths.items()}


def _images(folder: Path) -> list[Path]:
    """Image files in a folder and below it, ordered; hidden files are not data.

    A folder that is called like an image is among them, to be refused rather than overlooked.
    """
    found: list[Path] = []
    for current, names in walk_files(folder):
        if current.suffix.lower() in SUFFIXES:
            found.append(current)
        found += [current / n for n in names if os.path.splitext(n)[1].lower() in SUFFIXES]
    return sorted(found)
