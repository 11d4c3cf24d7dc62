"""Claims about the drawn chest X-rays: the tree, its reproducibility and the truth of its masks."""

from __future__ import annotations

import hashlib
import re
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import binary_dilation

from vaelab.data.phantoms import xray as phantom_xray
from vaelab.data.phantoms.xray import (
    MASK_MARGIN,
    NUM_FEW,
    PhantomXray,
    list_images,
    radiograph,
)
from vaelab.errors import UserError

SMALL = PhantomXray(num_train=12, num_test=9, image_size=56)


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return SMALL.prepare(tmp_path_factory.mktemp("phantoms"))


def content(folder: Path) -> dict[str, bytes]:
    """Relative path → bytes of every file below a folder."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def opened(path: Path) -> Image.Image:
    """Image with its pixels loaded and its file closed."""
    with Image.open(path) as image:
        image.load()
        return image


def patient_id(path: Path) -> str:
    """As in shared data: IM-0115, NORMAL2-IM-1423 or person1000."""
    found = re.match(r"(NORMAL2-IM-\d+|IM-\d+|person\d+)", path.name)
    assert found
    return found[0]


def test_every_folder_of_the_kaggle_layout_holds_its_number_of_images(tree: Path) -> None:
    counts = {
        f"{part}/{label}": len(list((tree / part / label).iterdir()))
        for part in ("train", "val", "test")
        for label in ("NORMAL", "PNEUMONIA")
    }
    assert counts == {
        "train/NORMAL": 12,
        "train/PNEUMONIA": NUM_FEW,
        "val/NORMAL": NUM_FEW,
        "val/PNEUMONIA": NUM_FEW,
        "test/NORMAL": 9,
        "test/PNEUMONIA": 9,
    }


def test_names_are_those_of_kaggle(tree: Path) -> None:
    normal = re.compile(r"(NORMAL2-)?IM-\d{4}-0001(-000[12])?\.jpeg")
    sick = re.compile(r"person\d+_(bacteria|virus)_\d+\.jpeg")
    assert all(normal.fullmatch(path.name) for path in tree.glob("t*/NORMAL/*"))
    assert all(sick.fullmatch(path.name) for path in tree.glob("t*/PNEUMONIA/*"))
    kinds = {path.name.split("_")[1] for path in tree.glob("test/PNEUMONIA/*")}
    assert kinds == {"bacteria", "virus"}


@pytest.mark.parametrize("label", ["NORMAL", "PNEUMONIA"])
def test_no_patient_is_in_two_parts_though_some_have_two_images(tree: Path, label: str) -> None:
    ids = [[patient_id(p) for p in (tree / part / label).iterdir()] for part in phantom_xray.PARTS]
    distinct = [set(part) for part in ids]
    assert len(set.union(*distinct)) == sum(len(part) for part in distinct)
    assert all(len(part) < len(images) for part, images in zip(distinct, ids, strict=True))


def test_images_are_jpegs_of_varied_shape_most_grey_and_some_rgb(tree: Path) -> None:
    images = [opened(path) for path in tree.glob("t*/*/*.jpeg")]
    assert {image.format for image in images} == {"JPEG"}
    modes = [image.mode for image in images]
    assert set(modes) == {"L", "RGB"}
    assert modes.count("RGB") < len(modes) / 3
    aspects = [image.width / image.height for image in images]
    assert min(aspects) >= 0.98  # 1.0 to 1.35 but for rounding to whole pixels
    assert max(aspects) <= 1.38
    assert max(aspects) - min(aspects) > 0.2


def test_no_two_files_have_the_same_content(tree: Path) -> None:
    digests = [hashlib.sha256(data).digest() for data in content(tree).values()]
    assert len(set(digests)) == len(digests)


def test_the_same_seed_writes_the_same_bytes(tree: Path, tmp_path: Path) -> None:
    again = SMALL.prepare(tmp_path)
    assert again.name == tree.name
    assert content(again) == content(tree)


def test_another_seed_changes_every_image_and_the_folder(tmp_path: Path) -> None:
    first = PhantomXray(num_train=2, num_test=2, image_size=48, seed=0).prepare(tmp_path)
    second = PhantomXray(num_train=2, num_test=2, image_size=48, seed=1).prepare(tmp_path)
    assert first != second
    before, after = content(first), content(second)
    assert before.keys() == after.keys()
    assert all(before[name] != after[name] for name in before)


def test_a_smaller_cohort_is_a_part_of_a_larger_one(tree: Path, tmp_path: Path) -> None:
    fewer = PhantomXray(num_train=3, num_test=2, image_size=56).prepare(tmp_path)
    assert content(fewer).items() <= content(tree).items()


def test_masks_exist_for_the_sick_alone_and_lie_within_their_image(tree: Path) -> None:
    sick = {
        path.relative_to(tree).with_suffix("")
        for part in phantom_xray.PARTS
        for path in (tree / part / "PNEUMONIA").iterdir()
    }
    masks = {path.relative_to(tree / "masks") for path in (tree / "masks").rglob("*.png")}
    assert {mask.with_suffix("") for mask in masks} == sick
    for path in masks:
        mask = np.asarray(opened(tree / "masks" / path))
        assert set(np.unique(mask)) == {0, 255}
        image = opened(tree / path.with_suffix(".jpeg"))
        assert mask.shape == (image.height, image.width)
        assert not mask[[0, -1]].any()
        assert not mask[:, [0, -1]].any()


@pytest.mark.parametrize(
    "entry", list(islice(list_images(0, "test", sick=True), 9)), ids=lambda e: e.stem
)
def test_an_opacity_is_brighter_than_the_healthy_lung_and_changes_nothing_else(
    entry: phantom_xray.ImageFile,
) -> None:
    sick = radiograph(entry.patient, entry.view, image_size=96)
    healthy = radiograph(entry.patient, entry.view, image_size=96, with_opacity=False)
    assert not healthy.mask.any()
    added = sick.image.astype(int) - healthy.image
    assert added.min() >= 0  # never darker
    assert added[sick.mask].min() > 0  # brighter in every pixel of the mask
    assert added[sick.mask].mean() > 10  # grey levels of 255
    assert added[~sick.mask].max() < 20
    reach = int(np.ceil(MASK_MARGIN * len(added))) + 2  # 2 pixels for the blur of the film
    disk = np.hypot(*np.mgrid[-reach : reach + 1, -reach : reach + 1]) <= reach
    assert not added[~binary_dilation(sick.mask, disk)].any()
    body = healthy.image > 25  # the air around the body is black
    assert healthy.image[sick.mask].mean() < healthy.image[body].mean()


def test_two_images_of_a_patient_share_the_anatomy_and_differ_in_the_exposure() -> None:
    first, second = list(islice(list_images(0, "test", sick=False), 4))[2:]
    assert first.patient == second.patient
    one, two = (radiograph(entry.patient, entry.view, 64).image for entry in (first, second))
    assert one.shape != two.shape or (one != two).any()


def test_a_second_call_returns_the_finished_folder_untouched(
    tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(phantom_xray, "write_image")  # any write would fail
    assert SMALL.prepare(tree.parent) == tree


def test_an_interrupted_write_is_not_mistaken_for_a_finished_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cohort = PhantomXray(num_train=2, num_test=2, image_size=48)
    write, written = phantom_xray.write_image, []

    def pull_the_plug(entry: phantom_xray.ImageFile, root: Path, image_size: int) -> None:
        if len(written) == 5:
            raise KeyboardInterrupt
        written.append(entry)
        write(entry, root, image_size)

    with monkeypatch.context() as patch:
        patch.setattr(phantom_xray, "write_image", pull_the_plug)
        with pytest.raises(KeyboardInterrupt):
            cohort.prepare(tmp_path)
    assert list(tmp_path.iterdir()) == []
    # 2 + 8 in train, 8 + 8 in val, 2 + 2 in test
    assert len(list(cohort.prepare(tmp_path).glob("[tv]*/*/*.jpeg"))) == 30


def test_who_loses_a_race_keeps_the_winners_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cohort = PhantomXray(num_train=2, num_test=2, image_size=48)
    write = phantom_xray.write_image

    def let_another_win(entry: phantom_xray.ImageFile, root: Path, image_size: int) -> None:
        write(entry, root, image_size)
        winner = tmp_path / re.sub(r"^\.|-[0-9a-f]{32}$", "", root.name)
        winner.mkdir(exist_ok=True)
        (winner / "winner").touch()

    monkeypatch.setattr(phantom_xray, "write_image", let_another_win)
    folder = cohort.prepare(tmp_path)
    assert list(tmp_path.iterdir()) == [folder]
    assert [path.name for path in folder.iterdir()] == ["winner"]


@pytest.mark.parametrize(
    ("key", "value", "cure"),
    [
        ("num_train", 0, "at least 2 are needed; try 200"),
        ("num_test", 1, "at least 2 are needed; try 40"),
        ("image_size", 16, "at least 48 are needed; try 160"),
        ("seed", -1, "must not be negative; try 0"),
    ],
)
def test_a_refused_parameter_is_named_with_its_value_and_a_cure(
    key: str, value: int, cure: str
) -> None:
    with pytest.raises(UserError, match=f"^dataset.phantoms.{key}={value}: {cure}$"):
        PhantomXray(**{key: value})
