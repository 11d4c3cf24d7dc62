"""What every dataset does alike: find, split by patient, remember the split, load.

To add a dataset, subclass ``SplitDataModule``: say how to scan a folder and how to load a
split. All else, phantoms included, is here; what tasks ask besides is in ``DatasetContract``. For
folders of volumes there is more: ``vaelab.data.volumes.module``.
"""

from __future__ import annotations

import copy
import logging
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import lightning as L
from monai.data import DataLoader
from torch import Tensor
from torch.utils.data import Dataset

from vaelab.data.batches import EpochBatches, EpochOrder, Share, WithFillers
from vaelab.data.build import fill_cache
from vaelab.data.cache import check_cache, memory_of_sample
from vaelab.data.contract import DatasetContract
from vaelab.data.findings import Examination, Finding, file_problem, find_copies
from vaelab.data.index import (
    Record,
    check_val_split,
    read_split,
    split_by_patient,
    write_splits,
)
from vaelab.data.patients import check_pattern
from vaelab.data.workers import check_shared_memory, check_workers
from vaelab.errors import UserError

if TYPE_CHECKING:
    from typing_extensions import Self

log = logging.getLogger(__name__)

FACTORS = "factors.csv"
"""Beside the data: a column ``id``, and a column for each factor that is known."""


class Phantoms(Protocol):
    """A generator of data for those who have none."""

    def prepare(self, root_dir: str, progress_bar: bool) -> Path:
        """Write the data under ``root_dir`` on first use; return the folder to read."""
        ...


class SplitDataModule(DatasetContract, L.LightningDataModule):
    """Loaders of one dataset, split by patient.

    Args:
        root_dir: folder of the data; with ``phantoms``, the folder to write them under.
        splits_dir: where the split is saved as CSV, and read from when it is there already.
        cache_dir: folder of preprocessed samples.
        patient_pattern: regular expression whose group 1 is the patient in a name; None: as
            ``patients_of`` has it.
        val_split: share of patients for validation, in (0, 1).
        seed: of the split and of the order of batches.
        batch_size: samples in a batch.
        num_workers: loader processes.
        cache_rate: share of the samples cached, in [0, 1].
        phantoms: generator of synthetic data, or None.
        augment: random change of a training batch of images, applied by the training step, or None.
        cache_dtype: of images in the cache, "float32", "float16" or "bfloat16".
        progress_bar: show one while preprocessing.

    Raises:
        UserError: for a value that cannot work, before any data is read.
    """

    def __init__(
        self,
        root_dir: str | None,
        splits_dir: str,
        cache_dir: str,
        patient_pattern: str | None,
        val_split: float,
        seed: int,
        batch_size: int,
        num_workers: int,
        cache_rate: float,
        phantoms: Phantoms | None,
        augment: Callable[[Tensor], Tensor] | None = None,
        cache_dtype: str = "float32",
        progress_bar: bool = True,
    ) -> None:
        super().__init__()
        check_val_split(val_split)
        check_pattern(patient_pattern)
        if batch_size < 1:
            raise UserError(f"dataset.batch_size={batch_size}: at least 1 is needed; try 2")
        if num_workers < 0:
            raise UserError(f"dataset.num_workers={num_workers}: cannot be negative; try 0")
        check_cache(cache_rate, cache_dtype)
        self.root_dir = root_dir
        self.splits_dir = Path(splits_dir)
        self.cache_dir = cache_dir
        self.patient_pattern = patient_pattern
        self.val_split = val_split
        self.seed = seed
        self.batch_size = batch_size
        self.num_workers = num_workers
        self.cache_rate = cache_rate
        self.cache_dtype = cache_dtype
        self.progress_bar = progress_bar
        self.phantoms = phantoms
        self.augment = augment
        # Workers fetch ahead before Lightning tells which epoch a resumed run is in.
        self.first_epoch = 0
        # Of several processes that train together; only while they do.
        self.share = Share()
        self.splits: dict[str, list[Record]] = {}
        self._preprocessed: set[str] = set()

    def scan(self, root_dir: str | Path | None) -> list[Record]:
        """Every usable record under ``root_dir``; raises ``UserError`` listing what is wrong."""
        raise NotImplementedError

    def split(self, records: list[Record]) -> dict[str, list[Record]]:
        """Name → records, at least "train" and "val"."""
        train, val = split_by_patient(records, self.val_split, self.seed)
        return {"train": train, "val": val}

    def check(self, splits: Mapping[str, Sequence[Record]], records: Sequence[Record]) -> None:
        """Raise ``UserError`` where a split, new or saved, breaks a promise of the dataset."""

    def inventory(self, root_dir: str | Path | None) -> tuple[list[Record], list[Finding]]:
        """For ``task=check_data``: every record, usable or not, and what ``scan`` would refuse."""
        try:
            return self.scan(root_dir), []
        except UserError as error:
            what, cure = "cannot be scanned", "do as it says"
            return [], [Finding("error", str(root_dir), what, cure, str(error))]

    def examine(self, record: Record) -> Examination:
        """For ``task=check_data``: a look at all of one record; called from several threads.

        This default only tells files that are not there or empty.
        """
        paths = [str(value) for key, value in record.items() if key not in ("id", "patient")]
        problems = [file_problem(path) for path in paths if os.path.isabs(path)]
        return Examination([problem for problem in problems if problem])

    def compare(self, records: Sequence[Record], contents: Mapping[str, str]) -> list[Finding]:
        """For ``task=check_data``: what is wrong with records seen together.

        This default tells copies among patients, who may end in different splits.

        Args:
            records: all that ``inventory`` found.
            contents: file → digest, of all that were decoded.
        """
        return find_copies(records, contents)

    def dataset(self, split: str) -> Dataset[Any]:
        """The samples of one split."""
        raise NotImplementedError

    def samples(self, records: Sequence[Record]) -> Dataset[Any]:
        """Any records as samples, in their order, without random transforms.

        This default reads them behind the cache, as a split of a name that is not "train".
        """
        part = copy.copy(self)
        part.splits = {"any": list(records)}
        return part.dataset("any")

    def root(self) -> str | Path | None:
        """The folder to scan; phantoms are written into it on first use."""
        if self.phantoms is None or self.root_dir is None:
            return self.root_dir
        return self.phantoms.prepare(self.root_dir, self.progress_bar)

    def factors(self) -> Path | None:
        """``factors.csv`` in the folder of the data, if it is there."""
        root = self.root()
        table = None if root is None else Path(root) / FACTORS
        return table if table is not None and table.is_file() else None

    def setup(self, stage: str | None = None) -> None:
        """Scan and split once; a split that the run has saved is kept to the letter."""
        check_workers(self.num_workers)
        if self.splits:
            return
        root = self.root()
        records = self.scan(root)
        # "train" is written last, so that without it the others are what an interrupted run left.
        if (self.splits_dir / "train.csv").is_file():
            saved = sorted(path.stem for path in self.splits_dir.glob("*.csv"))
            splits = {name: read_split(self.splits_dir, name, records) for name in saved}
            self.check(splits, records)
        else:
            splits = self.split(records)
            self.check(splits, records)
            write_splits(self.splits_dir, splits)
        self.splits = splits
        sizes = ", ".join(f"{len(part)} {name}" for name, part in self.splits.items())
        log.info("data: %s (%s)", sizes, root)

    def limited(self, cases: int, cache_dir: str | Path) -> Self:
        """A copy, once set up, that has read nothing.

        Args:
            cases: at most so many samples of each split.
            cache_dir: folder of its preprocessed samples.
        """
        fresh = copy.copy(self)
        fresh.splits = {name: records[:cases] for name, records in self.splits.items()}
        fresh.cache_dir = str(cache_dir)
        fresh.forget()
        return fresh

    def forget(self) -> None:
        """Hold no sample any more, as before the first was read."""
        self._preprocessed = set()

    def prepare_data(self) -> None:
        """Preprocess what training needs, before the first epoch.

        Lightning calls this on one process of each machine, so that several do not do it twice.
        """
        self.setup()
        self.preprocess("train", "val")

    def preprocess(self, *splits: str) -> None:
        """Have the samples of these splits in the cache; what is there already costs nothing.

        Raises:
            UserError: listing every sample that cannot be preprocessed, or when the disk is small.
        """
        new = [name for name in splits if name not in self._preprocessed]
        fill_cache([self.dataset(name) for name in new], self.progress_bar)
        self._preprocessed.update(new)

    def train_dataloader(self) -> DataLoader:
        """Shuffled batches for training."""
        return self.loader("train", shuffle=True)

    def val_dataloader(self) -> DataLoader:
        """Batches for validation, in the order of the split."""
        return self.loader("val")

    def test_dataloader(self) -> DataLoader:
        """Batches to judge by; the validation split where a dataset has no test split."""
        return self.loader("test" if "test" in self.splits else "val")

    def loader(self, split: str, shuffle: bool = False) -> DataLoader:
        """Batches of one split, in its order unless shuffled."""
        self.preprocess(split)
        dataset: Any = self.dataset(split)
        check_shared_memory(self.num_workers, self.batch_size * memory_of_sample(dataset))
        order = EpochOrder(len(dataset), self.seed if shuffle else None, self.first_epoch)
        return DataLoader(
            WithFillers(dataset),
            batch_sampler=EpochBatches(order, self.batch_size, self.share),
            num_workers=self.num_workers,
            pin_memory=self._on_cuda(),
            persistent_workers=self.num_workers > 0,
        )

    def _on_cuda(self) -> bool:
        """Whether batches go to a GPU to which pinned memory is copied faster."""
        strategy = self.trainer.strategy if self.trainer is not None else None
        return strategy is not None and strategy.root_device.type == "cuda"
