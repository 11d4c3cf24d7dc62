"""Claims about what the network's cube holds of a brain, and where the cube is put."""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from vaelab.data.volumes.crop import CentredOnBrain, box_of, cut_off
from vaelab.data.volumes.grids import examine_record
from vaelab.data.volumes.settings import VolumeSettings
from vaelab.errors import UserError

CUBE = {"modalities": ("t1c",), "roi_size": (16, 16, 16)}


def block(shape: tuple[int, ...], *ends: tuple[int, int]) -> np.ndarray:
    """True from the first to the last index of each axis."""
    mask = np.zeros(shape, bool)
    mask[tuple(slice(first, last + 1) for first, last in ends)] = True
    return mask


def lost(mask: np.ndarray, affine: np.ndarray | None = None, **changes: object) -> float:
    settings = VolumeSettings(**{**CUBE, **changes})  # type: ignore[arg-type]
    return cut_off(mask, box_of(mask), np.eye(4) if affine is None else affine, settings)


def test_a_box_is_the_first_and_last_place_along_each_axis():
    assert box_of(block((9, 8, 7), (1, 4), (0, 7), (6, 6))) == [(1, 4), (0, 7), (6, 6)]
    assert box_of(np.zeros((3, 4, 5), bool)) == [(0, 2), (0, 3), (0, 4)]


def test_what_is_cut_off_is_the_share_of_voxels_outside_of_the_centred_cube():
    # The cube holds planes 12 to 27 of 40. Of the brain's 20 planes, 5 to 24, it misses 5 to 11.
    brain = block((40, 16, 16), (5, 24), (2, 13), (2, 13))
    assert lost(brain) == pytest.approx(7 / 20)
    # Of 2 mm voxels it holds 32 planes, 4 to 35: all of the brain.
    assert lost(brain, spacing=(2.0, 1.0, 1.0)) == 0
    # About the brain's own middle, 14.5, it holds 7 to 22: 2 planes are missed at either end.
    assert lost(brain, crop="brain") == pytest.approx(4 / 20)
    assert lost(np.zeros((40, 16, 16), bool)) == 0


def test_the_axes_of_a_file_may_be_in_another_order():
    # The file's first axis is the patient's third, with 2 mm voxels: 40 planes are 80 mm, of which
    # 32 mm are held, planes 12 to 27.
    affine = np.array([[0.0, 1, 0, 0], [0, 0, 1, 0], [2, 0, 0, 0], [0, 0, 0, 1]])
    brain = block((40, 16, 16), (5, 24), (0, 15), (0, 15))
    assert lost(brain, affine, spacing=(1.0, 1.0, 2.0)) == pytest.approx(7 / 20)


def test_a_crop_about_the_brain_keeps_all_of_it_and_puts_its_middle_in_the_middle():
    brain = block((40, 16, 20), (5, 24), (2, 13), (1, 6))
    volume = MetaTensor(torch.from_numpy(brain[None].astype(np.float32)), affine=torch.eye(4))
    result = CentredOnBrain(["t1c"])({"t1c": volume})["t1c"]
    assert result.sum() == brain.sum()
    for (first, last), side in zip(box_of(result[0].numpy() > 0), result.shape[1:], strict=True):
        assert first + last == side - 1
    # Planes 30 to 39 are gone from the first axis and 8 to 19 from the third: where the others are
    # has not changed.
    assert tuple(result.shape) == (1, 30, 16, 8)
    assert result.affine[:3, 3].tolist() == [0, 0, 0]


def test_an_examined_record_says_what_is_cut_off_and_warns(tmp_path: Path):
    brain = block((40, 16, 16), (5, 24), (2, 13), (2, 13)).astype(np.float32)
    brain[8, 5, 5] = 20.5  # a series, not labels
    tumour = block((40, 16, 16), (10, 13), (4, 7), (4, 7)).astype(np.uint8)
    record = {"id": "P-1-000", "patient": "P-1"}
    for key, voxels in (("t1c", brain), ("seg", tumour)):
        record[key] = str(tmp_path / f"{key}.nii.gz")
        nibabel.save(nibabel.Nifti1Image(voxels, np.eye(4)), record[key])
    centred = examine_record(record, VolumeSettings(**CUBE))
    # Planes 12 and 13 of the tumour's four are held.
    assert centred.facts["brain cut off [%]"] == pytest.approx(35)
    assert centred.facts["segmentation cut off [%]"] == pytest.approx(50)
    (finding,) = (one for one in centred.findings if "cut off" in one.what)
    assert (finding.severity, finding.file) == ("warning", "P-1-000")
    assert finding.detail == "35% of the brain, 50% of the segmentation"
    assert "dataset.crop=brain" in finding.cure
    fitted = examine_record(record, VolumeSettings(**CUBE, spacing=(1.3, 1, 1), crop="brain"))
    assert not any("cut off" in one.what for one in fitted.findings)
    assert fitted.facts["brain cut off [%]"] == 0


def test_a_place_of_the_cube_that_is_not_offered_is_refused():
    with pytest.raises(UserError, match=r"dataset\.crop=left: must be centre or brain"):
        VolumeSettings(**CUBE, crop="left")
