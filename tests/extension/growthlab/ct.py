"""CT with one series and a window of Hounsfield units: one class, one YAML."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from monai.transforms import ScaleIntensityRanged

from vaelab.data.volumes.module import VolumeDataModule
from vaelab.data.volumes.settings import VolumeSettings


@dataclass(frozen=True)
class CTSettings(VolumeSettings):
    """A window of HU that becomes [0, 1]."""

    window: tuple[float, float] = (-100.0, 300.0)

    def intensity(self) -> list[Any]:
        """In place of z-scores."""
        return [ScaleIntensityRanged(self.modalities, *self.window, 0.0, 1.0, clip=True)]


class CTDataModule(VolumeDataModule):
    """One scan a folder, ``ct.nii.gz``, with ``seg.nii.gz``."""

    series_name = "{key}.nii.gz"

    def __init__(
        self,
        root_dir: str,
        splits_dir: str,
        cache_dir: str,
        modalities: Sequence[str] = ("ct",),
        window: tuple[float, float] = (-100.0, 300.0),
        roi_size: Sequence[int] = (16, 16, 16),
        spacing: Sequence[float] = (4.0, 4.0, 4.0),
        val_split: float = 0.4,
        seed: int = 42,
        progress_bar: bool = True,
    ) -> None:
        super().__init__(
            root_dir, splits_dir, cache_dir, modalities, roi_size, spacing, val_split=val_split,
            seed=seed, progress_bar=progress_bar,
        )  # fmt: skip
        self.settings = CTSettings(**vars(self.settings), window=tuple(window))
