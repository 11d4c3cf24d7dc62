"""What a file holds, as a digest that is computed once and remembered while the file is untouched.

Remembered under path, size, inode and times of change. The time of a file's *status* is among
them, which copying tools cannot set: a file replaced by one of the same size and date is noticed.
Not noticed is what changes bytes without the file system knowing, such as a failing disk.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import time
import uuid
import zlib
from functools import lru_cache
from pathlib import Path

log = logging.getLogger(__name__)

SETTLED = 2.0  # seconds; a file younger than the clock's steps can change without a new time


class FileDigests:
    """Path → SHA-256 of the file's bytes.

    What is known is kept in ``folder`` as text files, one for each process that found something
    new, so that none waits for another. Each line carries a checksum: a damaged one is as good as
    none. The files may be deleted at any time.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self._known: dict[str, str] = {}
        self._own = self.folder / f"digests-{uuid.uuid4().hex}.txt"
        for path in sorted(self.folder.glob("digests-*.txt")):
            self._read(path)

    def __call__(self, path: str | Path) -> str:
        """Hexadecimal digest of the file as it is now.

        Raises:
            OSError: when it cannot be read.
        """
        state = os.stat(path)
        known = self._known.get(_key(path, state))
        if known is not None:
            return known
        digest, state = _sha256(path)
        if time.time() - max(state.st_mtime, state.st_ctime) > SETTLED:
            self._remember(_key(path, state), digest)
        return digest

    def _remember(self, key: str, digest: str) -> None:
        self._known[key] = digest
        self.folder.mkdir(parents=True, exist_ok=True)
        line = json.dumps([key, digest]).encode()
        try:
            with self._own.open("ab") as file:
                file.write(b"%08x %s\n" % (zlib.crc32(line), line))
        except OSError as error:  # a full disk costs time here, nothing else
            log.debug("%s: not remembered (%s)", self._own, error)

    def _read(self, path: Path) -> None:
        for row in path.read_bytes().splitlines():
            check, _, line = row.partition(b" ")
            if check == b"%08x" % zlib.crc32(line):
                key, digest = json.loads(line)
                self._known[key] = digest


def state_of(path: str | Path) -> str:
    """Size, times and inode of a file: another string once it has been touched or replaced."""
    return _state(os.stat(path))


def digest_of(path: str | Path) -> str:
    """SHA-256 of a file's bytes; of a file that is untouched not computed again by this process."""
    return _remembered(os.path.abspath(path), state_of(path))


@lru_cache(maxsize=8)
def _remembered(path: str, state: str) -> str:
    return _sha256(path)[0]


def _sha256(path: str | Path) -> tuple[str, os.stat_result]:
    """Digest of a file, and the state of the one that was read: another may take its place."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        state = os.fstat(file.fileno())
        while chunk := file.read(2**20):
            digest.update(chunk)
    return digest.hexdigest(), state


def _key(path: str | Path, state: os.stat_result) -> str:
    return f"{_state(state)} {os.path.abspath(path)}"


def _state(state: os.stat_result) -> str:
    return f"{state.st_size} {state.st_mtime_ns} {state.st_ctime_ns} {state.st_ino}"
