"""The data part of the benchmark times real reads, whatever was read before."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from vaelab.benchmark.throughput import data_throughput
from vaelab.data.phantoms.xray import PhantomXray
from vaelab.data.xray import grey_image
from vaelab.data.xray.chest_xray import ChestXrayDataModule


@pytest.fixture
def xrays(tmp_path: Path) -> ChestXrayDataModule:
    """Set up, and so with all images decoded."""
    module = ChestXrayDataModule(
        root_dir=str(tmp_path),
        phantoms=PhantomXray(num_train=8, num_test=8, image_size=48),
        splits_dir=str(tmp_path / "splits"),
        cache_dir=str(tmp_path / "cache"),
        batch_size=2,
        image_size=(16, 16),
        val_split=0.25,
        progress_bar=False,
    )
    module.setup("fit")
    return module


def test_a_limited_copy_reads_anew_what_its_original_has_in_memory(
    xrays: ChestXrayDataModule, tmp_path: Path
) -> None:
    whole = xrays.dataset("train")
    few = xrays.limited(3, tmp_path / "other")
    images = few.dataset("train")
    assert len(images) == 3
    assert len([*(tmp_path / "other").rglob("*.safetensors")]) == 3
    assert images[2]["image"].equal(whole[2]["image"])
    assert xrays.dataset("train") is whole
    assert len(xrays.splits["train"]) == len(whole) > 3


def test_images_are_decoded_in_every_round_and_read_back_from_the_cache(
    xrays: ChestXrayDataModule, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded: list[Any] = []
    load = grey_image.LoadGreyImage.__call__

    def counted(self: grey_image.LoadGreyImage, data: Any) -> Any:
        decoded.append(data)
        return load(self, data)

    monkeypatch.setattr(grey_image.LoadGreyImage, "__call__", counted)
    result = data_throughput(xrays, cases=4, rounds=1, folder=tmp_path / "scratch")
    # Whatever is repeated until it takes long enough decodes all four each time.
    assert len(decoded) % 4 == 0
    assert len(decoded) >= 4 * (2 + 1 + 1)  # to warm up, for the round, to fill the cache
    assert result["cases"] == 4
    assert result["cache"]["bytes_per_case"] > 16 * 16 * 4  # float32
    assert result["cache"]["gigabytes_per_second"].keys() == {"epoch", "first", "plain"}
    assert result["loader"]["samples_per_second"] > 0


def test_without_a_cache_no_speed_of_a_cache_is_reported(
    xrays: ChestXrayDataModule, tmp_path: Path
) -> None:
    xrays.cache_rate = 0.0
    result = data_throughput(xrays, cases=4, rounds=1, folder=tmp_path / "scratch")
    assert result.keys() == {"cases", "preprocessing", "loader"}
