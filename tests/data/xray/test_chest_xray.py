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

from vaelab.data.index import Record
from vaelab.data.xray.chest_xray import ChestXrayDataModule, split_chest_xray
from vaelab.data.xray.grey_image import LoadGreyImage
from vaelab.data.xray.index import scan_chest_xray
from vaelab.data.xray.leaks import check_no_sick
from vaelab.errors import UserError

SHARED = Path(__file__).parents[3].parent / "shared" / "data"
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


def test_a_linked_folder_of_images_is_data_and_a_loop_ends(root: Path, tmp_path: Path) -> None:
    before = len(scan_chest_xray(root))
    picture(tmp_path / "elsewhere" / "IM-0700-0001.jpeg")
    (root / "train" / "NORMAL" / "more").symlink_to(tmp_path / "elsewhere")
    (root / "train" / "NORMAL" / "loop").symlink_to(root / "train" / "NORMAL")
    found = ids(scan_chest_xray(root))
    assert len(found) == before + 1
    assert "train/NORMAL/more/IM-0700-0001.jpeg" in found


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


def test_samples_are_the_same_from_memory_and_from_files_and_carry_no_mask(
    root: Path, tmp_path: Path
) -> None:
    marked(root, "person50_virus_1", slice(120, 200), slice(240, 280))
    data = ready(root, tmp_path)
    records = [*data.splits["train"], *data.splits["test_full"]]
    from_files = [data.samples(records)[place] for place in range(len(records))]
    for name in ("train", "test_full"):
        data.dataset(name)
    for place, expected in enumerate(from_files):
        sample = data.samples(records)[place]
        assert set(sample) == {"image", "label", "id"}
        assert torch.equal(sample["image"], expected["image"])
        assert (sample["label"], sample["id"]) == (expected["label"], expected["id"])
    assert [sample["id"] for sample in from_files] == ids(records)


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
    decode = LoadGreyImage((40, 32))
    for index in range(len(dataset)):
        sample = dataset[index]
        file = {"id": "x", "path": str(shared_root / sample["id"])}
        assert torch.equal(sample["image"], decode(file)["image"])
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
        frame = Image.new("L", (100, 100), 3)
        frame.paste(Image.open(picture(path)).resize((60, 60)), (20, 20))
        frame.save(path)
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
