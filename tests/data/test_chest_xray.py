"""Claims about the loader of chest X-rays: nothing sick is learned from, each file read right."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from vaelab.data.chest_xray import (
    ChestXrayDataModule,
    LoadGreyImage,
    check_no_sick,
    scan_chest_xray,
    split_chest_xray,
    trim_dark_border,
)
from vaelab.data.index import Record
from vaelab.errors import UserError

SHARED = Path(__file__).parents[2].parent / "shared" / "data"
LAYOUT = {
    "train/NORMAL": [
        *[f"IM-{number:04d}-0001.jpeg" for number in range(1, 11)],
        *("IM-0001-0002.jpeg", "IM-0002-0001-0001.jpeg"),  # 12 images of 10 patients
    ],
    "train/PNEUMONIA": ["person1_bacteria_1.jpeg", "person2_virus_3.jpeg"],
    "val/NORMAL": ["NORMAL2-IM-0001-0001.jpeg", "NORMAL2-IM-0002-0001.jpeg"],
    "val/PNEUMONIA": ["person3_bacteria_1.jpeg"],
    "test/NORMAL": [f"NORMAL2-IM-{number:04d}-0001.jpeg" for number in range(100, 104)],
    "test/PNEUMONIA": [f"person{number}_virus_9.jpeg" for number in range(10, 17)],
}


def picture(path: Path, seed: object = None) -> Path:
    """An image of noise that no other name has."""
    rng = np.random.default_rng([*str(seed or path.name).encode()])
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(rng.integers(0, 256, (20, 24), dtype=np.uint8)).save(path)
    return path


@pytest.fixture(scope="module")
def shared_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small Kaggle tree. To be read only."""
    root = tmp_path_factory.mktemp("chest")
    for folder, names in LAYOUT.items():
        for name in names:
            picture(root / folder / name)
    return root


@pytest.fixture
def root(shared_root: Path, tmp_path: Path) -> Path:
    """The same to spoil."""
    return Path(shutil.copytree(shared_root, tmp_path / "chest"))


def module(root: Path | str | None, tmp_path: Path, **changed: Any) -> ChestXrayDataModule:
    settings: dict[str, Any] = {
        "batch_size": 4,
        "val_split": 0.25,
        "splits_dir": str(tmp_path / "run" / "splits"),
        "cache_dir": str(tmp_path / "run" / "cache"),
    }
    return ChestXrayDataModule(root_dir=None if root is None else str(root), **(settings | changed))


def ready(root: Path, tmp_path: Path, **changed: Any) -> ChestXrayDataModule:
    data = module(root, tmp_path, **changed)
    data.setup()
    return data


def split(root: Path, seed: int = 0, test_per_class: int | None = None) -> dict[str, list[Record]]:
    return split_chest_xray(scan_chest_xray(root), 0.25, seed, test_per_class)


def told(action: Callable[[], Any]) -> str:
    """What the user is told."""
    with pytest.raises(UserError) as caught:
        action()
    return str(caught.value)


def ids(records: list[Record]) -> list[str]:
    return [record["id"] for record in records]


# --- scanning


def test_every_image_is_found_in_order_with_part_label_and_patient(shared_root: Path) -> None:
    records = scan_chest_xray(shared_root)
    expected = [f"{folder}/{name}" for folder in LAYOUT for name in sorted(LAYOUT[folder])]
    assert ids(records) == expected
    for record in records:
        assert Path(record["path"]) == shared_root / record["id"]
        assert record["part"] == record["id"].split("/")[0]
        assert record["label"] == int("/PNEUMONIA/" in record["id"])
    patients = {record["id"]: record["patient"] for record in records}
    assert patients["train/NORMAL/IM-0001-0002.jpeg"] == "IM-0001"
    assert patients["train/NORMAL/IM-0002-0001-0001.jpeg"] == "IM-0002"
    assert patients["val/NORMAL/NORMAL2-IM-0001-0001.jpeg"] == "NORMAL2-IM-0001"  # another child
    assert patients["train/PNEUMONIA/person2_virus_3.jpeg"] == "person2"


def test_images_are_known_by_suffix_in_any_case_and_hidden_files_are_not_data(root: Path) -> None:
    folder = root / "train" / "NORMAL"
    before = set(ids(scan_chest_xray(root)))
    for name in ("a.JPEG", "b.Jpg", "c.png", "d.PNG", "deeper/e.jpeg"):
        picture(folder / name)
    for name in ("._IM-0001-0001.jpeg", ".DS_Store", "Thumbs.db", "notes.txt", "f.jpeg.part"):
        (folder / name).write_text("no image")
    found = set(ids(scan_chest_xray(root))) - before
    assert found == {
        f"train/NORMAL/{name}" for name in ("a.JPEG", "b.Jpg", "c.png", "d.PNG", "deeper/e.jpeg")
    }


def test_one_error_names_every_folder_that_is_needed_and_empty(root: Path) -> None:
    shutil.rmtree(root / "train" / "NORMAL")
    for path in (root / "test" / "PNEUMONIA").iterdir():
        path.unlink()
    message = told(lambda: scan_chest_xray(root))
    assert message.startswith(f"dataset.root_dir={root}: no image in train/NORMAL, test/PNEUMONIA;")
    assert "Kaggle layout" in message


def test_val_and_sick_training_images_are_not_needed(root: Path) -> None:
    shutil.rmtree(root / "val")
    shutil.rmtree(root / "train" / "PNEUMONIA")
    assert len(scan_chest_xray(root)) == 12 + 4 + 7


def test_a_root_that_cannot_be_is_told_what_should_be_there(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for root, problem in (
        (None, "dataset.root_dir is not set"),
        (tmp_path / "absent", "does not exist"),
        (tmp_path / "file", "is a file, not a folder"),
    ):
        message = told(lambda root=root: scan_chest_xray(root))
        assert problem in message
        assert "Kaggle layout" in message


def test_links_that_lead_nowhere_are_listed(root: Path) -> None:
    folder = root / "train" / "NORMAL"
    for name in ("lost1.jpeg", "lost2.jpeg"):
        (folder / name).symlink_to("annex-object-not-fetched")
    message = told(lambda: scan_chest_xray(root))
    assert "2 images are links that lead nowhere" in message
    assert "- train/NORMAL/lost1.jpeg\n" in message
    assert "- train/NORMAL/lost2.jpeg" in message


# --- splits


@pytest.mark.parametrize("seed", range(5))
def test_only_healthy_patients_are_learned_from_and_none_is_in_two_splits(
    shared_root: Path, seed: int
) -> None:
    parts = split(shared_root, seed)
    assert {r["label"] for r in parts["train"] + parts["val"]} == {0}
    patients = {name: {r["patient"] for r in records} for name, records in parts.items()}
    assert not patients["train"] & patients["val"]
    assert not (patients["train"] | patients["val"]) & patients["test"]
    # ten patients of train/NORMAL and two of val/NORMAL; a quarter of twelve is three
    assert (len(patients["train"]), len(patients["val"])) == (9, 3)
    assert len(parts["train"]) + len(parts["val"]) == 12 + 2


def test_normal_images_of_kaggles_val_join_the_pool_and_its_sick_ones_go_nowhere(
    shared_root: Path,
) -> None:
    parts = split(shared_root)
    pool = ids(parts["train"] + parts["val"])
    assert {name for name in pool if name.startswith("val/")} == {
        f"val/NORMAL/{name}" for name in LAYOUT["val/NORMAL"]
    }
    assert all(name.startswith("test/") for name in ids(parts["test"]))


@pytest.mark.parametrize(("per_class", "expected"), [(None, 4), (1, 1), (3, 3), (4, 4)])
def test_as_many_sick_as_healthy_are_tested_on(
    shared_root: Path, per_class: int | None, expected: int
) -> None:
    test = split(shared_root, test_per_class=per_class)["test"]
    assert Counter(record["label"] for record in test) == {0: expected, 1: expected}
    assert len(set(ids(test))) == len(test)


def test_the_test_images_are_drawn_by_seed(shared_root: Path) -> None:
    draws = [tuple(ids(split(shared_root, seed)["test"])) for seed in (0, 0, 1, 2, 3)]
    assert draws[0] == draws[1]
    assert len({frozenset(draw) for draw in draws}) > 1  # 7 choose 4 = 35 sets of sick images


def test_all_test_images_are_kept_in_a_split_of_their_own(shared_root: Path) -> None:
    parts = split(shared_root, test_per_class=1)
    assert ids(parts["test_full"]) == [
        f"test/{folder}/{name}"
        for folder in ("NORMAL", "PNEUMONIA")
        for name in sorted(LAYOUT[f"test/{folder}"])
    ]
    assert set(ids(parts["test"])) < set(ids(parts["test_full"]))


@pytest.mark.parametrize("seed", range(5))
def test_calibration_patients_are_taken_from_training_and_are_nowhere_else(
    shared_root: Path, tmp_path: Path, seed: int
) -> None:
    plain = ready(shared_root, tmp_path / "plain", seed=seed).splits
    parts = ready(shared_root, tmp_path / "run", seed=seed, calibration_split=0.3).splits
    assert "calibration" not in plain
    assert sorted(ids(parts["train"] + parts["calibration"])) == ids(plain["train"])
    assert {r["label"] for r in parts["calibration"]} == {0}
    groups = [{r["patient"] for r in parts[name]} for name in ("train", "val", "calibration")]
    assert [len(group) for group in groups] == [6, 3, 3]  # 12 patients; 30 % of nine are three
    assert len(set.union(*groups)) == 12
    for name in ("val", "test", "test_full"):
        assert parts[name] == plain[name]


@pytest.mark.parametrize("per_class", [0, -1, 5])
def test_more_test_images_than_the_rarer_class_has_are_refused(
    shared_root: Path, per_class: int
) -> None:
    message = told(lambda: split(shared_root, test_per_class=per_class))
    assert message.startswith(f"dataset.test_per_class={per_class}: from 1 to 4 images")


def test_a_healthy_patient_who_is_tested_on_is_not_learned_from(
    root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    picture(root / "test" / "NORMAL" / "IM-0001-0007.jpeg")  # IM-0001 has two in train
    pool = [record for name in ("train", "val") for record in split(root)[name]]
    assert "IM-0001" not in {record["patient"] for record in pool}
    assert len(pool) == 12 + 2 - 2
    assert "2 normal images are not learned from" in caplog.text
    assert "- train/NORMAL/IM-0001-0001.jpeg" in caplog.text
    assert "- train/NORMAL/IM-0001-0002.jpeg" in caplog.text


def test_a_healthy_image_that_is_tested_on_is_not_learned_from_under_another_name(
    root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shutil.copy(
        root / "train" / "NORMAL" / "IM-0005-0001.jpeg",
        root / "test" / "NORMAL" / "NORMAL2-IM-0900-0001.jpeg",
    )
    pool = [record for name in ("train", "val") for record in split(root)[name]]
    assert "train/NORMAL/IM-0005-0001.jpeg" not in ids(pool)
    assert len(pool) == 12 + 2 - 1
    assert "- train/NORMAL/IM-0005-0001.jpeg" in caplog.text


def test_clean_data_raises_no_warning(shared_root: Path, caplog: pytest.LogCaptureFixture) -> None:
    split(shared_root)
    assert not caplog.records


# --- leaks


def leaks(root: Path, tmp_path: Path) -> list[str]:
    """What setup says about sick images among those to learn from, a line each."""
    message = told(lambda: ready(root, tmp_path))
    first, *lines = message.splitlines()
    assert first.startswith(f"{len(lines)} images to learn healthy anatomy from are sick")
    assert not (tmp_path / "run").exists()
    return [line.removeprefix("  - ") for line in lines]


def test_a_folder_of_sick_images_among_the_healthy_is_a_leak(root: Path, tmp_path: Path) -> None:
    for name in ("a.jpeg", "deeper/b.jpeg"):
        picture(root / "train" / "NORMAL" / "PNEUMONIA" / name)
    assert sorted(leaks(root, tmp_path)) == [
        "train/NORMAL/PNEUMONIA/a.jpeg: lies in a folder PNEUMONIA",
        "train/NORMAL/PNEUMONIA/deeper/b.jpeg: lies in a folder PNEUMONIA",
    ]


def test_a_link_to_a_sick_image_is_a_leak(root: Path, tmp_path: Path) -> None:
    elsewhere = picture(tmp_path / "archive" / "PNEUMONIA" / "x.jpeg")
    inside = root / "val" / "PNEUMONIA" / "person3_bacteria_1.jpeg"
    (root / "train" / "NORMAL" / "IM-0801-0001.jpeg").symlink_to(elsewhere)
    (root / "train" / "NORMAL" / "IM-0802-0001.jpeg").symlink_to(inside)
    assert sorted(leaks(root, tmp_path)) == [
        "train/NORMAL/IM-0801-0001.jpeg: lies in a folder PNEUMONIA",
        "train/NORMAL/IM-0802-0001.jpeg: lies in a folder PNEUMONIA",
    ]


@pytest.mark.parametrize(
    "sick",
    [
        "train/PNEUMONIA/person1_bacteria_1",
        "val/PNEUMONIA/person3_bacteria_1",
        "test/PNEUMONIA/person10_virus_9",
    ],
)
def test_an_image_of_a_patient_who_is_sick_elsewhere_is_a_leak(
    root: Path, tmp_path: Path, sick: str
) -> None:
    patient = sick.split("/")[-1].split("_")[0]
    picture(root / "val" / "NORMAL" / f"{patient}_1.jpeg")
    assert leaks(root, tmp_path) == [
        f"val/NORMAL/{patient}_1.jpeg: patient {patient} is sick in {sick}.jpeg"
    ]


@pytest.mark.parametrize("part", ["train", "val", "test"])
def test_the_bytes_of_a_sick_image_under_a_healthy_name_are_a_leak(
    root: Path, tmp_path: Path, part: str
) -> None:
    sick = f"{part}/PNEUMONIA/{LAYOUT[f'{part}/PNEUMONIA'][0]}"
    shutil.copy(root / sick, root / "train" / "NORMAL" / "IM-0900-0001.jpeg")
    assert leaks(root, tmp_path) == [f"train/NORMAL/IM-0900-0001.jpeg: is the same file as {sick}"]


def test_files_of_one_size_and_different_content_are_no_leak(root: Path, tmp_path: Path) -> None:
    healthy = root / "train" / "NORMAL" / "a.png"
    sick = root / "train" / "PNEUMONIA" / "b.png"
    for path, level in ((healthy, 1), (sick, 2)):
        Image.new("L", (20, 24), level).save(path, compress_level=0)
    assert healthy.stat().st_size == sick.stat().st_size
    assert ready(root, tmp_path)


def test_every_leak_is_listed_whatever_its_kind(root: Path, tmp_path: Path) -> None:
    picture(root / "train" / "NORMAL" / "PNEUMONIA" / "a.jpeg")
    picture(root / "train" / "NORMAL" / "person2_1.jpeg")
    shutil.copy(
        root / "test" / "PNEUMONIA" / "person11_virus_9.jpeg",
        root / "train" / "NORMAL" / "IM-0900-0001.jpeg",
    )
    assert len(leaks(root, tmp_path)) == 3


@pytest.mark.parametrize("name", ["train", "val", "calibration"])
def test_a_saved_split_is_searched_for_leaks_again(root: Path, tmp_path: Path, name: str) -> None:
    learned = ready(root, tmp_path, calibration_split=0.3).splits[name][0]
    shutil.copy(root / "test" / "PNEUMONIA" / "person11_virus_9.jpeg", learned["path"])
    message = told(lambda: ready(root, tmp_path, calibration_split=0.3))
    assert f"{learned['id']}: is the same file as test/PNEUMONIA/person11" in message


def test_a_folder_above_the_root_says_nothing_about_its_images(root: Path, tmp_path: Path) -> None:
    above = tmp_path / "PNEUMONIA"
    above.mkdir()
    moved = root.rename(above / "chest")
    check_no_sick(
        [r for r in scan_chest_xray(moved) if r["label"] == 0],
        [r for r in scan_chest_xray(moved) if r["label"] == 1],
    )


def test_a_link_between_healthy_folders_is_no_leak(root: Path, tmp_path: Path) -> None:
    store = picture(tmp_path / "store" / "0123abcd.jpeg")
    (root / "train" / "NORMAL" / "IM-0801-0001.jpeg").symlink_to(store)
    assert ready(root, tmp_path)


# --- one image


def load(path: Path, size: tuple[int, int] = (128, 128)) -> torch.Tensor:
    return LoadGreyImage(size)({"id": "x", "path": str(path)})["image"]


def ramp(top: int = 255, kind: type = np.uint8) -> np.ndarray:
    """128 × 128 from 0 at the left to ``top`` at the right."""
    return np.tile(np.linspace(0, top, 128).round(), (128, 1)).astype(kind)


EXPECTED = torch.from_numpy(ramp() / np.float32(255))


def test_an_image_of_the_target_size_is_only_scaled(tmp_path: Path) -> None:
    Image.fromarray(50 + ramp() // 2).save(tmp_path / "x.png")  # grey levels 50 to 177
    pixels = torch.from_numpy((ramp() // 2) / np.float32(127))
    torch.testing.assert_close(load(tmp_path / "x.png")[0], pixels)


@pytest.mark.parametrize(
    ("suffix", "mode"),
    [
        *[("png", mode) for mode in ("L", "RGB", "RGBA", "LA", "P")],
        *[("jpeg", mode) for mode in ("L", "RGB", "CMYK")],
    ],
)
def test_every_mode_becomes_grey(tmp_path: Path, suffix: str, mode: str) -> None:
    colour = Image.fromarray(ramp()).convert("RGB")
    image = colour.quantize(256) if mode == "P" else colour.convert(mode)
    path = tmp_path / f"x.{suffix}"
    image.save(path, **({"quality": 100} if suffix == "jpeg" else {}))
    with Image.open(path) as saved:
        assert saved.mode == mode
    result = load(path)
    assert result.shape == (1, 128, 128)
    assert result.dtype == torch.float32
    assert (result.min(), result.max()) == (0, 1)
    # Two grey levels, for the coefficients of a JPEG and for a luma that sums to almost one.
    torch.testing.assert_close(result[0], EXPECTED, atol=2 / 255, rtol=0)


def test_colour_is_weighed_as_luma(tmp_path: Path) -> None:
    """ITU-R 601-2: 0.299 R + 0.587 G + 0.114 B, rounded to grey levels."""
    stripes = np.zeros((128, 128, 3), np.uint8)
    for channel in range(3):
        stripes[:, 32 * (channel + 1) : 32 * (channel + 2), channel] = 255
    Image.fromarray(stripes).save(tmp_path / "x.png")
    row = load(tmp_path / "x.png")[0, 0, 16::32]
    weights = torch.tensor([0, 0.299, 0.587, 0.114]) / 0.587  # green is the brightest
    torch.testing.assert_close(row, weights, atol=1 / 150, rtol=0)  # a level of 0.587 × 255 = 150


def test_sixteen_bits_are_not_clipped_to_eight(tmp_path: Path) -> None:
    Image.fromarray(ramp(65535, np.uint16)).save(tmp_path / "x.png")
    expected = torch.from_numpy(ramp(65535, np.uint16).astype(np.float32) / 65535)
    torch.testing.assert_close(load(tmp_path / "x.png")[0], expected)


@pytest.mark.parametrize("shape", [(20, 300), (300, 20), (128, 128), (1, 2), (1000, 900)])
def test_any_shape_ends_at_the_image_size_and_spans_zero_to_one(
    tmp_path: Path, shape: tuple[int, int]
) -> None:
    noise = np.random.default_rng(0).integers(90, 130, shape, dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "x.png")
    result = load(tmp_path / "x.png", (48, 64))
    assert result.shape == (1, 48, 64)
    assert float(result.min()) == 0
    assert float(result.max()) == 1


@pytest.mark.parametrize(("value", "kind"), [(0, np.uint8), (137, np.uint8), (40000, np.uint16)])
@pytest.mark.parametrize("shape", [(128, 128), (97, 301), (1, 1)])
def test_a_constant_image_is_refused_by_name(
    tmp_path: Path, shape: tuple[int, int], value: int, kind: type
) -> None:
    Image.fromarray(np.full(shape, value, kind)).save(tmp_path / "x.png")
    message = told(lambda: load(tmp_path / "x.png"))
    assert message.startswith(f"{tmp_path / 'x.png'}: a constant image shows nothing")
    assert f"all pixels are {value}" in message


def test_what_is_left_after_trimming_may_be_constant_and_becomes_black() -> None:
    flat = Image.fromarray(np.full((40, 40), 137.0, np.float32))
    pixels, _ = LoadGreyImage((16, 16), trim_border=True).fit(flat)
    assert not pixels.any()


TURNS = {1: 0, 3: 2, 6: 3, 8: 1}  # EXIF orientation: quarter turns to the left that undo it


@pytest.mark.parametrize("orientation", TURNS)
@pytest.mark.parametrize("suffix", ["png", "jpeg"])
def test_an_image_is_seen_as_exif_says(tmp_path: Path, orientation: int, suffix: str) -> None:
    y, x = np.mgrid[:240, :400] / 400
    upright = (255 * np.clip(x * (1 - y), 0, 1)).astype(np.uint8)
    stored = np.rot90(upright, -TURNS[orientation])
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(stored).save(tmp_path / f"turned.{suffix}", exif=exif)
    Image.fromarray(upright).save(tmp_path / f"upright.{suffix}")
    turned, expected = (load(tmp_path / f"{n}.{suffix}", (24, 40)) for n in ("turned", "upright"))
    torch.testing.assert_close(turned, expected, atol=2 / 255, rtol=0)


def test_a_grey_image_is_the_same_in_every_mode(tmp_path: Path) -> None:
    grey = Image.fromarray(ramp())
    expected = load(saved_as(grey, tmp_path / "grey.png"))
    for mode in ("RGB", "RGBA", "LA", "P"):
        other = saved_as(grey.convert(mode), tmp_path / f"{mode}.png")
        torch.testing.assert_close(load(other), expected, atol=1 / 255, rtol=0)
    print_colours = saved_as(grey.convert("CMYK"), tmp_path / "cmyk.jpeg", quality=98)
    torch.testing.assert_close(load(print_colours), expected, atol=3 / 255, rtol=0)


def saved_as(image: Image.Image, path: Path, **options: Any) -> Path:
    image.save(path, **options)
    return path


def test_a_file_that_may_not_be_read_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = picture(tmp_path / "x.png")

    def refuse(self: Path, *_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "open", refuse)  # root may read everything
    assert told(lambda: load(path)).startswith(f"{path}: not a readable image (may not be read)")


def test_a_linked_folder_of_images_is_data_and_a_loop_ends(root: Path, tmp_path: Path) -> None:
    before = len(scan_chest_xray(root))
    picture(tmp_path / "elsewhere" / "IM-0700-0001.jpeg")
    (root / "train" / "NORMAL" / "more").symlink_to(tmp_path / "elsewhere")
    (root / "train" / "NORMAL" / "loop").symlink_to(root / "train" / "NORMAL")
    found = ids(scan_chest_xray(root))
    assert len(found) == before + 1
    assert "train/NORMAL/more/IM-0700-0001.jpeg" in found


def framed(top: int, right: int, bottom: int, left: int) -> np.ndarray:
    """100 × 100 of bright noise with dark margins of these widths."""
    pixels = np.random.default_rng(0).integers(120, 256, (100, 100), dtype=np.uint8)
    pixels[:top] = pixels[100 - bottom :] = pixels[:, :left] = pixels[:, 100 - right :] = 3
    return pixels


@pytest.mark.parametrize(
    "margins", [(0, 0, 0, 0), (10, 0, 0, 0), (0, 20, 0, 5), (12, 7, 30, 1), (30, 30, 30, 30)]
)
def test_dark_margins_are_cut_off_exactly(margins: tuple[int, int, int, int]) -> None:
    top, right, bottom, left = margins
    assert trim_dark_border(framed(*margins)) == (left, top, 100 - right, 100 - bottom)


def test_at_most_thirty_percent_are_cut_on_each_side() -> None:
    assert trim_dark_border(framed(35, 35, 35, 35)) == (30, 30, 70, 70)
    assert trim_dark_border(framed(60, 0, 0, 0)) == (0, 30, 100, 100)


@pytest.mark.parametrize("level", [0.0, 137.0])
@pytest.mark.parametrize("shape", [(100, 80), (1, 1)])
def test_an_image_without_contrast_keeps_its_margins(shape: tuple[int, int], level: float) -> None:
    assert trim_dark_border(np.full(shape, level)) == (0, 0, shape[1], shape[0])


def test_a_trimmed_image_is_the_image_of_what_lies_within_its_margins(tmp_path: Path) -> None:
    pixels = framed(12, 7, 20, 1)
    pixels[40:50, 40:50], pixels[60:70, 60:70] = 0, 255  # black and white wherever it is cut
    Image.fromarray(pixels).save(tmp_path / "framed.png")
    Image.fromarray(pixels[12:80, 1:93]).save(tmp_path / "inside.png")
    record = {"id": "x", "path": str(tmp_path / "framed.png")}
    trimmed = LoadGreyImage((34, 46), trim_border=True)(record)["image"]
    inside, framed_too = (load(tmp_path / f"{n}.png", (34, 46)) for n in ("inside", "framed"))
    # 68 × 92 pixels become 34 × 46: the resize reaches one of them across the edge.
    ring = (slice(None), slice(1, -1), slice(1, -1))
    torch.testing.assert_close(trimmed[ring], inside[ring])
    assert (trimmed - framed_too).abs().mean() > 0.1


def decoded_in_full(path: Path) -> torch.Tensor:
    with Image.open(path) as image:
        grey = image.convert("L").convert("F").resize((128, 128), Image.Resampling.BILINEAR)
    pixels = np.asarray(grey)
    return torch.from_numpy((pixels - pixels.min()) / (pixels.max() - pixels.min()))


# The decoder's reduced image is rounded to whole grey levels, half a level off at most; so are
# the least and the greatest level, by which all is scaled. Together a level of 255 on average.
DRAFT_TOLERANCE = 1 / 255


@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_a_large_jpeg_decoded_small_is_the_image_decoded_in_full(tmp_path: Path, mode: str) -> None:
    y, x = np.mgrid[:1024, :1400] / 1024
    waves = (127.5 + 80 * np.sin(9 * x) * np.cos(7 * y)).round().astype(np.uint8)
    path = tmp_path / "x.jpeg"
    Image.fromarray(waves).convert(mode).save(path)
    assert (load(path)[0] - decoded_in_full(path)).abs().mean() < DRAFT_TOLERANCE


def test_a_large_jpeg_is_indeed_decoded_small(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[tuple[int, int]] = []
    resize = Image.Image.resize

    def spy(image: Image.Image, *args: Any, **kwargs: Any) -> Image.Image:
        sizes.append(image.size)
        return resize(image, *args, **kwargs)

    two_halves = Image.new("RGB", (1400, 1024))
    two_halves.paste((255, 255, 255), (0, 0, 700, 1024))
    two_halves.save(tmp_path / "x.jpeg")
    monkeypatch.setattr(Image.Image, "resize", spy)
    load(tmp_path / "x.jpeg")
    assert sizes == [(1400 // 4, 1024 // 4)]  # 1/8 would be less than twice 128


@pytest.mark.parametrize("content", [b"", b"<html>not found</html>", b"\x89PNG\r\n\x1a\n"])
def test_a_file_that_is_no_image_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.png").write_bytes(content)
    message = told(lambda: load(tmp_path / "x.png"))
    assert message.startswith(f"{tmp_path / 'x.png'}: not a readable image")


# --- batches


def test_batches_keep_the_contract(shared_root: Path, tmp_path: Path) -> None:
    data = ready(shared_root, tmp_path)
    labels: dict[str, list[int]] = {}
    for loader, split_name in (
        (data.train_dataloader(), "train"),
        (data.val_dataloader(), "val"),
        (data.test_dataloader(), "test"),
    ):
        seen: list[str] = []
        labels[split_name] = []
        for batch in loader:
            size = len(batch["id"])
            assert batch.keys() == {"image", "label", "id"}
            assert batch["image"].shape == (size, 1, 128, 128)
            assert batch["image"].dtype == torch.float32
            assert type(batch["image"]) is torch.Tensor
            assert batch["image"].flatten(1).min(1).values.eq(0).all()
            assert batch["image"].flatten(1).max(1).values.eq(1).all()
            assert batch["label"].shape == (size,)
            assert batch["label"].dtype == torch.int64
            assert type(batch["id"]) is list
            seen += batch["id"]
            labels[split_name] += batch["label"].tolist()
        assert sorted(seen) == sorted(ids(data.splits[split_name]))
        assert split_name == "train" or seen == ids(data.splits[split_name])
    assert {*labels["train"], *labels["val"]} == {0}
    assert Counter(labels["test"]) == {0: 4, 1: 4}


def marked(root: Path, name: str, rows: slice, columns: slice) -> None:
    """A large sick JPEG in dark margins of 40 pixels with its mask; black masks for the others."""
    pixels = np.full((400, 400), 3, np.uint8)
    pixels[40:360, 40:360] = 150
    pixels[rows, columns] = 255
    Image.fromarray(pixels).save(root / "test" / "PNEUMONIA" / f"{name}.jpeg", quality=95)
    folder = root / "masks" / "test" / "PNEUMONIA"
    folder.mkdir(parents=True)
    for path in (root / "test" / "PNEUMONIA").iterdir():
        Image.new("L", (24, 20)).save(folder / f"{path.stem}.png")
    Image.fromarray(np.where(pixels == 255, 255, 0).astype(np.uint8)).save(folder / f"{name}.png")


@pytest.mark.parametrize(
    ("trim_border", "expected"),
    [
        (False, (slice(12, 20), slice(24, 28))),  # 400 pixels become 40: divided by 10
        (True, (slice(10, 20), slice(25, 30))),  # 320 do: less the margin of 40, divided by 8
    ],
)
@pytest.mark.parametrize("cache_rate", [0.0, 1.0])
def test_a_mask_follows_what_it_marks_through_trimming_and_resizing(
    root: Path, tmp_path: Path, trim_border: bool, expected: tuple[slice, slice], cache_rate: float
) -> None:
    marked(root, "person50_virus_1", slice(120, 200), slice(240, 280))
    settings = {"image_size": (40, 40), "trim_border": trim_border, "cache_rate": cache_rate}
    data = ready(root, tmp_path, **settings)
    truth = torch.zeros(40, 40, dtype=torch.uint8)
    truth[expected] = 1
    seen = 0
    for batch in data.loader("test_full"):
        assert batch.keys() == {"image", "label", "id", "mask"}
        assert batch["mask"].shape == batch["image"].shape
        assert batch["mask"].dtype == torch.uint8
        for identifier, image, mask in zip(
            batch["id"], batch["image"][:, 0], batch["mask"][:, 0], strict=True
        ):
            if "person50" not in identifier:
                assert not mask.any()
                continue
            seen += 1
            assert torch.equal(mask, truth)
            inner = tuple(slice(part.start + 1, part.stop - 1) for part in expected)
            assert image[inner].min() > 0.95  # the opacity is where the mask says
    assert seen == 1
    for name in ("train", "val"):
        assert "mask" not in next(iter(data.loader(name)))


def test_a_tree_with_some_masks_only_is_refused(root: Path, tmp_path: Path) -> None:
    marked(root, "person50_virus_1", slice(120, 200), slice(240, 280))
    gone = root / "masks" / "test" / "PNEUMONIA" / "person12_virus_9.png"
    gone.unlink()
    data = ready(root, tmp_path)
    message = told(lambda: data.dataset("test_full"))
    assert message.startswith(f"{root / 'masks'}: 1 sick test images have no mask")
    assert message.endswith(f"\n  - {gone}")


def test_a_sample_is_the_image_of_its_id(shared_root: Path, tmp_path: Path) -> None:
    dataset = ready(shared_root, tmp_path, image_size=(40, 32)).dataset("test")
    for index in range(len(dataset)):
        sample = dataset[index]
        assert torch.equal(sample["image"], load(shared_root / sample["id"], (40, 32)))
        assert sample["label"] == int("PNEUMONIA" in sample["id"])


def no_file_is_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise AssertionError("an image was opened")

    monkeypatch.setattr("PIL.Image.open", fail)


def test_an_image_is_decoded_once_in_a_run(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = ready(root, tmp_path, cache_rate=0.0)
    first = torch.cat([batch["image"] for batch in data.train_dataloader()])
    no_file_is_opened(monkeypatch)
    second = torch.cat([batch["image"] for batch in data.train_dataloader()])
    assert torch.equal(first, second)
    assert not (tmp_path / "run" / "cache").exists()


def test_a_second_run_finds_the_decoded_images_on_disk(
    shared_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = ready(shared_root, tmp_path).dataset("train")
    no_file_is_opened(monkeypatch)
    second = ready(shared_root, tmp_path).dataset("train")
    assert torch.equal(first.images, second.images)


def test_trimming_is_not_answered_from_a_cache_without(root: Path, tmp_path: Path) -> None:
    for path in (root / "train" / "NORMAL").iterdir():
        Image.fromarray(framed(20, 20, 20, 20)).save(path)
    plain = ready(root, tmp_path).dataset("train").images
    trimmed = ready(root, tmp_path, trim_border=True).dataset("train").images
    assert trimmed.mean() > plain.mean() + 0.1  # 64 % of the frame is dark


def test_another_image_size_is_decoded_anew(shared_root: Path, tmp_path: Path) -> None:
    ready(shared_root, tmp_path).dataset("val")
    assert ready(shared_root, tmp_path, image_size=(64, 48)).dataset("val").images.shape[1:] == (
        *(1, 64, 48),
    )


@pytest.mark.parametrize("cache_rate", [0.0, 1.0])
def test_one_error_lists_every_image_that_cannot_be_read(
    root: Path, tmp_path: Path, cache_rate: float
) -> None:
    data = ready(root, tmp_path, cache_rate=cache_rate)
    paths = [Path(record["path"]) for record in data.splits["train"]]
    paths[1].write_text("not found")
    paths[3].write_bytes(paths[3].read_bytes()[:200])  # a broken download
    paths[5].write_bytes(b"")
    message = told(data.train_dataloader)
    first, *lines = message.splitlines()
    assert first.startswith("3 images cannot be read")
    assert [line.split(": ")[0] for line in lines] == [f"  - {paths[n]}" for n in (1, 3, 5)]


def test_the_split_is_saved_and_kept_when_images_are_added(root: Path, tmp_path: Path) -> None:
    first = ready(root, tmp_path, test_per_class=2)
    assert {path.name for path in (tmp_path / "run" / "splits").iterdir()} == {
        *("train.csv", "val.csv", "test.csv", "test_full.csv"),
    }
    for number in range(500, 510):
        picture(root / "train" / "NORMAL" / f"IM-{number:04d}-0001.jpeg")
    second = ready(root, tmp_path, seed=7, test_per_class=4)
    assert second.splits == first.splits


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("image_size", [128]),
        ("image_size", [128, 0]),
        ("image_size", [1, 128, 128]),
        ("batch_size", 0),
        ("num_workers", -1),
        ("cache_rate", 2),
        ("val_split", 1),
        ("calibration_split", -0.1),
        ("calibration_split", 1),
        ("patient_pattern", "("),
    ],
)
def test_a_value_that_cannot_work_is_named_before_any_data_is_read(
    tmp_path: Path, key: str, value: object
) -> None:
    message = told(lambda: module(tmp_path / "absent", tmp_path, **{key: value}))
    shown = repr(value) if key == "patient_pattern" else str(value)
    assert message.startswith(f"dataset.{key}={shown}: ")


# --- real images


@pytest.mark.skipif(
    not (SHARED / "chest_xray").is_dir(), reason=f"no real images at {SHARED / 'chest_xray'}"
)
def test_real_images_are_split_without_loss_or_leak(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    data = ready(SHARED / "chest_xray", tmp_path, val_split=0.1)
    parts = data.splits
    assert len(parts["train"]) + len(parts["val"]) == 1132 + 8
    assert Counter(record["label"] for record in parts["test"]) == {0: 201, 1: 201}
    assert not [record for record in caplog.records if record.levelname == "WARNING"]
    patients = [{r["patient"] for r in parts[name]} for name in ("train", "val", "test_full")]
    assert len(set.union(*patients)) == sum(len(group) for group in patients)
    sample = LoadGreyImage((128, 128))(parts["test"][0])
    assert sample["image"].shape == (1, 128, 128)
    assert (sample["image"].min(), sample["image"].max()) == (0, 1)


@pytest.mark.skipif(
    not (SHARED / "chest_xray_fullres").is_dir(),
    reason=f"no real images at {SHARED / 'chest_xray_fullres'}",
)
def test_real_images_decoded_small_are_those_decoded_in_full() -> None:
    paths = sorted((SHARED / "chest_xray_fullres").rglob("*.jpeg"))[:6]
    assert paths
    for path in paths:
        assert (load(path)[0] - decoded_in_full(path)).abs().mean() < DRAFT_TOLERANCE
