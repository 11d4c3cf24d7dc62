"""Chest X-rays in the Kaggle "Chest X-Ray Images (Pneumonia)" layout, split and decoded.

Only normal images are ever learned from. Kaggle's own ``val`` has 16 images: its normal ones
join the training pool, from which validation is split by patient; its sick ones serve only to
look for leaks.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from monai.data import Dataset as MonaiDataset
from monai.transforms import Compose, EnsureChannelFirstd, LoadImaged, Resized
from torch import Tensor
from torch.utils.data import Dataset

from vaelab.data.cache import cached_dataset
from vaelab.data.contract import LABEL, Covariate, InputSample, Paint, ShiftableImages
from vaelab.data.findings import Examination, Finding
from vaelab.data.groups import Groups, read_groups
from vaelab.data.index import Record, check_root, split_by_patient
from vaelab.data.inputs import Input
from vaelab.data.module import Phantoms, SplitDataModule
from vaelab.data.patients import doubts
from vaelab.data.xray.grey_image import ImageSettings, LoadGreyImage
from vaelab.data.xray.image_checks import MAX_PIXELS, examine_image
from vaelab.data.xray.in_graph import GreyImagesInGraph
from vaelab.data.xray.index import (
    HINT,
    NORMAL,
    SICK,
    find_images,
    mask_paths,
    missing_folders,
    scan_chest_xray,
    within_class,
)
from vaelab.data.xray.inputs import find_radiographs, read_radiograph, save_overlay
from vaelab.data.xray.leaks import check_no_sick, seen_in_test, sick_leaks
from vaelab.data.xray.looks import Look, looks_of
from vaelab.data.xray.memory import ImagesInMemory, MemoryFirst, UnreadableImagesError, read_all
from vaelab.data.xray.registration import Registration
from vaelab.data.xray.splits import split_chest_xray
from vaelab.errors import UserError

TEST_SPLITS = ("test", "test_full")  # the only ones with sick images


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
        groups: columns of ``groups_table`` to judge detection within, such as view, sex and age.
        groups_table: CSV file in ``root_dir``, with a column ``id`` or ``file``.
        max_pixels: an image with more is refused, lest a small file fill the memory.
        register: true shows of each image the thorax, fitted to the mean normal one; "auto" does so
            if it brings normal images closer together; see ``Registration``.
    """

    channel_names = ("x-ray",)
    keeps_samples_in_memory = True
    sample_unit = "grey, 0 the darkest and 1 the brightest of the image"
    paints_maps = True

    def __init__(
        self,
        root_dir: str | None,
        splits_dir: str,
        cache_dir: str,
        image_size: Sequence[int] = (128, 128),
        test_per_class: int | None = None,
        patient_pattern: str | None = None,
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
        groups: Sequence[str] = (),
        groups_table: str = "images.csv",
        cache_dtype: str = "float32",
        progress_bar: bool = True,
        register: bool | str = False,
    ) -> None:
        super().__init__(
            root_dir, splits_dir, cache_dir, patient_pattern, val_split, seed,
            batch_size, num_workers, cache_rate, phantoms, augment, cache_dtype, progress_bar,
        )  # fmt: skip
        if not 0 <= calibration_split < 1:
            raise UserError(
                f"dataset.calibration_split={calibration_split}: a share from 0 to below 1; try 0.1"
            )
        self.settings = ImageSettings(tuple(image_size), trim_border, max_pixels)
        self.registration = Registration(register, self.splits_dir)
        self.test_per_class = test_per_class
        self.calibration_split = calibration_split
        self.group_columns = list(groups)
        self.groups_table = groups_table
        self._decoded: dict[str, ImagesInMemory] = {}
        self._looks: dict[str, Look] = {}  # of the images of a split that is new
        self._masks: Path | None = None  # the folder, where there is one

    def scan(self, root_dir: str | Path | None) -> list[Record]:
        """Index the images."""
        records = scan_chest_xray(root_dir, self.patient_pattern)
        masks = check_root(root_dir, HINT) / "masks"
        self._masks = masks if masks.is_dir() else None
        return records

    def setup(self, stage: str | None = None) -> None:
        """Scan, split and register; before training decode all: damaged images show."""
        super().setup(stage)
        self.registration.prepare(
            self.splits["train"], self.splits["val"],
            lambda record: self.settings.loader().look(record["path"]),
        )  # fmt: skip
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
        findings = [Finding("error", str(root), what, cure, missing)] if missing else []
        return records, findings + doubts(list(map(within_class, records)), self.patient_pattern)

    def examine(self, record: Record) -> Examination:
        """Header and pixels of an image; its part and class are facts too."""
        seen = examine_image(record["path"], self.settings.max_pixels)
        group = f"{record['part']}/{(NORMAL, SICK)[record['label']]}"
        return replace(seen, facts={"group": group, **seen.facts})

    def compare(self, records: Sequence[Record], contents: Mapping[str, str]) -> list[Finding]:
        """What must not be learned from, as training would find it, and copies."""
        there = [record for record in records if record["path"] in contents]
        pool = [r for r in there if r["part"] != "test" and r["label"] == 0]
        sick = [r for r in there if r["label"] == 1]
        test = [r for r in there if r["part"] == "test" and r["label"] == 0]
        looks = looks_of(there)
        what, cure = "a sick image among those to learn from", "remove or move it"
        leaks = [
            Finding("error", record["id"], what, cure, reason)
            for record, reason in sick_leaks(pool, sick, looks)
        ]
        what, cure = "in the training and in the test part", "nothing: training leaves it out"
        seen = [
            Finding("warning", identifier, what, cure, reason)
            for identifier, reason in seen_in_test(pool, test, looks).items()
        ]
        return leaks + seen + super().compare(records, contents)

    def forget(self) -> None:
        """Hold no image any more."""
        super().forget()
        self._decoded = {}

    def split(self, records: list[Record]) -> dict[str, list[Record]]:
        """Split as ``split_chest_xray`` does, with a look at every image."""
        self._looks = looks_of(records)
        splits = split_chest_xray(
            records, self.val_split, self.seed, self.test_per_class, self._looks
        )
        if self.calibration_split:
            splits["train"], splits["calibration"] = split_by_patient(
                splits["train"], self.calibration_split, self.seed
            )
        return splits

    def check(self, splits: Mapping[str, Sequence[Record]], records: Sequence[Record]) -> None:
        """Make sure, for a saved split too, that nothing sick is learned from."""
        sick = [record for record in records if record["label"] == 1]
        normal = [record for name in splits if name not in TEST_SPLITS for record in splits[name]]
        check_no_sick(normal, sick, self._looks)

    def dataset(self, split: str) -> ImagesInMemory:
        """The images of one split, decoded on first use, with a progress bar.

        Raises:
            UserError: listing every file that cannot be decoded, or every mask that is missing.
        """
        if split not in self._decoded:
            self._decoded[split] = self._decode(split)
        return self._decoded[split]

    # ------------------------------------------------------------- what tasks ask

    def samples(self, records: Sequence[Record]) -> Dataset[Any]:
        """Any records: from memory what a split has read, else decoded when it is asked for."""
        found = [{key: record[key] for key in ("id", "path", "label")} for record in records]
        files = MonaiDataset(found, self._loader())
        return MemoryFirst(files, [record["id"] for record in records], self._decoded.values())

    def sample_settings(self) -> dict[str, Any]:
        """The settings of decoding."""
        thorax = self.registration.thorax
        return asdict(self.settings) | ({"thorax": thorax.digest} if thorax else {})

    @property
    def covariates(self) -> Mapping[str, Covariate]:
        """The class."""
        return {LABEL: lambda sample: float(sample[LABEL])}

    def groups(self) -> Groups:
        """Columns of the table of groups, of all records."""
        if not self.group_columns:
            return {}
        table = Path(self.root() or "").expanduser() / self.groups_table
        ids = {record["id"] for records in self.splits.values() for record in records}
        return read_groups(table, self.group_columns, ids)

    def find_inputs(self, inputs: str | Sequence[str], output_dir: Path) -> list[Input]:
        """JPEG, PNG and DICOM files."""
        return find_radiographs(inputs, output_dir)

    def read_input(self, path: Path) -> InputSample:
        """An image file."""
        return read_radiograph(path, self._loader())

    def save_map(self, heatmap: Tensor, sample: InputSample, stem: Path, paint: Paint) -> None:
        """Write ``<stem>_heatmap.png``: the heat over the original at its size."""
        path = stem.with_name(f"{stem.name}_heatmap.png")
        save_overlay(heatmap.numpy(), sample, path, self.settings.max_pixels, paint)

    def originals_in_graph(self) -> GreyImagesInGraph | None:
        """Of decoded images; None where they are registered, by a search that no graph holds."""
        return None if self.registration.thorax else GreyImagesInGraph(self.settings)

    def shiftable_images(self) -> ShiftableImages:
        """The reader of image files."""
        return self._loader()

    def plain_pipeline(self) -> Compose:
        """What one would write with MONAI alone."""
        return Compose(
            [
                LoadImaged(["path"], image_only=True),
                EnsureChannelFirstd(["path"]),
                Resized(["path"], spatial_size=self.settings.image_size),
            ]
        )

    # ------------------------------------------------------------- reading

    def _loader(self) -> LoadGreyImage:
        return self.settings.loader(self.registration.thorax)

    def _decode(self, split: str) -> ImagesInMemory:
        records = self.splits[split]
        masks = mask_paths(records, self._masks) if split in TEST_SPLITS else {}
        cached = cached_dataset(
            [
                {"id": r["id"], "path": r["path"]}
                | ({"mask": masks[r["id"]]} if r["id"] in masks else {})
                for r in records
            ],
            Compose([self._loader()]),
            self.sample_settings(),
            self.cache_dir,
            self.cache_rate,
            self.cache_dtype,
            values=math.prod(self.settings.image_size),
            labels=math.prod(self.settings.image_size) if masks else 0,
        )
        samples = read_all(cached, f"reading {split} images", self.progress_bar)
        images = torch.stack([sample["image"] for sample in samples])
        black = torch.zeros_like(images[0], dtype=torch.uint8)
        return ImagesInMemory(
            images,
            [int(record["label"]) for record in records],
            [record["id"] for record in records],
            torch.stack([sample.get("mask", black) for sample in samples]) if masks else None,
        )
