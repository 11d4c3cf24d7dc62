"""Files and folders that are complete or absent, whatever interrupts the writing."""

from __future__ import annotations

import json
import os
import shutil
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """A file beside ``path`` to write into, which takes its place when the block ends well.

    After an exception ``path`` is as it was, and nothing is left beside it. Parents are created.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}-{uuid.uuid4().hex}.partial")
    try:
        yield partial
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def write_json(path: str | Path, content: Mapping[str, Any]) -> None:
    """Write ``content`` as indented JSON, whole or not at all.

    Raises:
        ValueError: for NaN and infinity, which JSON does not have.
    """
    with replacing(path) as partial:
        partial.write_text(json.dumps(content, indent=2, allow_nan=False) + "\n", encoding="utf-8")


def write_folder_once(folder: str | Path, write: Callable[[Path], None]) -> Path:
    """Return ``folder``, having ``write`` fill it on first use.

    The folder appears under its name only when complete: an interrupted write leaves nothing to
    be mistaken for data, and of two processes that race the slower discards its copy.
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
