"""Chest X-rays in the Kaggle "Chest X-Ray Images (Pneumonia)" layout.

Kermany et al. 2018 (doi:10.17632/rscbjbr9sj.2): ``{train,val,test}/{NORMAL,PNEUMONIA}/*.jpeg``.
Only normal images are ever learned from. Kaggle's own ``val`` has 16 images: its normal ones
join the training pool, from which validation is split by patient; its sick ones serve only to
look for leaks.
"""

from __future__ import annotations

import hashlib
import logging
import math
import os
import random
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.transforms import Compose, Transform
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset
from tqdm import tqdm

from vaelab.data.build import check_room, find_missing
from vaelab.data.cache import cached_dataset
from vaelab.data.findings import Examination, Finding
from vaelab.data.image_checks import (
    HARD_LIMIT,
    MAX_PIXELS,
    decode_grey,
    examine_image,
    refuse_constant,
)
from vaelab.data.index import (
    Record,
    check_root,
    enumerate_names,
    patient_of,
    printable,
    split_by_patient,
    walk_files,
)
from vaelab.data.module import Phantoms, SplitDataModule
from vaelab.errors import UserError

log = logging.getLogger(__name__)

NORMAL, SICK = "NORMAL", "PNEUMONIA"
TEST_SPLITS = ("test", "test_full")  # the only ones with sick images
SUFFIXES = {".jpeg", ".jpg", ".png"}
PATIENT_PATTERN = r"^(person\d+|(?:NORMAL2-)?IM-\d+)"
HINT = f"the Kaggle layout is needed, with train/{NORMAL}, test/{NORMAL} and test/{SICK}"


def scan_chest_xray(
    root_dir: str | Path | None, patient_pattern: str = PATIENT_PATTERN
) -> list[Record]:
    """Index every image under ``root_dir``, ordered by id.

    Returns:
        One record per image: ``id`` (path below the root), ``patient``, ``label`` (0 normal,
        1 sick), ``part`` (train, val or test) and ``path``.

    Raises:
        UserError: when the root or one of the three folders that are needed holds no image, or
            listing every link that leads nowhere.
    """
    root = check_root(root_dir, HINT)
    records = find_images(root, patient_pattern)
    lost = [record["id"] for record in records if not os.path.exists(record["path"])]
    if lost:
        raise UserError(
            f"dataset.root_dir={root}: {len(lost)} images are links that lead nowhere; fetch what "
            f"they point to or remove them:{enumerate_names(lost)}"
        )
    missing = _missing_folders(root, records)
    if missing:
        raise UserError(f"dataset.root_dir={root}: {missing}")
    return records


def find_images(root: Path, patient_pattern: str) -> list[Record]:
    """Every image of the Kaggle layout, links that lead nowhere included, ordered by id."""
    depth = len(root.parts)
    return [
        {
            "id": "/".join(path.parts[depth:]),
            "patient": patient_of(path.name, patient_pattern),
            "label": label,
            "part": part,
            "path": str(path),
        }
        for part in ("train", "val", "test")
        for label, name in enumerate((NORMAL, SICK))
        for path in _images(root / part / name)
    ]


def _missing_folders(root: Path, records: Sequence[Record]) -> str:
    """Which folders that are needed hold no image and what is there instead; empty if none."""
    found = {(record["part"], record["label"]) for record in records}
    needed = {("train", 0): f"train/{NORMAL}", ("test", 0): f"test/{NORMAL}"}
    needed[("test", 1)] = f"test/{SICK}"
    empty = [folder for key, folder in needed.items() if key not in found]
    if not empty:
        return ""
    names = sorted(path.name for path in root.glob("[!.]*"))
    there = ", ".join(names[:8]) + (", ..." if len(names) > 8 else "") if names else "nothing"
    inner = [name for name in names if (root / name / "train" / NORMAL).is_dir()]
    cure = f"; did you mean dataset.root_dir={root / inner[0]}?" if inner else ""
    return f"no image in {', '.join(empty)}; {HINT}. Found there: {printable(there)}{cure}"


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
    pool = _drop_seen_in_test(pool, [r for r in test if r["label"] == 0])
    train, val = split_by_patient(pool, val_split, seed)
    balanced = _balanced(test, seed, test_per_class)
    return {"train": train, "val": val, "test": balanced, "test_full": test}


def check_no_sick(normal: Sequence[Record], sick: Sequence[Record]) -> None:
    """Make sure that no image to learn from is sick: by folder, by patient and by content.

    Raises:
        UserError: listing each image that lies in (or links to) a folder of sick ones, whose
            patient has a sick image, or whose bytes equal those of a sick image.
    """
    leaks = [f"{record['id']}: {reason}" for record, reason in sick_leaks(normal, sick)]
    if leaks:
        raise UserError(
            f"{len(leaks)} images to learn healthy anatomy from are sick; remove or move them:"
            f"{enumerate_names(leaks)}"
        )


def sick_leaks(normal: Sequence[Record], sick: Sequence[Record]) -> Iterator[tuple[Record, str]]:
    """Each record that must not be learned from, and why; see ``check_no_sick``."""
    sick_patients = {record["patient"]: record for record in sick}
    same = _same_content(normal, sick)
    known: dict[tuple[str, str], tuple[str, ...]] = {}

    def parents(record: Record) -> tuple[str, ...]:
        if os.path.islink(record["path"]):
            return _parents_of_target(record)
        place = os.path.dirname(record["path"]), os.path.dirname(record["id"])
        if place not in known:  # the same for all files of a folder
            known[place] = _parents_of_target(record)
        return known[place]

    for record in normal:
        if SICK in [*Path(record["id"]).parent.parts, *parents(record)]:
            yield record, f"lies in a folder {SICK}"
        elif record["patient"] in sick_patients:
            other = sick_patients[record["patient"]]["id"]
            yield record, f"patient {record['patient']} is sick in {other}"
        elif record["id"] in same:
            yield record, f"is the same file as {same[record['id']]}"


class LoadGreyImage(Transform):
    """Read an image file as (1, H, W) float32, grey, resized, min–max scaled to [0, 1].

    Args:
        image_size: (H, W) in pixels. The aspect ratio is not kept.
        trim_border: cut dark margins off first, see ``trim_dark_border``.
        max_pixels: limit beyond which a file is refused.
    """

    def __init__(
        self, image_size: Sequence[int], trim_border: bool = False, max_pixels: int = MAX_PIXELS
    ) -> None:
        self.height, self.width = image_size
        self.trim_border = trim_border
        self.max_pixels = max_pixels

    def __call__(self, data: Mapping[str, Any]) -> dict[str, Any]:
        """Add ``image`` in place of ``path``; a ``mask`` goes from a path to uint8, as ``image``.

        Raises:
            UserError: for a file that cannot be decoded, or shows nothing.
        """
        result = {key: value for key, value in data.items() if key != "path"}
        grey = self.decode(data["path"])
        pixels, box = self.fit(grey)
        result["image"] = torch.from_numpy(pixels)[None]
        if "mask" in data:
            mask = self.fit_mask(decode_grey(data["mask"], None, self.max_pixels), box, grey.size)
            result["mask"] = torch.from_numpy(mask)[None]
        return result

    def decode(self, path: str | Path) -> Image.Image:
        """A file as ``fit`` takes it.

        Raises:
            UserError: for a file that cannot be decoded, or shows nothing.
        """
        # A JPEG decodes at 1/2, 1/4 or 1/8 for a fraction of the cost; twice the target leaves the
        # resize enough to average over.
        grey = decode_grey(path, (2 * self.width, 2 * self.height), self.max_pixels)
        refuse_constant(path, grey)
        return grey

    def fit(self, grey: Image.Image) -> tuple[np.ndarray, tuple[int, int, int, int]]:
        """What the model sees of a decoded image, (H, W) in [0, 1], and the box that it shows.

        The box is (left, top, right, bottom) in pixels of ``grey``: all but what was trimmed.
        """
        box = trim_dark_border(np.asarray(grey)) if self.trim_border else (0, 0, *grey.size)
        # Cropped first: a resize by box would take in a pixel of the margin.
        small = grey.crop(box).resize((self.width, self.height), Image.Resampling.BILINEAR)
        pixels = np.asarray(small, dtype=np.float32)
        low, high = pixels.min(), pixels.max()
        # What is left of an image after trimming may be constant; it becomes black.
        scaled: np.ndarray = (pixels - low) / max(high - low, np.float32(1e-6))
        return scaled, box

    def fit_mask(
        self, mask: Image.Image, box: tuple[int, int, int, int], size: tuple[int, int]
    ) -> np.ndarray:
        """A mask where the model sees it, (H, W) uint8, 1 where it is not black.

        Args:
            mask: of the whole image, at any scale.
            box: what ``fit`` shows of the image, in pixels of it.
            size: (W, H) of the image that ``fit`` was given; a JPEG decodes smaller than its mask.
        """
        (width, height), (wide, high) = size, mask.size
        left, top, right, bottom = box
        part = (
            left * wide / width,
            top * high / height,
            right * wide / width,
            bottom * high / height,
        )
        small = mask.resize((self.width, self.height), Image.Resampling.NEAREST, box=part)
        return (np.asarray(small) > 0).astype(np.uint8)


# A margin is a run of rows or columns of which 85 % is darker than 12 % of the image's maximum.
MARGIN_QUANTILE, MARGIN_SHARE, MARGIN_LIMIT = 0.85, 0.12, 0.3


def trim_dark_border(pixels: np.ndarray) -> tuple[int, int, int, int]:
    """The (left, top, right, bottom) of an X-ray without its collimated, dark margins.

    How much of a film is exposed differs from one machine to the next and says nothing of the
    patient. At most 30 % is cut on each side.

    Args:
        pixels: (H, W), non-negative.
    """
    limit = MARGIN_SHARE * float(pixels.max())
    top, bottom = _exposed(np.quantile(pixels, MARGIN_QUANTILE, axis=1) >= limit)
    left, right = _exposed(np.quantile(pixels, MARGIN_QUANTILE, axis=0) >= limit)
    return left, top, right, bottom


def _exposed(bright: np.ndarray) -> tuple[int, int]:
    """First and last-but-one index that is bright, within the share that may be cut."""
    most = int(MARGIN_LIMIT * len(bright))
    return min(int(bright.argmax()), most), len(bright) - min(int(bright[::-1].argmax()), most)


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
        missing = _missing_folders(root, records)
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
        with ThreadPoolExecutor() as pool:  # decoding lets go of the interpreter's lock
            jobs = [pool.submit(cached.__getitem__, index) for index in range(len(records))]
            for job in tqdm(
                jobs, f"reading {split} images", unit="image", leave=False,
                disable=not self.progress_bar,
            ):  # fmt: skip
                try:
                    samples.append(job.result())
                except RuntimeError as error:  # MONAI's Compose wraps what a transform raises
                    if not isinstance(error.__cause__, UserError):
                        raise
                    unreadable.append(str(error.__cause__))
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


def _images(folder: Path) -> list[Path]:
    """Image files in a folder and below it, ordered; hidden files are not data.

    A folder that is called like an image is among them, to be refused rather than overlooked.
    """
    found: list[Path] = []
    for current, names in walk_files(folder):
        if current.suffix.lower() in SUFFIXES:
            found.append(current)
        found += [current / n for n in names if os.path.splitext(n)[1].lower() in SUFFIXES]
    return sorted(found)


def _parents_of_target(record: Record) -> tuple[str, ...]:
    """Folders of the file that a record's path leads to, from the root on if it lies there."""
    path = Path(record["path"])
    root = path.parents[len(Path(record["id"]).parts) - 1].resolve()
    folder = path.resolve().parent
    return (folder.relative_to(root) if folder.is_relative_to(root) else folder).parts


def _same_content(these: Sequence[Record], those: Sequence[Record]) -> dict[str, str]:
    """Id → id of a byte-identical file among ``those``; only files of one size are read."""
    by_size: dict[int, list[Record]] = defaultdict(list)
    for record in those:
        by_size[os.stat(record["path"]).st_size].append(record)
    same: dict[str, str] = {}
    digests: dict[str, bytes] = {}

    def digest(path: str) -> bytes:
        if path not in digests:
            try:
                digests[path] = hashlib.sha256(Path(path).read_bytes()).digest()
            except OSError:  # is told when it is decoded
                digests[path] = os.fsencode(path)
        return digests[path]

    ids: dict[int, dict[bytes, str]] = {}  # size → digest → id, for sizes that occur on both sides
    for record in these:
        size = os.stat(record["path"]).st_size
        if size not in by_size:
            continue
        if size not in ids:
            ids[size] = {digest(other["path"]): other["id"] for other in by_size[size]}
        if digest(record["path"]) in ids[size]:
            same[record["id"]] = ids[size][digest(record["path"])]
    return same


def _drop_seen_in_test(pool: Sequence[Record], test: Sequence[Record]) -> list[Record]:
    """The pool without patients and files that the normal test images show too."""
    dropped = seen_in_test(pool, test)
    kept = [record for record in pool if record["id"] not in dropped]
    if dropped:
        log.warning(
            "%d normal images are not learned from, since their patient or file is in the test "
            "part too:%s",
            *(len(dropped), enumerate_names(list(dropped))),
        )
    return kept


def seen_in_test(pool: Sequence[Record], test: Sequence[Record]) -> dict[str, str]:
    """Id → why, for each record whose patient or file is among ``test`` too."""
    patients = {record["patient"]: record["id"] for record in test}
    same = _same_content(pool, test)
    return {
        record["id"]: f"is the same file as {same[record['id']]}"
        if record["id"] in same
        else f"patient {record['patient']} is in {patients[record['patient']]}"
        for record in pool
        if record["id"] in same or record["patient"] in patients
    }


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
