"""Check a dataset against the contract."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from vaelab.data.module import SplitDataModule
from vaelab.testing.promises import promise

DECIDED_ON = ("train", "val", "calibration")
"""Splits for training and model choice; their patients must not be in test splits."""


def check_dataset(data: SplitDataModule) -> None:
    """Check a dataset against the contract of ``vaelab.data``; reads all records and some samples.

    Args:
        data: with two patients or more, in folders of its own: it writes its split and its cache.

    Raises:
        BrokenPromise: naming the promise.
    """
    fresh = copy.deepcopy(data)
    data.setup()
    promise({"train", "val"} <= set(data.splits), "there are the splits train and val",
            ", ".join(data.splits))  # fmt: skip
    _check_splits(data)
    fresh.setup()
    same = all(
        [record["id"] for record in fresh.splits[name]] == [record["id"] for record in records]
        for name, records in data.splits.items()
    )
    promise(same, "a saved split is read back unchanged")
    for split in data.splits:
        _check_samples(data, split)
    _check_batch(data)


def _check_splits(data: SplitDataModule) -> None:
    for name, records in data.splits.items():
        promise(records, f"the split {name} has records")
        ids = [record["id"] for record in records]
        promise(len(set(ids)) == len(ids), f"an id is one record of the split {name}")
        wrong = [r for r in records if not isinstance(r.get("patient"), str) or not r["patient"]]
        promise(not wrong, "every record names its patient", wrong[:1])
    decided = [name for name in DECIDED_ON if name in data.splits]
    patients = {name: {r["patient"] for r in data.splits[name]} for name in data.splits}
    for place, name in enumerate(decided):
        for other in [*decided[place + 1 :], *(set(patients) - set(decided))]:
            both = sorted(patients[name] & patients[other])
            promise(not both, f"no patient is in {name} and in {other}", ", ".join(both[:3]))


def _check_samples(data: SplitDataModule, split: str) -> None:
    data.preprocess(split)
    dataset: Any = data.dataset(split)
    promise(len(dataset) == len(data.splits[split]), f"{split} has a sample for each record",
            f"{len(dataset)} for {len(data.splits[split])}")  # fmt: skip
    sample: Mapping[str, Any] = dataset[0]
    promise("image" in sample and "id" in sample, "a sample has image and id", list(sample))
    promise(sample["id"] == data.splits[split][0]["id"], "samples are in the order of the records",
            sample["id"])  # fmt: skip
    image: Tensor = torch.as_tensor(sample["image"])
    promise(image.dtype == torch.float32, "an image is float32", image.dtype)
    promise(image.isfinite().all(), "an image is finite", sample["id"])
    channels = list(data.channel_names)
    promise(image.shape[0] == len(channels), "channel_names name the channels of an image",
            f"{channels} for {image.shape[0]}")  # fmt: skip
    if split != "train":
        again = torch.as_tensor(dataset[0]["image"])
        promise(torch.equal(again, image), f"nothing is random in {split}")
    if "seg" in sample:
        seg = torch.as_tensor(sample["seg"])
        promise(seg.shape == (1, *image.shape[1:]), "seg is (1, ...) on the grid of the image",
                tuple(seg.shape))  # fmt: skip
        promise(not seg.is_floating_point(), "seg holds integer labels", seg.dtype)
    pickle.loads(pickle.dumps(dataset))  # noqa: S301  # as loader processes get it


def _check_batch(data: SplitDataModule) -> None:
    orders = []
    for _ in range(2):
        loader = data.loader("train", shuffle=True)
        orders.append([name for batch in loader for name in batch["id"]])
    promise(orders[0] == orders[1], "the order of an epoch depends on seed and epoch alone")
    ids = sorted(record["id"] for record in data.splits["train"])
    promise(sorted(orders[0]) == ids, "an epoch shows every record once")
