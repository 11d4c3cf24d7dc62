"""Claims about decoding: nibabel's voxels, and nothing that was not written."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest

from vaelab.data.volumes.grids import sound_preprocessing
from vaelab.data.volumes.headers import UNREADABLE
from vaelab.data.volumes.settings import VolumeSettings
from vaelab.data.volumes.voxel_checks import examine_voxels
from vaelab.data.volumes.voxels import PIECE, read_voxels

SHAPE = (5, 6, 7)


def written(path: Path, array: np.ndarray, endian: str = "<", scaled: bool = False) -> Path:
    header = nibabel.Nifti1Header(endianness=endian)
    header.set_data_dtype(array.dtype.newbyteorder(endian))
    image = nibabel.Nifti1Image(array, np.eye(4), header)
    image.header.extensions.append(nibabel.nifti1.Nifti1Extension("comment", b"voxels come later"))
    if scaled:
        image.header.set_slope_inter(0.5, 3)  # of what is stored
    nibabel.save(image, path)
    return path


@pytest.mark.parametrize("scaled", [False, True])
@pytest.mark.parametrize("endian", ["<", ">"])
@pytest.mark.parametrize("kind", ["u1", "i2", "u2", "i4", "f4", "f8"])
@pytest.mark.parametrize("name", ["volume.nii.gz", "volume.nii"])
def test_voxels_are_those_that_nibabel_reads(
    tmp_path: Path, name: str, kind: str, endian: str, scaled: bool
) -> None:
    array = np.random.default_rng(0).integers(0, 200, SHAPE).astype(kind)
    image = nibabel.load(written(tmp_path / name, array, endian, scaled))
    expected, voxels = np.asanyarray(image.dataobj), read_voxels(image)
    assert voxels.dtype == expected.dtype
    np.testing.assert_array_equal(voxels, expected)
    np.testing.assert_array_equal(voxels, array * 0.5 + 3 if scaled else array)


def test_a_volume_of_many_pieces_comes_back_too(tmp_path: Path) -> None:
    array = np.random.default_rng(0).integers(0, 99, PIECE * 2 + 7, np.uint8).reshape(-1, 1, 1)
    path = tmp_path / "volume.nii.gz"
    assert array.size < 2**20
    nibabel.save(nibabel.Nifti2Image(array, np.eye(4)), path)
    np.testing.assert_array_equal(read_voxels(nibabel.load(path)), array)


def test_no_flipped_bit_becomes_a_voxel(tmp_path: Path) -> None:
    """Wherever it is in the file, nibabel would read on; some bits of a .gz mean nothing."""
    array = np.random.default_rng(0).integers(0, 200, SHAPE).astype(np.int16)
    path = written(tmp_path / "volume.nii.gz", array)
    image = nibabel.load(path)
    whole = path.read_bytes()
    told = 0
    for place in range(len(whole)):
        spoilt = bytearray(whole)
        spoilt[place] ^= 1 << place % 8
        path.write_bytes(spoilt)
        try:
            np.testing.assert_array_equal(read_voxels(image), array)
        except UNREADABLE:
            told += 1
    assert told > len(whole) - 40  # date and name in front, and a few bits behind the last code


def test_no_cut_goes_unnoticed(tmp_path: Path) -> None:
    path = written(tmp_path / "volume.nii.gz", np.ones(SHAPE, np.float32))
    image = nibabel.load(path)
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(UNREADABLE):
            read_voxels(image)


def test_a_sound_stream_that_is_too_short_is_told(tmp_path: Path) -> None:
    path = written(tmp_path / "volume.nii.gz", np.ones(SHAPE, np.uint8))
    image = nibabel.load(path)
    whole = gzip.decompress(path.read_bytes())
    path.write_bytes(gzip.compress(whole[:-10]))
    with pytest.raises(EOFError, match=f"{len(whole) - 10} bytes of {len(whole)}"):
        read_voxels(image)


@pytest.mark.parametrize("kind", [np.uint8, np.int16, np.float64])
def test_labels_are_counted_whatever_their_type(kind: type) -> None:
    labels = np.zeros((10, 10, 10), kind, order="F")
    labels[0], labels[1, :5] = 2, 3  # 100 voxels and 50
    findings, facts = examine_voxels("seg", labels, is_seg=True, voxel_volume=20.0)
    assert not findings
    assert facts == {"label 2 [mL]": 2.0, "label 3 [mL]": 1.0}


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_single_voxel_that_is_no_number_is_found(value: float) -> None:
    voxels = np.random.default_rng(0).normal(size=SHAPE).astype(np.float32)
    voxels[2, 3, 4] = value
    (finding,) = examine_voxels("t1c", voxels, is_seg=False)[0]
    assert "NaN or infinite (1 of 210)" in str(finding)


def test_labels_a_thousandth_off_are_the_label(tmp_path: Path) -> None:
    """Cast to bytes as they are, 1.9999998 would become 1."""
    affine = np.diag([12.0, 12.0, 12.0, 1.0])
    labels = np.zeros((16, 16, 16), np.float32)
    labels[4:8] = 1.9999998
    labels[8:10] = 1.00003
    series = np.random.default_rng(0).normal(size=labels.shape).astype(np.float32)
    record = {"id": "a"}
    for key, voxels in (("t1c", series), ("seg", labels)):
        record[key] = str(tmp_path / f"{key}.nii.gz")
        nibabel.save(nibabel.Nifti1Image(voxels, affine), record[key])
    item: Any = record
    for step in sound_preprocessing(VolumeSettings(("t1c",), (16, 16, 16), (12, 12, 12))):
        item = step(item)
    seg = item["seg"][0]
    assert (int((seg == 2).sum()), int((seg == 1).sum())) == (4 * 256, 2 * 256)
