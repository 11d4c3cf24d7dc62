"""Claims about filling the cache: all at once, announced, with every failure told, never twice."""

from __future__ import annotations

import logging
import os
import shutil
import threading
import time
from collections import namedtuple
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from isal import igzip
from monai.transforms import Compose, Transform
from nibabel.arrayproxy import ArrayProxy
from torch.utils.data import DataLoader

from vaelab.data import build
from vaelab.data.build import check_room, fill_cache, find_missing, map_blocks, thread_pool
from vaelab.data.cache import cached_dataset
from vaelab.data.entry import read_entry
from vaelab.data.mri.brats import BraTSDataModule
from vaelab.data.phantoms.mri import PhantomMRI
from vaelab.data.phantoms.xray import PhantomXray
from vaelab.data.xray.chest_xray import ChestXrayDataModule
from vaelab.data.xray.grey_image import LoadGreyImage
from vaelab.errors import UserError


class Load(Transform):
    """Gives four numbers; fails for the ids it is told to."""

    def __init__(self, *broken: str, error: type[Exception] = UserError) -> None:
        self.broken = broken
        self.error = error
        self.calls: list[str] = []
        self.threads: set[int] = set()

    def __call__(self, data: Mapping[str, Any]) -> dict[str, Any]:
        self.calls.append(data["id"])
        self.threads.add(torch.get_num_threads())
        if data["id"] in self.broken:
            raise self.error("not readable")
        return {"id": data["id"], "image": torch.full((4,), float(data["number"]))}


def dataset(folder: Path, load: Load, rate: float = 1.0, values: int = 4) -> Any:
    records = [{"id": f"S{number}", "number": str(number)} for number in range(10)]
    return cached_dataset(records, Compose([load]), {}, folder, rate, values=values)


def entries(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.safetensors"))


@pytest.mark.parametrize("count", [0, 1, 32, 100])
def test_items_are_handed_to_threads_in_blocks_and_come_back_in_order(
    monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    with thread_pool() as pool:
        handed: list[Any] = []
        submit = pool.submit
        monkeypatch.setattr(pool, "submit", lambda *a: (handed.append(a), submit(*a))[1])
        assert list(map_blocks(pool, str, range(count))) == [str(n) for n in range(count)]
    assert len(handed) == -(-count // 32)


def test_no_block_begins_after_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []

    def fail(number: int) -> None:
        seen.append(number)
        time.sleep(0.01)  # the others are called off meanwhile
        raise ValueError

    monkeypatch.setattr(build, "MAX_THREADS", 1)
    with pytest.raises(ValueError), thread_pool() as pool:
        list(map_blocks(pool, fail, range(10_000)))
    assert len(seen) < 100  # of the 313 blocks, each of which ends at its first item


def fill(*datasets: Any) -> None:
    fill_cache(datasets, progress_bar=False)


def test_all_that_is_missing_is_made_and_nothing_else(tmp_path: Path) -> None:
    load = Load()
    samples = dataset(tmp_path, load)
    samples[3]
    fill(samples)
    assert sorted(load.calls) == [f"S{number}" for number in range(10)]
    fill(samples)
    assert [float(samples[index]["image"][0]) for index in range(10)] == [*range(10)]
    assert len(load.calls) == 10


def test_a_sample_of_two_splits_is_made_once(tmp_path: Path) -> None:
    load = Load()
    fill(dataset(tmp_path, load), dataset(tmp_path, load))
    assert len(load.calls) == 10


def test_only_the_share_that_is_cached_is_made(tmp_path: Path) -> None:
    load = Load()
    fill(dataset(tmp_path, load, rate=0.4))
    assert len(load.calls) == len(entries(tmp_path)) == 4
    fill(dataset(tmp_path / "none", Load(), rate=0.0))
    assert not (tmp_path / "none").exists()


def test_threads_do_not_multiply(tmp_path: Path) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        load = Load()
        fill(dataset(tmp_path, load))
        assert load.threads == {1}
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_every_sample_that_fails_is_told_and_the_others_are_kept(tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        fill(dataset(tmp_path, Load("S7", "S2")))
    first, *lines = str(caught.value).splitlines()
    assert first.startswith("2 of 10 samples cannot be preprocessed")
    assert lines == ["  - S2: not readable", "  - S7: not readable"]
    assert len(entries(tmp_path)) == 8


def test_an_error_of_ours_is_not_taken_for_one_of_the_data(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError) as caught:
        fill(dataset(tmp_path, Load("S2", error=ZeroDivisionError)))
    assert isinstance(caught.value.__cause__, ZeroDivisionError)


def test_an_interruption_leaves_whole_entries_and_no_thread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(jobs: Any) -> Any:
        yield next(iter(original(jobs)))
        raise KeyboardInterrupt

    original = build.as_completed
    monkeypatch.setattr(build, "as_completed", interrupted)
    threads = threading.active_count()
    with pytest.raises(KeyboardInterrupt):
        fill(dataset(tmp_path, Load()))
    assert threading.active_count() == threads
    assert not list(tmp_path.glob(".*"))
    assert all(read_entry(path)["image"].shape == (4,) for path in entries(tmp_path))


Usage = namedtuple("Usage", "total used free")


def test_the_size_is_announced_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(0, 0, 160_000_000))
    caplog.set_level(logging.INFO)
    check_room(find_missing([dataset(tmp_path, Load(), values=4_000_000)]))  # 10 × 16 MB
    assert "preprocessing 10 samples, 0.16 GB" in caplog.text


def test_a_disk_that_cannot_hold_it_is_refused_before_anything_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(0, 0, 159_999_999))
    load = Load()
    with pytest.raises(UserError) as caught:
        fill(dataset(tmp_path, load, values=4_000_000))
    assert load.calls == []
    message = str(caught.value)
    assert message.startswith(f"dataset.cache_dir={tmp_path}: 10 preprocessed samples take 0.16 GB")
    for cure in ("dataset.cache_rate=", "dataset.cache_dtype=float16"):
        assert cure in message


def test_what_killed_writers_have_left_is_removed_but_not_what_is_being_written(
    tmp_path: Path,
) -> None:
    old, new = tmp_path / ".old.partial", tmp_path / ".new.partial"
    for path in (old, new):
        path.touch()
    os.utime(old, (1, 1))
    fill(dataset(tmp_path, Load()))
    assert (old.exists(), new.exists()) == (False, True)


# --- nothing decodes twice


@pytest.fixture(scope="module")
def mri(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return PhantomMRI(3, 0, 6.0).prepare(tmp_path_factory.mktemp("mri"))


def volumes(root: Path, folder: Path, **changed: Any) -> BraTSDataModule:
    settings: dict[str, Any] = {
        "roi_size": (16, 16, 16),
        "spacing": (12.0, 12.0, 12.0),
        "val_split": 0.4,
        "progress_bar": False,
    }
    return BraTSDataModule(
        str(root), str(folder / "splits"), str(folder / "cache"), **(settings | changed)
    )


def test_two_epochs_and_an_evaluation_decode_each_volume_once(
    mri: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded: list[str] = []
    original = igzip.open

    def counted(path: str) -> Any:
        decoded.append(path)
        return original(path)

    def refused(*_: Any) -> None:
        raise AssertionError("nibabel decodes voxels")

    monkeypatch.setattr(igzip, "open", counted)
    monkeypatch.setattr(ArrayProxy, "__array__", refused)
    data = volumes(mri, tmp_path)
    data.prepare_data()
    assert len(decoded) == 3 * 5
    for _ in range(2):
        assert len([*data.train_dataloader(), *data.val_dataloader()]) == 2
    later = volumes(mri, tmp_path)
    later.setup()
    assert len([*later.loader("val"), *later.loader("train")]) == 2
    assert len(decoded) == len(set(decoded)) == 3 * 5


def test_two_epochs_and_an_evaluation_decode_each_radiograph_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded: list[str] = []
    original = LoadGreyImage.__call__

    def counted(self: LoadGreyImage, item: Mapping[str, Any]) -> dict[str, Any]:
        decoded.append(item["id"])
        return original(self, item)

    monkeypatch.setattr(LoadGreyImage, "__call__", counted)

    def ready() -> ChestXrayDataModule:
        made = ChestXrayDataModule(
            str(root), str(tmp_path / "splits"), str(tmp_path / "cache"), (32, 32),
            progress_bar=False,
        )  # fmt: skip
        made.setup()
        return made

    root = PhantomXray(12, 6, 48).prepare(str(tmp_path / "data"))
    data = ready()
    for _ in range(2):
        assert [*data.train_dataloader(), *data.val_dataloader()]
    assert [*data.loader("test")]
    assert [*ready().loader("test"), *ready().loader("val")]
    images = {record["id"] for split in ("train", "val", "test") for record in data.splits[split]}
    assert sorted(decoded) == sorted(images)


@pytest.mark.parametrize("cache_rate", [0.0, 0.5, 1.0])
def test_workers_change_neither_samples_nor_their_order(
    mri: Path, tmp_path: Path, cache_rate: float
) -> None:
    alone = volumes(mri, tmp_path, cache_rate=cache_rate, batch_size=1)
    alone.setup()
    shared = volumes(mri, tmp_path, cache_rate=cache_rate, batch_size=1, num_workers=2)
    shared.setup()
    for one, other in zip(alone.train_dataloader(), shared.train_dataloader(), strict=True):
        assert one["id"] == other["id"]
        assert torch.equal(one["image"], other["image"])
        assert torch.equal(one["seg"], other["seg"])


def test_memory_is_pinned_only_for_a_gpu_that_is_used(mri: Path, tmp_path: Path) -> None:
    data = volumes(mri, tmp_path)
    data.setup()
    loader = data.train_dataloader()
    assert isinstance(loader, DataLoader)
    assert not loader.pin_memory
