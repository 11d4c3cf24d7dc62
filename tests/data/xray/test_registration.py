"""Claims about the decision to register: from normal images alone, once in a run, and kept."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from vaelab.data.index import Record
from vaelab.data.xray.chest_xray import ChestXrayDataModule
from vaelab.data.xray.registration import Registration
from vaelab.errors import UserError


def shifted(right: float) -> NDArray[np.float32]:
    """A bright trunk with two dark lungs, (64, 64), moved by a share of half the side."""
    place = (np.arange(64) + 0.5) / 32 - 1
    x, y = place[None] - right, place[:, None]
    lungs = sum(np.exp(-(((x - at) / 0.25) ** 2) - ((y + 0.1) / 0.45) ** 2) for at in (-0.4, 0.4))
    return ((np.abs(x) < 0.8) * (1 - 0.8 * lungs)).astype(np.float32)


def records(kind: str, count: int) -> list[Record]:
    return [{"id": f"{kind}{i}", "path": str(i), "patient": f"{kind}{i}"} for i in range(count)]


def moved(record: Record) -> NDArray[np.float32]:
    """Patients who stand at different places."""
    return shifted(0.05 * (int(record["path"]) % 7 - 3))


def noisy(record: Record) -> NDArray[np.float32]:
    """Patients who stand at one place and differ in all else."""
    noise = np.random.default_rng(int(record["path"])).random((64, 64), np.float32)
    return shifted(0) + noise


@pytest.mark.parametrize(("look", "registers"), [(moved, True), (noisy, False)])
def test_auto_registers_where_place_is_what_normal_images_differ_by(
    tmp_path: Path, look: object, registers: bool
) -> None:
    registration = Registration("auto", tmp_path)
    registration.prepare(records("a", 14), records("b", 7), look)  # type: ignore[arg-type]
    assert (registration.thorax is not None) is registers
    assert Registration(True, tmp_path / "x").register is True


def test_true_registers_whatever_it_brings_and_false_writes_nothing(tmp_path: Path) -> None:
    for register in (True, False):
        registration = Registration(register, tmp_path / str(register))
        (tmp_path / str(register)).mkdir()
        registration.prepare(records("a", 3), records("b", 2), noisy)
        assert (registration.thorax is not None) is register
        assert registration.path.is_file() is register


def test_what_is_decided_is_kept_and_read_on_another_machine(tmp_path: Path) -> None:
    first = Registration("auto", tmp_path)
    first.prepare(records("a", 14), records("b", 7), moved)

    def unread(record: Record) -> NDArray[np.float32]:
        raise AssertionError("no image is needed any more")

    second = Registration("auto", tmp_path)
    second.prepare([], [], unread)
    assert first.thorax is not None
    assert second.thorax is not None
    assert second.thorax.digest == first.thorax.digest


@pytest.mark.parametrize("content", [None, "{", '{"registered": true, "template": [[1.0]]}'])
def test_a_template_that_is_missing_or_damaged_is_named(
    tmp_path: Path, content: str | None
) -> None:
    if content is not None:
        (tmp_path / "thorax.json").write_text(content)
    with pytest.raises(UserError, match=r"thorax\.json: .*copy it from where the run was trained"):
        _ = Registration(True, tmp_path).thorax


def test_another_value_is_refused() -> None:
    with pytest.raises(UserError, match=r"dataset\.register=maybe: true, false or auto"):
        Registration("maybe", Path())


def test_a_dataset_shows_the_thorax_and_says_so_in_its_settings(tmp_path: Path) -> None:
    for part, name, count in (
        ("train", "NORMAL", 12), ("test", "NORMAL", 2), ("test", "PNEUMONIA", 2),
    ):  # fmt: skip
        folder = tmp_path / "data" / part / name
        folder.mkdir(parents=True)
        for i in range(count):
            pixels = (255 * shifted(0.05 * (i % 7 - 3))).astype(np.uint8)
            pixels[0, 0] = i + 100 * (part == "test") + 10 * (name == "PNEUMONIA")  # no copies
            person = f"{'NORMAL2-' if part == 'test' else ''}IM-{i:04d}"
            stem = f"{person}-0001" if name == "NORMAL" else f"person{i}_virus_{i}"
            Image.fromarray(pixels).save(folder / f"{stem}.png")

    def images(register: bool, run: str) -> tuple[NDArray[np.float32], ChestXrayDataModule]:
        data = ChestXrayDataModule(
            str(tmp_path / "data"), str(tmp_path / run / "splits"), str(tmp_path / "cache"),
            (32, 32), val_split=0.25, register=register, progress_bar=False,
        )  # fmt: skip
        data.setup()
        return data.dataset("train").images.numpy(), data

    plain, plain_data = images(False, "plain")
    registered, data = images(True, "registered")
    assert registered.std(0).mean() < plain.std(0).mean() / 2
    kept = json.loads((tmp_path / "registered" / "splits" / "thorax.json").read_text())
    assert kept["spread_after"] < kept["spread_before"] / 2
    # One cache serves both: the template is part of what a sample depends on.
    assert "thorax" not in plain_data.sample_settings()
    assert data.registration.thorax is not None
    assert data.sample_settings()["thorax"] == data.registration.thorax.digest
    path = Path(data.splits["train"][0]["path"])
    read = data.read_input(path)
    assert np.array_equal(read.image.numpy(), registered[0])
