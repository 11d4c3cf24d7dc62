"""Claims about when two image files show the same."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from vaelab.data.xray.chest_xray import ChestXrayDataModule
from vaelab.data.xray.looks import SAME, look_of, same_looks
from vaelab.errors import UserError


def scene(seed: int, side: int = 200) -> Image.Image:
    """Smooth shapes, of which each seed has others."""
    rough = np.random.default_rng(seed).integers(0, 256, (14, 12), np.uint8)
    return Image.fromarray(rough).resize((side, side), Image.Resampling.BICUBIC)


def apart(one: Image.Image, other: Image.Image) -> int:
    looks = [look_of(image) for image in (one, other)]
    return int((looks[0] != looks[1]).sum())


def again(image: Image.Image, folder: Path, quality: int) -> Image.Image:
    image.save(folder / "again.jpeg", quality=quality)
    return Image.open(folder / "again.jpeg")


def test_an_image_that_was_saved_again_is_recognised(tmp_path: Path) -> None:
    image = scene(0)
    assert apart(image, image) == 0
    others = [
        again(image, tmp_path, 20),
        image.resize((110, 130)),
        image.point(lambda value: 0.7 * value + 40),
        image.convert("RGB"),
        Image.fromarray(np.asarray(image).astype(np.uint16) * 256),
    ]
    assert all(apart(image, other) <= SAME for other in others)


def test_other_images_are_not_taken_for_it() -> None:
    image = scene(0)
    nearest = min(apart(image, scene(seed)) for seed in range(1, 50))
    assert nearest > 2 * SAME  # of 255 independent bits half, 127.5 ± 8, differ by chance
    assert apart(image, ImageOps.mirror(image)) > 2 * SAME


def test_an_image_with_nothing_in_it_looks_like_none() -> None:
    assert look_of(Image.new("L", (90, 90), 7)) is None
    slope = np.add.outer(np.arange(90), np.arange(90)).astype(np.uint8)
    assert look_of(Image.fromarray(slope)) is None


def test_each_is_compared_with_the_nearest() -> None:
    looks = {str(seed): look_of(scene(seed)) for seed in range(5)}
    known = {name: look for name, look in looks.items() if look is not None}
    assert same_looks({"x": known["3"]}, known) == {"x": "3"}
    assert same_looks({"x": known["3"]}, {"0": known["0"]}) == {}
    assert same_looks({}, known) == same_looks(known, {}) == {}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    seed = 0
    for place in ("train/NORMAL", "test/NORMAL", "test/PNEUMONIA", "train/PNEUMONIA"):
        folder = tmp_path / "data" / place
        folder.mkdir(parents=True)
        for _ in range(4):
            seed += 1
            scene(seed).save(folder / f"{'x' * seed}.png")
    return tmp_path / "data"


def module(root: Path) -> ChestXrayDataModule:
    return ChestXrayDataModule(
        str(root), str(root.parent / "splits"), str(root.parent / "cache"), (32, 32), val_split=0.3,
        progress_bar=False,
    )  # fmt: skip


@pytest.mark.parametrize("part", ["train", "test"])
def test_a_sick_image_saved_again_among_the_normals_stops_training(root: Path, part: str) -> None:
    sick = sorted((root / part / "PNEUMONIA").iterdir())[0]
    Image.open(sick).resize((150, 150)).save(root / "train/NORMAL/other.jpeg", quality=40)
    message = f"train/NORMAL/other.jpeg: shows the same as {part}/PNEUMONIA/{sick.name}"
    with pytest.raises(UserError, match="1 images to learn healthy anatomy from are sick") as error:
        module(root).setup()
    assert message in str(error.value)
    data = module(root)
    records, _ = data.inventory(root)
    found = [data.examine(record) for record in records]
    contents = {path: digest for one in found for path, digest in one.contents.items()}
    (leak,) = [one for one in data.compare(records, contents) if one.severity == "error"]
    assert [leak.file, leak.detail] == message.split(": ")


def test_a_normal_image_saved_again_in_the_test_part_is_not_learned_from(
    root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    normal = sorted((root / "test/NORMAL").iterdir())[0]
    Image.open(normal).save(root / "train/NORMAL/other.jpeg", quality=40)
    data = module(root)
    with caplog.at_level(logging.WARNING):
        data.setup()
    ids = [record["id"] for split in ("train", "val") for record in data.splits[split]]
    assert len(ids) == 4
    assert "train/NORMAL/other.jpeg" not in ids
    assert "1 normal images are not learned from" in caplog.text
