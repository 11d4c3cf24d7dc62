"""Write files and folders so that they are complete or absent, whatever interrupts the writing."""

from __future__ import annotations

import errno
import json
import os
import shutil
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

# No space on the disk, in the user's quota, or under the limit on the size of a file.
_NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class NoSpaceError(OSError):
    """The disk is full; the message names the file, the space needed and the cure."""

    def __str__(self) -> str:
        return self.strerror or super().__str__()  # from a loader's worker only the text arrives


@contextmanager
def replacing(path: str | Path, size: int | None = None) -> Iterator[Path]:
    """Yield a file beside ``path`` to write to; at the end of the block it replaces ``path``.

    After an exception ``path`` is unchanged and the partial file is deleted. Parents are created.

    Args:
        path: of the file.
        size: bytes that will be written, where known; for the error message.

    Raises:
        NoSpaceError: when the disk is full.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}-{uuid.uuid4().hex}.partial")
    try:
        yield partial
        os.replace(partial, path)
    except OSError as error:
        if error.errno not in _NO_SPACE or isinstance(error, NoSpaceError):
            raise
        partial.unlink(missing_ok=True)
        needed = "" if size is None else f" of {_megabytes(size)}"
        free = _megabytes(shutil.disk_usage(path.parent).free)
        raise NoSpaceError(
            error.errno,
            f"{path}: no room to write this file{needed} ({os.strerror(error.errno)}; {free} are "
            "free); free some space or raise the limit, then go on",
        ) from error
    finally:
        partial.unlink(missing_ok=True)


def _megabytes(size: int) -> str:
    return f"{size / 1e6:,.1f} MB"


def write_bytes(path: str | Path, content: bytes | memoryview) -> None:
    """Replace a file by ``content``, whole or not at all, synchronised to the disk.

    Raises:
        NoSpaceError: when the disk is full.
    """
    with replacing(path, len(content)) as partial, partial.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def remove_partials(folder: str | Path) -> None:
    """Delete the partial files of killed writers in ``folder`` and below.

    Call it only where no other process writes.
    """
    for partial in Path(folder).rglob(".*.partial"):
        partial.unlink(missing_ok=True)


def write_json(path: str | Path, content: Mapping[str, Any]) -> None:
    """Write ``content`` as indented JSON, whole or not at all.

    Raises:
        ValueError: for NaN and infinity, which JSON does not have.
    """
    with replacing(path) as partial:
        partial.write_text(json.dumps(content, indent=2, allow_nan=False) + "\n", encoding="utf-8")


def write_folder_once(folder: str | Path, write: Callable[[Path], None]) -> Path:
    """Return ``folder``; if it does not exist, let ``write`` fill it first.

    The folder gets its name only when it is complete, so that an interrupted write is never
    mistaken for data. Of two processes that race, the slower discards its copy.
    """
    folder = Path(folder)
    if folder.is_dir():
        return folder
    # Not tempfile.mkdtemp: its folders are closed to the other users of a shared disk.
    unfinished = folder.with_name(f".{folder.name}-{uuid.uuid4().hex}")
    unfinished.mkdir(parents=True)
    try:
        write(unfinished)
        try:
            unfinished.rename(folder)
        except OSError:
            if not folder.is_dir():  # else another process came first, with the same bytes
                raise
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return folder
