"""Claims about what tasks may ask of any dataset, and what one says that has no answer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import Dataset

from vaelab.data.contract import InputSample
from vaelab.data.index import Record
from vaelab.data.module import SplitDataModule
from vaelab.data.phantoms.xray import PhantomXray
from vaelab.data.xray.chest_xray import ChestXrayDataModule
from vaelab.errors import UserError


class Numbers(Dataset[dict[str, Any]]):
    def __init__(self, records: list[Record]) -> None:
        self.records = records

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: int) -> dict[str, Any]:
        number = float(self.records[index]["number"])
        return {"image": torch.full((1, 2, 2), number), "id": self.records[index]["id"]}


class NumberDataModule(SplitDataModule):
    """The least that a dataset can be."""

    channel_names = ("number",)

    def scan(self, root_dir: str | Path | None) -> list[Record]:
        return [{"id": f"{n}-1", "patient": str(n), "number": n} for n in range(4)]

    def dataset(self, split: str) -> Dataset[Any]:
        return Numbers(self.splits[split])


@pytest.fixture
def numbers(tmp_path: Path) -> NumberDataModule:
    module = NumberDataModule(
        str(tmp_path), str(tmp_path / "splits"), str(tmp_path / "cache"), r"^(\d+)",
        val_split=0.5, seed=0, batch_size=1, num_workers=0, cache_rate=1.0, phantoms=None,
    )  # fmt: skip
    module.setup()
    return module


def test_a_dataset_that_says_nothing_has_no_size_no_covariates_and_no_time(
    numbers: NumberDataModule,
) -> None:
    assert numbers.spacing is None
    assert numbers.affine((2, 2)) is None
    assert numbers.covariates == {}
    assert numbers.sample_settings() == {}
    assert numbers.plain_pipeline() is None
    assert not numbers.ids_carry_time_points
    assert not numbers.keeps_samples_in_memory


@pytest.mark.parametrize(
    ("ask", "key", "method"),
    [
        (lambda data: data.find_inputs("a", Path("out")), "task.inputs", "find_inputs"),
        (lambda data: data.read_input(Path("a")), "task.inputs", "read_input"),
        (
            lambda data: data.save_map(
                torch.zeros(2, 2), InputSample(torch.zeros(1, 2, 2), Path("a")), Path("b"), max
            ),
            "task.save_maps=true",
            "save_map",
        ),
        (lambda data: data.shiftable_images(), "task=robustness", "shiftable_images"),
        (lambda data: data.with_patients(3), "task=growth", "with_patients"),
        (lambda data: data.with_side(3), "task=growth", "with_side"),
    ],
)
def test_what_a_dataset_cannot_do_is_said_with_the_method_that_is_missing(
    numbers: NumberDataModule, ask: Any, key: str, method: str
) -> None:
    with pytest.raises(
        UserError, match=rf"{key}: a NumberDataModule cannot .*implement .*{method}"
    ):
        ask(numbers)


def test_any_records_can_be_had_as_samples_in_their_order(numbers: NumberDataModule) -> None:
    val, train = numbers.splits["val"], numbers.splits["train"]
    samples = numbers.samples([val[1], train[0]])
    assert [samples[i]["id"] for i in range(2)] == [val[1]["id"], train[0]["id"]]
    assert "any" not in numbers.splits


def test_known_factors_lie_beside_the_data(numbers: NumberDataModule, tmp_path: Path) -> None:
    assert numbers.factors() is None
    (tmp_path / "factors.csv").write_text("id,age\n1-1,64\n")
    assert numbers.factors() == tmp_path / "factors.csv"


def test_radiographs_are_read_as_samples_without_staying_in_memory(tmp_path: Path) -> None:
    data = ChestXrayDataModule(
        str(tmp_path), str(tmp_path / "splits"), str(tmp_path / "cache"), image_size=(16, 16),
        phantoms=PhantomXray(num_train=4, num_test=2, image_size=48), progress_bar=False,
    )  # fmt: skip
    data.setup()
    records = data.splits["test"]
    samples = data.samples(records)
    assert not (tmp_path / "cache").exists()
    judged = data.dataset("test")
    for place, record in enumerate(records):
        assert samples[place]["image"].equal(judged[place]["image"])
        assert data.covariates["label"](samples[place]) == record["label"]
        reader = data.shiftable_images()
        prepared = reader.prepared(reader.original(record))
        assert prepared.shape == samples[place]["image"].shape
        np.testing.assert_allclose(prepared, samples[place]["image"], atol=0.1)
    assert data.spacing is None
