"""Claims about the cache: work is done once, and never reused where it is out of date."""

from __future__ import annotations

import json
import os
import resource
import shutil
import threading
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import Compose, Randomizable, Transform
from safetensors import safe_open
from torch.utils.data import ConcatDataset

from vaelab.data import cache
from vaelab.data.cache import CacheKey, cached_dataset, check_cache
from vaelab.data.entry import read_entry
from vaelab.data.volumes.settings import VolumeSettings
from vaelab.data.volumes.transforms import preprocessing, train_pipeline, val_pipeline
from vaelab.errors import UserError

SETTINGS = {"size": 4}
VOLUMES = ("t1c", "seg")


class Count(Transform):
    """Reads the file and remembers that it did."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    def __call__(self, data: Mapping[str, Any]) -> dict[str, Any]:
        self.calls.append(data["id"])
        number = float(Path(data["path"]).read_text())
        return {"id": data["id"], "image": torch.full((4,), number)}


class Jitter(Randomizable, Transform):
    """Something random: not to be cached."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    def __call__(self, data: Mapping[str, Any]) -> dict[str, Any]:
        self.calls.append(data["id"])
        return {**data, "image": data["image"] + len(self.calls)}


@pytest.fixture
def records(tmp_path: Path) -> list[dict[str, str]]:
    """Ten files that hold the numbers 0 to 9."""
    (tmp_path / "data").mkdir()
    found = []
    for number in range(10):
        path = tmp_path / "data" / f"{number}.txt"
        path.write_text(str(number))
        found.append({"id": f"S{number}", "path": str(path)})
    return found


def entries(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.safetensors"))


def key(item: Mapping[str, Any], **settings: Any) -> bytes:
    return CacheKey(settings, lambda path: Path(path).read_text())(item)


# --- work is done once


def test_deterministic_transforms_run_once_and_random_ones_every_time(
    records: list[dict[str, str]], tmp_path: Path
) -> None:
    count, jitter = Count(), Jitter()
    dataset = cached_dataset(records, Compose([count, jitter]), SETTINGS, tmp_path / "cache", 1.0)
    for _ in range(3):
        for index in range(len(records)):
            dataset[index]
    assert count.calls == [f"S{number}" for number in range(10)]
    assert len(jitter.calls) == 3 * 10


def test_another_run_reuses_the_entries(records: list[dict[str, str]], tmp_path: Path) -> None:
    first, second = Count(), Count()
    for count in (first, second):
        dataset = cached_dataset(records, Compose([count]), SETTINGS, tmp_path / "cache", 1.0)
        assert [float(dataset[index]["image"][0]) for index in range(10)] == [*range(10)]
    assert len(first.calls) == 10
    assert second.calls == []


@pytest.mark.parametrize(("rate", "cached"), [(0.0, 0), (0.5, 5), (0.25, 2), (1.0, 10)])
def test_a_share_of_the_samples_is_cached_and_all_are_there(
    records: list[dict[str, str]], tmp_path: Path, rate: float, cached: int
) -> None:
    count = Count()
    dataset = cached_dataset(records, Compose([count]), SETTINGS, tmp_path / "cache", rate)
    for _ in range(2):
        assert [dataset[index]["id"] for index in range(10)] == [f"S{n}" for n in range(10)]
    assert len(entries(tmp_path / "cache")) == cached
    assert len(count.calls) == 2 * 10 - cached  # the others are read in both passes
    assert isinstance(dataset, ConcatDataset) == (0 < cached < 10)


# --- never out of date


def test_a_changed_setting_makes_a_new_entry(records: list[dict[str, str]], tmp_path: Path) -> None:
    count = Count()
    for settings in ({"size": 4}, {"size": 5}, {"size": 4}):
        cached_dataset(records[:1], Compose([count]), settings, tmp_path / "cache", 1.0)[0]
    assert len(count.calls) == len(entries(tmp_path / "cache")) == 2


def test_changed_content_makes_a_new_entry(records: list[dict[str, str]], tmp_path: Path) -> None:
    dataset = cached_dataset(records, Compose([Count()]), SETTINGS, tmp_path / "cache", 1.0)
    assert dataset[3]["image"][0] == 3
    Path(records[3]["path"]).write_text("33")
    assert dataset[3]["image"][0] == 33


def test_a_touched_file_keeps_its_entry(records: list[dict[str, str]], tmp_path: Path) -> None:
    count = Count()
    dataset = cached_dataset(records, Compose([count]), SETTINGS, tmp_path / "cache", 1.0)
    dataset[0]
    os.utime(records[0]["path"], (1, 1))  # the same content
    dataset[0]
    assert count.calls == ["S0"]


def test_a_file_replaced_by_one_of_the_same_size_and_date_makes_a_new_entry(
    records: list[dict[str, str]], tmp_path: Path
) -> None:
    path = Path(records[3]["path"])
    os.utime(path, (1, 1))
    dataset = cached_dataset(records, Compose([Count()]), SETTINGS, tmp_path / "cache", 1.0)
    assert dataset[3]["image"][0] == 3
    path.write_text("8")
    os.utime(path, (1, 1))
    assert dataset[3]["image"][0] == 8


def test_copies_of_the_data_share_entries(records: list[dict[str, str]], tmp_path: Path) -> None:
    shutil.copytree(tmp_path / "data", tmp_path / "copy")
    copies = [{**r, "path": str(tmp_path / "copy" / Path(r["path"]).name)} for r in records]
    first, second = Count(), Count()
    for found, count in ((records, first), (copies, second)):
        dataset = cached_dataset(found, Compose([count]), SETTINGS, tmp_path / "cache", 1.0)
        assert [float(dataset[index]["image"][0]) for index in range(10)] == [*range(10)]
    assert (len(first.calls), len(second.calls)) == (10, 0)


def test_the_key_tells_apart_what_makes_another_sample(
    records: list[dict[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = [
        key(records[0]),
        key(records[1]),
        key(records[0] | {"seg": records[1]["path"]}),
        key(records[0] | {"id": "other"}),
        key(records[0], spacing=[1, 1, 1]),
        key(records[0], spacing=[1, 1, 2]),
    ]
    monkeypatch.setattr(cache, "FORMAT", cache.FORMAT + 1)
    keys.append(key(records[0]))
    monkeypatch.setattr(cache, "version", lambda name: f"{name}-of-tomorrow")
    keys.append(key(records[0]))
    assert len(set(keys)) == len(keys)


def test_the_key_does_not_depend_on_the_order_of_keys(records: list[dict[str, str]]) -> None:
    item = records[0]
    backwards = dict(reversed(item.items()))
    assert [*backwards] != [*item]
    assert key(backwards, a=1, b=2) == key(item, b=2, a=1)


def test_an_id_that_names_a_file_is_not_taken_for_one(
    records: list[dict[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(Path(records[0]["path"]).parent)
    item = {"id": "1.txt", "path": records[0]["path"]}
    before = key(item)
    Path("1.txt").write_text("changed")
    assert key(item) == before


def test_the_key_says_what_it_is_made_of() -> None:
    spec = json.loads(CacheKey({"roi_size": [8, 8, 8]}, str).spec)
    assert spec["settings"] == {"roi_size": [8, 8, 8]}
    assert spec["versions"].keys() == {"monai", "torch", "numpy", "nibabel", "pillow"}


# --- entries are whole


def test_an_interrupted_write_leaves_no_entry(
    records: list[dict[str, str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = cached_dataset(records, Compose([Count()]), SETTINGS, tmp_path / "cache", 1.0)

    def pull_the_plug(partial: Path, _: object) -> None:
        partial.write_bytes(b"half")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", pull_the_plug)
        with pytest.raises(KeyboardInterrupt):
            dataset[0]
    assert [path for path in (tmp_path / "cache").iterdir() if path.suffix != ".txt"] == []
    assert dataset[0]["image"][0] == 0


def test_a_damaged_entry_is_made_again_with_a_warning(
    records: list[dict[str, str]], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    count = Count()
    dataset = cached_dataset(records, Compose([count]), SETTINGS, tmp_path / "cache", 1.0)
    dataset[7]
    (entry,) = entries(tmp_path / "cache")
    content = bytearray(entry.read_bytes())
    content[-1] ^= 1  # a bit of a voxel
    entry.write_bytes(content)
    assert dataset[7]["image"][0] == 7
    assert f"{entry}: a damaged cache entry" in caplog.text
    caplog.clear()
    assert dataset[7]["image"][0] == 7
    assert len(count.calls) == 2
    assert not caplog.records


def test_two_that_make_one_entry_at_once_both_succeed(
    records: list[dict[str, str]], tmp_path: Path
) -> None:
    together = threading.Barrier(2)

    class Meet(Count):
        def __call__(self, data: Mapping[str, Any]) -> dict[str, Any]:
            together.wait(10)
            return super().__call__(data)

    count = Meet()
    datasets = [
        cached_dataset(records, Compose([count]), SETTINGS, tmp_path / "cache", 1.0)
        for _ in range(2)
    ]
    with ThreadPoolExecutor(2) as pool:
        samples = list(pool.map(lambda dataset: dataset[5], datasets))
    assert count.calls == ["S5", "S5"]
    assert all(sample["image"][0] == 5 for sample in samples)
    (entry,) = entries(tmp_path / "cache")
    assert read_entry(entry)["image"][0] == 5
    assert not list((tmp_path / "cache").glob(".*"))


def test_a_full_disk_is_an_error_that_says_so_and_leaves_nothing_half(
    records: list[dict[str, str]], tmp_path: Path
) -> None:
    class Large(Count):
        def __call__(self, data: Mapping[str, Any]) -> dict[str, Any]:
            return {"id": data["id"], "image": torch.zeros(1_000_000)}

    dataset = cached_dataset(records, Compose([Large()]), SETTINGS, tmp_path / "cache", 1.0)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (500_000, limits[1]))
    try:
        with pytest.raises(UserError, match=r"no room .* dataset\.cache_dir=<folder>"):
            dataset[0]
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert not list((tmp_path / "cache").glob(".*"))
    assert entries(tmp_path / "cache") == []


def test_new_records_leave_the_entries_of_other_runs_alone(
    records: list[dict[str, str]], tmp_path: Path
) -> None:
    dataset: Any = cached_dataset(records, Compose([Count()]), SETTINGS, tmp_path / "cache", 1.0)
    dataset[0]
    dataset.set_data(records[1:])
    assert dataset[0]["image"][0] == 1
    assert len(entries(tmp_path / "cache")) == 2


# --- in half the space


@pytest.mark.parametrize(
    ("dtype", "worst"),
    [("float16", 2.0**-11), ("bfloat16", 2.0**-8)],  # half a unit in the last of 10 and 7 bits
)
def test_half_precision_halves_the_entry_and_costs_no_more_than_its_rounding(
    records: list[dict[str, str]], tmp_path: Path, dtype: str, worst: float
) -> None:
    exact = torch.randn(10_000, generator=torch.Generator().manual_seed(0))

    class Noise(Count):
        def __call__(self, data: Mapping[str, Any]) -> dict[str, Any]:
            return {"id": data["id"], "image": exact, "seg": torch.ones(3, dtype=torch.uint8)}

    dataset = cached_dataset(records, Compose([Noise()]), SETTINGS, tmp_path / "cache", 1.0, dtype)
    made, read = dataset[0], dataset[0]
    assert torch.equal(made["image"], read["image"])
    assert read["image"].dtype == torch.float32
    assert read["seg"].dtype == torch.uint8
    error = (read["image"] - exact).abs() / exact.abs().clamp(min=2.0**-14)
    assert 0 < error.max() <= worst
    (entry,) = entries(tmp_path / "cache")
    assert entry.stat().st_size < 2 * 10_000 + 1000


def test_precisions_do_not_answer_for_each_other(
    records: list[dict[str, str]], tmp_path: Path
) -> None:
    count = Count()
    for dtype in ("float32", "float16", "bfloat16"):
        cached_dataset(records, Compose([count]), SETTINGS, tmp_path / "cache", 1.0, dtype)[0]
    assert len(count.calls) == len(entries(tmp_path / "cache")) == 3


def test_an_unknown_precision_is_refused() -> None:
    with pytest.raises(UserError, match=r"dataset\.cache_dtype=int8: must be one of float32"):
        check_cache(1.0, "int8")


# --- with volumes


@pytest.fixture
def subject(tmp_path: Path) -> dict[str, str]:
    rng = np.random.default_rng(0)
    volumes = {
        "t1c": rng.normal(100, 20, (16, 16, 16)).astype(np.float32),
        "seg": rng.integers(0, 4, (16, 16, 16)).astype(np.uint8),
    }
    for name, array in volumes.items():
        nibabel.save(nibabel.Nifti1Image(array, np.diag([-1, -1, 1, 1])), tmp_path / f"{name}.nii")
    return {"id": "S1"} | {name: str(tmp_path / f"{name}.nii") for name in VOLUMES}


SPEC = VolumeSettings(("t1c",), (12, 16, 20))


def pipeline(split: str, spec: VolumeSettings = SPEC) -> Compose:
    steps = preprocessing(spec)
    if split == "train":
        return train_pipeline(steps, spec.roi_size, with_seg=True)
    return val_pipeline(steps, with_seg=True)


@pytest.mark.parametrize("split", ["train", "val"])
def test_a_second_pass_reads_the_entry_without_complaint(
    subject: dict[str, str], tmp_path: Path, caplog: pytest.LogCaptureFixture, split: str
) -> None:
    """Warnings are errors here, MONAI's of a corrupt cache included."""
    dataset = cached_dataset([subject], pipeline(split), SPEC.as_dict(), tmp_path / "cache", 1.0)
    dataset[0]
    (entry,) = entries(tmp_path / "cache")
    written = entry.stat().st_mtime_ns
    dataset[0]
    assert entry.stat().st_mtime_ns == written
    assert not caplog.records


@pytest.mark.parametrize("split", ["train", "val"])
def test_an_entry_holds_plain_tensors_and_no_code(
    subject: dict[str, str], tmp_path: Path, split: str
) -> None:
    cached_dataset([subject], pipeline(split), SPEC.as_dict(), tmp_path / "cache", 1.0)[0]
    (entry,) = entries(tmp_path / "cache")
    content = safe_open(entry, "pt")
    assert content.get_tensor("image").dtype == torch.float32
    assert content.get_tensor("seg").dtype == torch.uint8
    content = read_entry(entry)
    assert {name: type(value) for name, value in content.items()} == {
        "image": torch.Tensor,
        "seg": torch.Tensor,
        "id": str,
    }


@pytest.mark.parametrize("split", ["train", "val"])
def test_a_sample_is_the_same_uncached_first_cached_and_read_again(
    subject: dict[str, str], tmp_path: Path, split: str
) -> None:
    cached = cached_dataset([subject], pipeline(split), SPEC.as_dict(), tmp_path / "cache", 1.0)
    uncached = cached_dataset([subject], pipeline(split), SPEC.as_dict(), tmp_path / "cache", 0.0)
    expected = uncached[0]
    for sample in (cached[0], cached[0]):
        assert sample.keys() == expected.keys()
        for name in ("image", "seg"):
            assert torch.equal(sample[name], expected[name])
            assert sample[name].dtype == expected[name].dtype
            assert not isinstance(sample[name], MetaTensor)


def test_train_and_validation_share_entries(subject: dict[str, str], tmp_path: Path) -> None:
    """So that another split of the same data costs no preprocessing."""
    for split in ("train", "val"):
        cached_dataset([subject], pipeline(split), SPEC.as_dict(), tmp_path / "cache", 1.0)[0]
    assert len(entries(tmp_path / "cache")) == 1


def test_an_entry_takes_the_space_of_its_sample_and_not_of_the_volume_it_was_cut_from(
    subject: dict[str, str], tmp_path: Path
) -> None:
    small = replace(SPEC, roi_size=(4, 4, 4))
    cached_dataset([subject], pipeline("val", small), small.as_dict(), tmp_path / "cache", 1.0)[0]
    (entry,) = entries(tmp_path / "cache")
    assert entry.stat().st_size < 4 * 4**3 + 4**3 + 4096  # float32, uint8 and the file's frame
    assert 4 * 16**3 > 4 * 4**3 + 4**3 + 4096  # the volume would not fit in there


def test_entries_keep_up_with_a_replaced_volume(subject: dict[str, str], tmp_path: Path) -> None:
    dataset = cached_dataset([subject], pipeline("val"), SPEC.as_dict(), tmp_path / "cache", 1.0)
    before = dataset[0]["image"]
    array = np.asarray(nibabel.load(subject["t1c"]).dataobj)[::-1]
    nibabel.save(nibabel.Nifti1Image(array.copy(), np.diag([-1, -1, 1, 1])), subject["t1c"])
    assert not torch.equal(dataset[0]["image"], before)
