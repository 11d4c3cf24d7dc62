"""Chest X-rays in the Kaggle "Chest X-Ray Images (Pneumonia)" layout, split and decoded.

Only normal images are ever learned from. Kaggle's own ``val`` has 16 images: its normal ones
join the training pool, from which validation is split by patient; its sick ones serve only to
look for leaks.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from monai.transforms import Compose
from torch import Tensor
from torch.utils.data import Dataset
from tqdm import tqdm

from vaelab.data.build import check_room, find_missing, map_blocks, thread_pool
from vaelab.data.cache import cached_dataset
from vaelab.data.findings import Examination, Finding
from vaelab.data.index import Record, check_root, enumerate_names, split_by_patient
from vaelab.data.module import Phantoms, SplitDataModule
from vaelab.data.xray.grey_image import LoadGreyImage
from vaelab.data.xray.image_checks import HARD_LIMIT, MAX_PIXELS, examine_image
from vaelab.data.xray.index import (
    HINT,
    NORMAL,
    PATIENT_PATTERN,
    SICK,
    find_images,
    missing_folders,
    scan_chest_xray,
)
from vaelab.data.xray.leaks import check_no_sick, drop_seen_in_test, seen_in_test, sick_leaks
from vaelab.errors import UserError

TEST_SPLITS = ("test", "test_full")  # the only ones with sick images


def split_chest_xray(
    records: Sequence[Record], val_split: float, seed: int, test_per_class: int | None = None
) -> dict[str, list[Record]]:
    """Normal images for training and validation, as many sick as normal ones for testing.

    Args:
        records: as ``scan_chest_xray`` gives them.
        val_split: share of the patients of the training pool kept for validation, in (0, 1).
        seed: of both draws.
        test_per_class: images of each class in the test split; None takes all of the rarer class.

    Returns:
        ``train``, ``val``, ``test`` and ``test_full``, all test images of both classes; the pool
        loses, with a warning, what test images show too.

    Raises:
        UserError: when ``test_per_class`` asks for more than there is.
    """
    pool = [r for r in records if r["part"] != "test" and r["label"] == 0]
    test = [r for r in records if r["part"] == "test"]
    pool = drop_seen_in_test(pool, [r for r in test if r["label"] == 0])
    train, val = split_by_patient(pool, val_split, seed)
    balanced = _balanced(test, seed, test_per_class)
    return {"train": train, "val": val, "test": balanced, "test_full": test}


def _balanced(test: Sequence[Record], seed: int, per_class: int | None) -> list[Record]:
    """As many normal as sick test images, drawn by seed, in the order of the draw."""
    classes = [[r for r in test if r["label"] == label] for label in (0, 1)]
    available = min(len(members) for members in classes)
    if per_class is not None and not 0 < per_class <= available:
        raise UserError(
            f"dataset.test_per_class={per_class}: from 1 to {available} images of each class can "
            "be drawn; null takes all"
        )
    draw = random.Random(seed)
    chosen = [draw.sample(members, per_class or available) for members in classes]
    return [record for members in chosen for record in members]


class UnreadableImagesError(UserError):
    """Lists every image that cannot be learned from or judged, and why."""

    def __init__(self, images: Sequence[str]) -> None:
        self.images = list(images)
        super().__init__(
            f"{len(images)} images cannot be read; remove or replace them:{enumerate_names(images)}"
        )


class ImagesInMemory(Dataset[dict[str, Any]]):
    """Decoded images of one split: each is decoded once in a run, whatever the epochs."""

    def __init__(
        self,
        images: Tensor,
        labels: Sequence[int],
        ids: Sequence[str],
        masks: Tensor | None = None,
    ) -> None:
        self.images = images  # (N, 1, H, W)
        self.labels = list(labels)
        self.ids = list(ids)
        self.masks = masks  # as images, uint8; None where the data have none

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> dict[str, Any]:
        sample = {"image": self.images[index], "label": self.labels[index], "id": self.ids[index]}
        return sample if self.masks is None else sample | {"mask": self.masks[index]}


class ChestXrayDataModule(SplitDataModule):
    """Loaders of ``{"image", "label", "id"}`` batches of grey images in [0, 1].

    ``image`` is float32 (B, 1, H, W), ``label`` int64 (B,) with 0 normal and 1 sick. Train and
    validation hold normal images only.

    Where the tree has a folder ``masks`` with ``<id without its ending>.png`` for each sick test
    image, lesion where not black, batches of the test splits have ``mask`` too: uint8
    (B, 1, H, W), 1 lesion, all 0 for a normal image.

    Args:
        root_dir: folder in the Kaggle layout; with ``phantoms``, the folder to write it under.
        splits_dir, cache_dir, patient_pattern, val_split, seed, batch_size, num_workers,
            cache_rate, phantoms, cache_dtype, progress_bar: see ``SplitDataModule``.
        image_size: (H, W) in pixels.
        test_per_class: images of each class to test on; None takes all of the rarer class.
        trim_border: cut dark margins off before resizing.
        calibration_split: share of the patients to learn from that is set aside as a split
            ``calibration``, which neither training nor the choice of the best epoch sees.
        max_pixels: an image with more is refused, lest a small file fill the memory.
    """

    channel_names = ("x-ray",)

    def __init__(
        self,
        root_dir: str | None,
        splits_dir: str,
        cache_dir: str,
        image_size: Sequence[int] = (128, 128),
        test_per_class: int | None = None,
        patient_pattern: str = PATIENT_PATTERN,
        val_split: float = 0.1,
        seed: int = 42,
        batch_size: int = 32,
        num_workers: int = 0,
        cache_rate: float = 1.0,
        phantoms: Phantoms | None = None,
        augment: Callable[[Tensor], Tensor] | None = None,
        trim_border: bool = False,
        calibration_split: float = 0.0,
        max_pixels: int = MAX_PIXELS,
        cache_dtype: str = "float32",
        progress_bar: bool = True,
    ) -> None:
        super().__init__(
            root_dir, splits_dir, cache_dir, patient_pattern, val_split, seed,
            batch_size, num_workers, cache_rate, phantoms, augment, cache_dtype, progress_bar,
        )  # fmt: skip
        if not 0 <= calibration_split < 1:
            raise UserError(
                f"dataset.calibration_split={calibration_split}: a share from 0 to below 1; try 0.1"
            )
        if len(image_size) != 2 or not all(side > 0 for side in image_size):
            raise UserError(
                f"dataset.image_size={list(image_size)}: two sides in pixels; try [128,128]"
            )
        if not 1 <= max_pixels <= HARD_LIMIT:
            raise UserError(
                f"dataset.max_pixels={max_pixels}: from 1 to {HARD_LIMIT}; try 80000000"
            )
        self.settings: dict[str, Any] = {
            "image_size": list(image_size),
            "trim_border": trim_border,
            "max_pixels": max_pixels,
        }
        self.test_per_class = test_per_class
        self.calibration_split = calibration_split
        self._decoded: dict[str, ImagesInMemory] = {}
        self._masks: Path | None = None  # the folder, where there is one

    def scan(self, root_dir: str | Path | None) -> list[Record]:
        """Index the images."""
        records = scan_chest_xray(root_dir, self.patient_pattern)
        masks = check_root(root_dir, HINT) / "masks"
        self._masks = masks if masks.is_dir() else None
        return records

    def setup(self, stage: str | None = None) -> None:
        """Scan and split; before training decode all, lest a damaged test image ends the run."""
        super().setup(stage)
        unreadable: dict[str, None] = {}
        for split in self.splits if stage == "fit" else ():
            try:
                self.dataset(split)
            except UnreadableImagesError as error:
                unreadable |= dict.fromkeys(error.images)
        if unreadable:
            raise UnreadableImagesError(list(unreadable))

    def inventory(self, root_dir: str | Path | None) -> tuple[list[Record], list[Finding]]:
        """Every image, whatever training would say to it, and folders that hold none."""
        root = check_root(root_dir, HINT)
        records = find_images(root, self.patient_pattern)
        missing = missing_folders(root, records)
        what, cure = "folders without images", "point dataset.root_dir at the Kaggle layout"
        return records, [Finding("error", str(root), what, cure, missing)] if missing else []

    def examine(self, record: Record) -> Examination:
        """Header and pixels of an image; its part and class are facts too."""
        seen = examine_image(record["path"], self.settings["max_pixels"])
        group = f"{record['part']}/{(NORMAL, SICK)[record['label']]}"
        return replace(seen, facts={"group": group, **seen.facts})

    def compare(self, records: Sequence[Record], contents: Mapping[str, str]) -> list[Finding]:
        """What must not be learned from, as training would find it, and copies."""
        there = [record for record in records if record["path"] in contents]
        pool = [r for r in there if r["part"] != "test" and r["label"] == 0]
        sick = [r for r in there if r["label"] == 1]
        test = [r for r in there if r["part"] == "test" and r["label"] == 0]
        what, cure = "a sick image among those to learn from", "remove or move it"
        leaks = [
            Finding("error", record["id"], what, cure, reason)
            for record, reason in sick_leaks(pool, sick)
        ]
        what, cure = "in the training and in the test part", "nothing: training leaves it out"
        seen = [
            Finding("warning", identifier, what, cure, reason)
            for identifier, reason in seen_in_test(pool, test).items()
        ]
        return leaks + seen + super().compare(records, contents)

    def forget(self) -> None:
        """Hold no image any more."""
        super().forget()
        self._decoded = {}

    def split(self, records: list[Record]) -> dict[str, list[Record]]:
        """Split as ``split_chest_xray`` does."""
        splits = split_chest_xray(records, self.val_split, self.seed, self.test_per_class)
        if self.calibration_split:
            splits["train"], splits["calibration"] = split_by_patient(
                splits["train"], self.calibration_split, self.seed
            )
        return splits

    def check(self, splits: Mapping[str, Sequence[Record]], records: Sequence[Record]) -> None:
        """Make sure, for a saved split too, that nothing sick is learned from."""
        sick = [record for record in records if record["label"] == 1]
        normal = [record for name in splits if name not in TEST_SPLITS for record in splits[name]]
        check_no_sick(normal, sick)

    def dataset(self, split: str) -> ImagesInMemory:
        """The images of one split, decoded on first use, with a progress bar.

        Raises:
            UserError: listing every file that cannot be decoded, or every mask that is missing.
        """
        if split not in self._decoded:
            self._decoded[split] = self._decode(split)
        return self._decoded[split]

    def _decode(self, split: str) -> ImagesInMemory:
        records = self.splits[split]
        masks = self._mask_paths(records) if split in TEST_SPLITS else {}
        cached = cached_dataset(
            [
                {"id": r["id"], "path": r["path"]}
                | ({"mask": masks[r["id"]]} if r["id"] in masks else {})
                for r in records
            ],
            Compose([LoadGreyImage(**self.settings)]),
            self.settings,
            self.cache_dir,
            self.cache_rate,
            self.cache_dtype,
            values=math.prod(self.settings["image_size"]),
            labels=math.prod(self.settings["image_size"]) if masks else 0,
        )
        check_room(find_missing([cached]))
        samples: list[dict[str, Any]] = []
        unreadable: list[str] = []
        with thread_pool() as pool:
            for one in tqdm(
                map_blocks(pool, partial(_read, cached), range(len(records))),
                f"reading {split} images", len(records), unit="image", leave=False,
                disable=not self.progress_bar,
            ):  # fmt: skip
                if isinstance(one, str):
                    unreadable.append(one)
                else:
                    samples.append(one)
        if unreadable:
            raise UnreadableImagesError(unreadable)
        images = torch.stack([sample["image"] for sample in samples])
        black = torch.zeros_like(images[0], dtype=torch.uint8)
        return ImagesInMemory(
            images,
            [int(record["label"]) for record in records],
            [record["id"] for record in records],
            torch.stack([sample.get("mask", black) for sample in samples]) if masks else None,
        )

    def _mask_paths(self, records: Sequence[Record]) -> dict[str, str]:
        """Id → mask of the sick images; empty where the tree has no masks."""
        if self._masks is None:
            return {}
        paths = {
            record["id"]: self._masks / Path(record["id"]).with_suffix(".png")
            for record in records
            if record["label"] == 1
        }
        missing = [str(path) for path in paths.values() if not path.is_file()]
        if missing:
            # Left black they would count as healthy, and every hit as a false alarm.
            raise UserError(
                f"{self._masks}: {len(missing)} sick test images have no mask; add them, or move "
                f"the folder away to judge without:{enumerate_names(missing)}"
            )
        return {identifier: str(path) for identifier, path in paths.items()}


def _read(images: Dataset[Any], index: int) -> dict[str, Any] | str:
    """A sample, or what is wrong with it."""
    try:
        sample: dict[str, Any] = images[index]
    except RuntimeError as error:  # MONAI's Compose wraps what a transform raises
        if not isinstance(error.__cause__, UserError):
            raise
        return str(error.__cause__)
    return sample
