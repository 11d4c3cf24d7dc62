"""Claims about how radiographs from elsewhere are read."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from vaelab.data.xray.grey_image import LoadGreyImage
from vaelab.data.xray.inputs import (
    at_full_size,
    find_radiographs,
    read_full_size,
    read_radiograph,
)
from vaelab.errors import UserError

SLOPE = np.add.outer(np.arange(40), 2 * np.arange(60)).astype(np.uint8)  # (H, W)


@pytest.mark.parametrize("trim", [False, True])
@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_an_image_is_read_as_for_training(tmp_path: Path, suffix: str, trim: bool) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (300, 400), np.uint8)
    pixels[:, :50] = 0
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(pixels).save(path)
    loader = LoadGreyImage((32, 32), trim_border=trim)
    sample = read_radiograph(path, loader)
    assert torch.equal(sample.image, loader({"path": str(path)})["image"])
    if suffix == "png":  # 50 of 400 columns
        # 350 or all of 400 columns, about a centre 25 columns, 1/8 of a half side, further on
        shown = [[0.875, 0, 0.125], [0, 1, 0]] if trim else [[1, 0, 0], [0, 1, 0]]
        np.testing.assert_allclose(sample.placement, shown)


def saved(path: Path, pixels: np.ndarray) -> Path:
    Image.fromarray(pixels).save(path)
    return path


def test_grey_colour_and_sixteen_bits_are_one_image(tmp_path: Path) -> None:
    files = [
        saved(tmp_path / "grey.png", SLOPE),
        saved(tmp_path / "colour.png", np.stack([SLOPE] * 3, -1)),
        saved(tmp_path / "deep.png", SLOPE.astype(np.uint16) * 256),
    ]
    expected = (SLOPE - SLOPE.min()) / np.ptp(SLOPE)
    loader = LoadGreyImage((32, 32))
    first = read_radiograph(files[0], loader).image
    assert first.shape == (1, 32, 32)
    assert (first.min(), first.max()) == (0, 1)
    for path in files:
        np.testing.assert_allclose(read_full_size(path), expected, atol=1e-6)
        torch.testing.assert_close(read_radiograph(path, loader).image, first)


@pytest.mark.parametrize("content", [b"", b"no image", b"\x89PNG\r\n\x1a\n"])
def test_a_damaged_image_is_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"a\.png: not a readable image"):
        read_radiograph(path, LoadGreyImage((32, 32)))


def test_a_heat_map_covers_the_part_of_the_image_that_it_is_about() -> None:
    heat = np.array([[1.0, 2.0], [3.0, 4.0]])
    middle = np.array([[0.5, 0, 0], [0, 1, 0]])
    full = at_full_size(heat, middle, (4, 8))  # columns 2 to 5 of 8
    assert full.shape == (4, 8)
    assert not full[:, :2].any()
    assert not full[:, 6:].any()
    assert (full[0, 2], full[3, 5]) == (1, 4)  # corners keep their heat
    assert full[:, 2:6].mean() == pytest.approx(2.5)


def test_without_pydicom_the_cure_is_named_before_any_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("1.png", "2.dcm"):
        (tmp_path / name).touch()
    monkeypatch.setitem(sys.modules, "pydicom", None)
    find_radiographs(str(tmp_path / "1.png"), Path("/nowhere"))
    with pytest.raises(UserError, match=r"pip install -e '\.\[dicom\]'"):
        find_radiographs(str(tmp_path), Path("/nowhere"))
