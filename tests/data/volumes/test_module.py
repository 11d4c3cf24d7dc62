"""Claims about volumes of any kind: CT with one series and a window takes one small class."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import torch
from monai.transforms import ScaleIntensityRanged

from vaelab.data.mri.brats import BraTSDataModule
from vaelab.data.phantoms.mri import PhantomMRI
from vaelab.data.volumes.module import VolumeDataModule
from vaelab.data.volumes.settings import VolumeSettings
from vaelab.errors import UserError

SHAPE = (20, 16, 12)
SPACING = (2.0, 2.0, 5.0)  # mm


@dataclass(frozen=True)
class CTSettings(VolumeSettings):
    window: tuple[float, float] = (-100.0, 300.0)  # HU that become 0 and 1

    def intensity(self) -> list[Any]:
        return [ScaleIntensityRanged(self.modalities, *self.window, 0.0, 1.0, clip=True)]


class CTDataModule(VolumeDataModule):
    """One CT scan a folder, called ``scan.nii.gz``, with ``seg.nii.gz``."""

    usual_modalities = ("scan",)
    series_name = "{key}.nii.gz"

    def __init__(self, *args: Any, window: tuple[float, float] = (-100.0, 300.0), **others: Any):
        super().__init__(*args, **others)
        self.settings = CTSettings(**vars(self.settings), window=window)


def hounsfield(seed: int) -> np.ndarray:
    values = np.random.default_rng(seed).integers(-1000, 1500, SHAPE).astype(np.int16)
    values[0, 0, 0], values[-1, -1, -1] = -100, 300  # the ends of the window
    return values


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Four patients, one with two time points."""
    for place, name in enumerate(("a-1", "b-1", "c-1", "d-1", "d-2")):
        folder = tmp_path / "ct" / name
        folder.mkdir(parents=True)
        affine = np.diag([*SPACING, 1.0])
        seg = np.zeros(SHAPE, np.uint8)
        seg.flat[: 13 * 12] = np.repeat(np.arange(1, 14), 12)  # more organs than BraTS has labels
        nibabel.save(nibabel.Nifti1Image(hounsfield(place), affine), folder / "scan.nii.gz")
        nibabel.save(nibabel.Nifti1Image(seg, affine), folder / "seg.nii.gz")
    return tmp_path / "ct"


def ct(root: Path, **changed: Any) -> CTDataModule:
    run = root.parent / "run"
    settings: dict[str, Any] = {
        "roi_size": SHAPE, "spacing": SPACING, "val_split": 0.4, "progress_bar": False,
    }  # fmt: skip
    data = CTDataModule(str(root), str(run / "splits"), str(run / "cache"), **(settings | changed))
    data.setup("fit")
    return data


def test_ct_is_one_channel_between_the_ends_of_its_window(root: Path) -> None:
    data = ct(root)
    (batch,) = list(data.loader("val"))[:1]
    assert batch["image"].shape[1:] == (1, *SHAPE)
    assert batch["seg"].unique().tolist() == list(range(14))
    assert data.channel_names == ["scan"]
    place = ord(batch["id"][0][0]) - ord("a") + int(batch["id"][0] == "d-2")
    expected = np.clip((hounsfield(place) + 100) / 400, 0, 1)
    np.testing.assert_allclose(batch["image"][0, 0], expected, atol=1e-6)


def test_another_window_is_another_entry_in_the_cache(root: Path) -> None:
    wide, narrow = (ct(root, window=window) for window in ((-1000.0, 1000.0), (0.0, 80.0)))
    images = [next(iter(data.loader("val")))["image"] for data in (wide, narrow)]
    assert not images[0].equal(images[1])
    entries = [*(root.parent / "run" / "cache").rglob("*.safetensors")]
    assert len(entries) == 2 * len(wide.splits["val"])


def test_settings_of_a_class_with_other_intensities_are_told_from_the_plain_ones() -> None:
    plain = VolumeSettings(("scan",))
    ours = CTSettings(("scan",))
    assert "class" not in plain.as_dict()
    assert ours.as_dict() == plain.as_dict() | {"window": (-100.0, 300.0), "class": "CTSettings"}


def test_organs_of_any_number_are_a_segmentation(root: Path) -> None:
    data = ct(root)
    records, findings = data.inventory(root)
    assert findings == []
    what = {finding.what for record in records for finding in data.examine(record).findings}
    assert not {text for text in what if "label" in text or "segmentation" in text}


def test_a_scan_from_elsewhere_gets_its_map_in_its_own_space(root: Path, tmp_path: Path) -> None:
    data = ct(root, roi_size=(10, 10, 10), spacing=(4.0, 4.0, 4.0))
    out = tmp_path / "out"
    inputs = data.find_inputs(str(root), out)
    assert [one.name for one in inputs] == ["a-1", "b-1", "c-1", "d-1", "d-2"]
    sample = data.read_input(inputs[0].path)
    assert sample.image.shape == (1, 10, 10, 10)
    data.save_map(torch.ones(10, 10, 10), sample, out / inputs[0].place, paint=max)
    saved = nibabel.load(out / "a-1" / "a-1_anomaly.nii.gz")
    assert saved.shape == SHAPE
    np.testing.assert_allclose(saved.affine, np.diag([*SPACING, 1.0]))


def test_volumes_tell_their_size_and_what_is_segmented(root: Path) -> None:
    data = ct(root)
    assert data.spacing == SPACING
    sample = data.samples(data.splits["val"])[0]
    # 13 labels of 12 voxels, 2 · 2 · 5 mm³ each
    assert data.covariates["segmented_mm3"](sample) == 13 * 12 * 20
    assert ct(root, with_seg=False).covariates == {}
    assert data.ids_carry_time_points


@pytest.mark.filterwarnings("ignore")  # MONAI's own readers announce what is not installed
def test_what_monai_alone_would_do_keeps_to_the_window(root: Path) -> None:
    data = ct(root)
    record = data.splits["val"][0]
    plain = data.plain_pipeline()(dict(record))
    np.testing.assert_allclose(plain["image"], data.samples([record])[0]["image"], atol=1e-6)


def test_a_file_that_is_missing_is_called_by_its_key(root: Path) -> None:
    (root / "b-1" / "scan.nii.gz").unlink()
    with pytest.raises(UserError, match=r"b-1: no scan"):
        ct(root)


def phantoms(tmp_path: Path, phantom: PhantomMRI | None) -> BraTSDataModule:
    return BraTSDataModule(
        str(tmp_path), str(tmp_path / "splits"), str(tmp_path / "cache"), roi_size=(16, 24, 32),
        spacing=(12.0, 8.0, 6.0), phantoms=phantom,
    )  # fmt: skip


def test_phantoms_can_be_as_many_and_as_large_as_asked(tmp_path: Path) -> None:
    data = phantoms(tmp_path, PhantomMRI(num_patients=4, num_followups=2))
    larger = data.with_patients(7).with_side(48)
    assert larger.phantoms == PhantomMRI(num_patients=7, num_followups=0, voxel_size=6.0)
    assert larger.settings.roi_size == (48, 48, 48)
    assert larger.spacing == (4.0, 4.0, 4.0)  # 16 · 12 = 24 · 8 = 32 · 6 = 48 · 4 mm
    assert data.settings.roi_size == (16, 24, 32)
    assert data.phantoms == PhantomMRI(num_patients=4, num_followups=2)


def test_real_patients_cannot_be_as_many_as_asked(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="task=growth: a BraTSDataModule cannot be made as large"):
        phantoms(tmp_path, None).with_patients(7)
