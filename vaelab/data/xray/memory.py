"""Decoded images that stay in memory."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any

from torch import Tensor
from torch.utils.data import Dataset

from vaelab.data.build import check_room, find_missing, map_blocks, thread_pool
from vaelab.data.index import enumerate_names
from vaelab.errors import UserError
from vaelab.progress import progress


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


class MemoryFirst(Dataset[dict[str, Any]]):
    """Images of any records, without masks; nothing more stays in memory.

    Args:
        files: reads the image of each record.
        ids: of the records.
        memory: images that are decoded already.
    """

    def __init__(
        self, files: Dataset[Any], ids: Sequence[str], memory: Iterable[ImagesInMemory]
    ) -> None:
        self.files = files
        self.ids = list(ids)
        self.known = {
            name: (images, place) for images in memory for place, name in enumerate(images.ids)
        }

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> dict[str, Any]:
        if self.ids[index] not in self.known:
            sample: dict[str, Any] = self.files[index]
            return {key: sample[key] for key in ("image", "label", "id")}
        images, place = self.known[self.ids[index]]
        return {key: value for key, value in images[place].items() if key != "mask"}


def read_all(images: Dataset[Any], desc: str, progress_bar: bool) -> list[dict[str, Any]]:
    """Every sample of a cached dataset, in order, several read at once.

    Raises:
        UnreadableImagesError: listing every file that cannot be decoded.
    """
    check_room(find_missing([images]))
    samples: list[dict[str, Any]] = []
    unreadable: list[str] = []
    count = len(images)  # type: ignore[arg-type]  # torch gives its datasets no length
    with thread_pool() as pool:
        for one in progress(
            map_blocks(pool, partial(_read, images), range(count)),
            desc, count, unit="image", shown=progress_bar,
        ):  # fmt: skip
            if isinstance(one, str):
                unreadable.append(one)
            else:
                samples.append(one)
    if unreadable:
        raise UnreadableImagesError(unreadable)
    return samples


def _read(images: Dataset[Any], index: int) -> dict[str, Any] | str:
    """A sample, or what is wrong with it."""
    try:
        sample: dict[str, Any] = images[index]
    except RuntimeError as error:  # MONAI's Compose wraps what a transform raises
        if not isinstance(error.__cause__, UserError):
            raise
        return str(error.__cause__)
    return sample
