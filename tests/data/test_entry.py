"""Claims about a cached sample's file: it comes back as it was written, or not at all."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from vaelab.data.entry import DTYPES, LARGE, DamagedEntryError, read_entry, write_entry

SAMPLE = {
    "image": torch.arange(24.0).reshape(2, 3, 4),
    "seg": torch.tensor([[1, 2, 3]], dtype=torch.uint8),
    "id": "Müller\n\udc80",
    "number": 3,
}


@pytest.fixture
def entry(tmp_path: Path) -> Path:
    path = tmp_path / "entry.safetensors"
    write_entry(path, SAMPLE, torch.float32)
    return path


def test_a_sample_comes_back_to_the_bit(entry: Path) -> None:
    sample = read_entry(entry)
    assert sample.keys() == SAMPLE.keys()
    assert (sample["id"], sample["number"]) == (SAMPLE["id"], 3)
    for key in ("image", "seg"):
        assert torch.equal(sample[key], SAMPLE[key])
        assert sample[key].dtype == SAMPLE[key].dtype
    sample["image"].add_(1)  # it is memory of one's own


def test_any_tool_that_knows_safetensors_can_read_it(entry: Path) -> None:
    assert torch.equal(load_file(entry)["image"], SAMPLE["image"])


@pytest.mark.parametrize("dtype", DTYPES.values(), ids=DTYPES)
def test_every_type_and_shape_comes_back_and_is_where_the_format_wants_it(
    tmp_path: Path, dtype: torch.dtype
) -> None:
    """Larger elements first, so that none lies across a boundary of its size."""
    sample = {
        "b": torch.arange(6).reshape(2, 3).to(dtype),
        "a": torch.tensor(1).to(dtype),
        "odd": torch.tensor([1, 2, 3], dtype=torch.uint8),
        "none": torch.empty((0, 2), dtype=dtype),
        "turned": torch.arange(6).reshape(2, 3).to(dtype).T,
    }
    write_entry(tmp_path / "entry", sample, torch.float32)
    read, known = read_entry(tmp_path / "entry"), load_file(tmp_path / "entry")
    half = dtype in (torch.float16, torch.bfloat16)
    for key, value in sample.items():
        assert torch.equal(known[key], value)
        assert torch.equal(read[key], value.float() if half else value)
    content = (tmp_path / "entry").read_bytes()
    length = int.from_bytes(content[:8], "little")
    fields = json.loads(content[8 : 8 + length])
    assert length % 8 == 0
    assert all(
        fields[key]["data_offsets"][0] % value.itemsize == 0 for key, value in sample.items()
    )


def test_a_large_sample_comes_back_too(tmp_path: Path) -> None:
    image = torch.randn(LARGE // 4 + 12345, generator=torch.Generator().manual_seed(0))
    write_entry(tmp_path / "large", {"image": image}, torch.float32)
    assert torch.equal(read_entry(tmp_path / "large")["image"], image)


def test_an_entry_that_is_not_there_is_not_a_damaged_one(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_entry(tmp_path / "nothing")


def test_every_bit_of_an_entry_is_guarded(entry: Path) -> None:
    whole = entry.read_bytes()
    for place in range(len(whole)):
        flipped = bytearray(whole)
        flipped[place] ^= 1 << place % 8
        entry.write_bytes(flipped)
        with pytest.raises(DamagedEntryError):
            read_entry(entry)


def test_every_cut_is_noticed(entry: Path) -> None:
    whole = entry.read_bytes()
    for length in range(len(whole)):
        entry.write_bytes(whole[:length])
        with pytest.raises(DamagedEntryError):
            read_entry(entry)


@pytest.mark.parametrize("size", [0, 1, 100, LARGE + 100])
@pytest.mark.parametrize("byte", [b"\0", b"\xff", b"{"])
def test_garbage_is_refused(entry: Path, size: int, byte: bytes) -> None:
    entry.write_bytes(size * byte)
    with pytest.raises(DamagedEntryError):
        read_entry(entry)


def test_zeroed_voxels_are_noticed(entry: Path) -> None:
    """As a lost block of a disk leaves them; a loader without checksum would train on them."""
    whole = entry.read_bytes()
    entry.write_bytes(whole[:-40] + bytes(40))
    with pytest.raises(DamagedEntryError, match="checksum"):
        read_entry(entry)


def test_something_appended_is_noticed(entry: Path) -> None:
    entry.write_bytes(entry.read_bytes() + b"\0")
    with pytest.raises(DamagedEntryError):
        read_entry(entry)


def test_a_pickle_in_its_place_is_not_opened(tmp_path: Path) -> None:
    class Code:
        def __reduce__(self) -> tuple:
            return Path.touch, (tmp_path / "executed",)

    torch.save({"image": Code()}, tmp_path / "entry")
    with pytest.raises(DamagedEntryError):
        read_entry(tmp_path / "entry")
    assert not (tmp_path / "executed").exists()
