"""Voxels of a NIfTI file, decompressed once and to the end, where the checksum is.

240×240×155 int16, 8 MB compressed, take 43 ms; nibabel alone takes 125 ms and checks nothing, from
bytes that isal has decompressed 59 ms and twice the memory (medians, one core, 2026-11-25).
"""

from __future__ import annotations

from gzip import GzipFile
from typing import Any

import numpy as np
from isal import igzip
from nibabel.volumeutils import apply_read_scaling

PIECE = 2**18  # bytes; copied while they are in the processor's cache


def read_voxels(image: Any) -> np.ndarray:
    """All voxels of a file that nibabel has opened, scaled as its header says.

    nibabel stops reading before the checksum of a .gz, and takes flipped bits for voxels.

    Returns:
        An array in the order of the file, which is Fortran's.

    Raises:
        EOFError: for a stream that ends too soon.
        gzip.BadGzipFile, isal.igzip_lib.IsalError: for one whose bytes are not what was written.
    """
    path, proxy = str(image.get_filename()), image.dataobj
    if not path.lower().endswith(".gz"):
        return np.asanyarray(proxy)
    voxels = np.empty(proxy.shape, proxy.dtype, order="F")
    memory = voxels.reshape(-1, order="F").view(np.uint8)
    with decompressed(path) as stream:
        stream.seek(proxy.offset)
        start = 0
        while count := stream.readinto(memory[start : start + PIECE].data):
            start += count
        if start < memory.size:
            raise EOFError(f"{proxy.offset + start} bytes of {proxy.offset + memory.size}")
        skip_to_end(stream)
    scaled: np.ndarray = apply_read_scaling(
        voxels, np.asanyarray(proxy.slope), np.asanyarray(proxy.inter)
    )
    return scaled


def decompressed(path: str) -> GzipFile:
    """A .gz file to read from, 1.5 to 1.9 times as fast as Python's own."""
    stream: GzipFile = igzip.open(path)  # type: ignore[no-untyped-call]
    return stream


def skip_to_end(stream: GzipFile) -> int:
    """Read the rest, for the checksum at its end; how many bytes there were."""
    length = 0
    while piece := stream.read(PIECE):
        length += len(piece)
    return length
