"""What worker processes need of a machine, looked at before they are started.

Where it is missing they do not fail: they hang, or die with tracebacks that name no cure.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from pathlib import Path

from vaelab.errors import UserError

LONGEST_SOCKET = 103 if sys.platform == "darwin" else 107  # bytes of a path, unix(7)
# multiprocessing appends this to the folder for temporary files.
SOCKET = "/pymp-12345678/listener-12345678"
PREFETCHED = 2  # batches of each worker, PyTorch's default
SHARED = Path("/dev/shm")  # noqa: S108  # where Linux keeps shared memory


def check_workers(num_workers: int) -> None:
    """Make sure that worker processes can be talked to.

    Raises:
        UserError: when the folder for temporary files has too long a name for their sockets.
    """
    folder = tempfile.gettempdir()
    longest = LONGEST_SOCKET - len(SOCKET)
    if num_workers and sys.platform != "win32" and len(os.fsencode(folder)) > longest:
        raise UserError(
            f"dataset.num_workers={num_workers}: worker processes are talked to by files below "
            f"TMPDIR={folder}, whose name is longer than {longest} bytes; set TMPDIR=/tmp, or "
            "dataset.num_workers=0"
        )


def check_shared_memory(num_workers: int, batch_bytes: int, shared: Path = SHARED) -> None:
    """Make sure that the batches which wait for the training have room.

    Args:
        num_workers: processes.
        batch_bytes: of one batch.
        shared: folder whose file system is shared memory; where it is not, there is no limit.

    Raises:
        UserError: when it has less free.
    """
    if not (num_workers and shared.is_dir()):
        return
    needed, free = num_workers * PREFETCHED * batch_bytes, shutil.disk_usage(shared).free
    if needed > free:
        raise UserError(
            f"dataset.num_workers={num_workers}: their batches need {needed / 1e6:.0f} MB of "
            f"shared memory, {shared} has {free / 1e6:.0f} MB free; start the container with "
            f"--shm-size={needed // 10**9 + 1}g or --ipc=host, or set dataset.num_workers=0"
        )
