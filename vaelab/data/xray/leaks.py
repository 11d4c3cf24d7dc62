"""What chest X-rays must not be learned from: sick images, and what is tested on too."""

from __future__ import annotations

import hashlib
import logging
import os
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from vaelab.data.index import Record, enumerate_names
from vaelab.data.xray.index import SICK
from vaelab.data.xray.looks import Look, same_looks
from vaelab.errors import UserError

log = logging.getLogger(__name__)


def check_no_sick(
    normal: Sequence[Record], sick: Sequence[Record], looks: Mapping[str, Look] | None = None
) -> None:
    """Make sure that no image to learn from is sick: by folder, by patient and by content.

    Raises:
        UserError: listing each image that lies in (or links to) a folder of sick ones, whose
            patient has a sick image, or whose bytes, or look if there are ``looks``, are those of a
            sick image.
    """
    leaks = [f"{record['id']}: {reason}" for record, reason in sick_leaks(normal, sick, looks)]
    if leaks:
        raise UserError(
            f"{len(leaks)} images to learn healthy anatomy from are sick; remove or move them:"
            f"{enumerate_names(leaks)}"
        )


def sick_leaks(
    normal: Sequence[Record], sick: Sequence[Record], looks: Mapping[str, Look] | None = None
) -> Iterator[tuple[Record, str]]:
    """Each record that must not be learned from, and why; see ``check_no_sick``.

    Args:
        normal, sick: records.
        looks: by id; with them an image that was saved again is recognised too.
    """
    sick_patients = {record["patient"]: record for record in sick}
    same = _same_content(normal, sick)
    alike = same_looks(_looks(normal, looks or {}), _looks(sick, looks or {}))
    known: dict[tuple[str, str], tuple[str, ...]] = {}

    def parents(record: Record) -> tuple[str, ...]:
        if os.path.islink(record["path"]):
            return _parents_of_target(record)
        place = os.path.dirname(record["path"]), os.path.dirname(record["id"])
        if place not in known:  # the same for all files of a folder
            known[place] = _parents_of_target(record)
        return known[place]

    for record in normal:
        if SICK in [*Path(record["id"]).parent.parts, *parents(record)]:
            yield record, f"lies in a folder {SICK}"
        elif record["patient"] in sick_patients:
            other = sick_patients[record["patient"]]["id"]
            yield record, f"patient {record['patient']} is sick in {other}"
        elif record["id"] in same:
            yield record, f"is the same file as {same[record['id']]}"
        elif record["id"] in alike:
            yield record, f"shows the same as {alike[record['id']]}"


def drop_seen_in_test(
    pool: Sequence[Record], test: Sequence[Record], looks: Mapping[str, Look] | None = None
) -> list[Record]:
    """The pool without patients and content that the normal test images show too."""
    dropped = seen_in_test(pool, test, looks)
    kept = [record for record in pool if record["id"] not in dropped]
    if dropped:
        log.warning(
            "%d normal images are not learned from, since their patient or content is in the "
            "test part too:%s",
            *(len(dropped), enumerate_names(list(dropped))),
        )
    return kept


def seen_in_test(
    pool: Sequence[Record], test: Sequence[Record], looks: Mapping[str, Look] | None = None
) -> dict[str, str]:
    """Id → why, for each record whose patient, file or look is among ``test`` too."""
    patients = {record["patient"]: record["id"] for record in test}
    alike = same_looks(_looks(pool, looks or {}), _looks(test, looks or {}))
    why = {name: f"shows the same as {other}" for name, other in alike.items()}
    why |= {
        record["id"]: f"patient {record['patient']} is in {patients[record['patient']]}"
        for record in pool
        if record["patient"] in patients
    }
    same = _same_content(pool, test)
    return why | {name: f"is the same file as {other}" for name, other in same.items()}


def _looks(records: Sequence[Record], looks: Mapping[str, Look]) -> dict[str, Look]:
    return {record["id"]: looks[record["id"]] for record in records if record["id"] in looks}


def _parents_of_target(record: Record) -> tuple[str, ...]:
    """Folders of the file that a record's path leads to, from the root on if it lies there."""
    path = Path(record["path"])
    root = path.parents[len(Path(record["id"]).parts) - 1].resolve()
    folder = path.resolve().parent
    return (folder.relative_to(root) if folder.is_relative_to(root) else folder).parts


def _same_content(these: Sequence[Record], those: Sequence[Record]) -> dict[str, str]:
    """Id → id of a byte-identical file among ``those``; only files of one size are read."""
    by_size: dict[int, list[Record]] = defaultdict(list)
    for record in those:
        by_size[os.stat(record["path"]).st_size].append(record)
    same: dict[str, str] = {}
    digests: dict[str, bytes] = {}

    def digest(path: str) -> bytes:
        if path not in digests:
            try:
                digests[path] = hashlib.sha256(Path(path).read_bytes()).digest()
            except OSError:  # is told when it is decoded
                digests[path] = os.fsencode(path)
        return digests[path]

    ids: dict[int, dict[bytes, str]] = {}  # size → digest → id, for sizes that occur on both sides
    for record in these:
        size = os.stat(record["path"]).st_size
        if size not in by_size:
            continue
        if size not in ids:
            ids[size] = {digest(other["path"]): other["id"] for other in by_size[size]}
        if digest(record["path"]) in ids[size]:
            same[record["id"]] = ids[size][digest(record["path"])]
    return same
