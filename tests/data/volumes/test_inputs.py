"""Claims about how folders of series from elsewhere are found and read."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import torch

from vaelab.data.contract import InputSample
from vaelab.data.volumes.inputs import find_volumes, read_volume
from vaelab.data.volumes.layouts import series_by_name
from vaelab.data.volumes.settings import VolumeSettings
from vaelab.errors import UserError

series = partial(series_by_name, pattern="*-{key}.nii.gz", keys=["t1c", "t2w"])


def read(folder: Path, **changed: Any) -> InputSample:
    return read_volume(folder, series, VolumeSettings(("t1c", "t2w"), (16, 16, 16), **changed))


def test_a_subject_is_a_folder_with_a_series_complete_or_not(tmp_path: Path) -> None:
    for name in ("more/S-2/S-2-t1c.nii.gz", "S-1/S-1-t2w.nii.gz", "other/x.nii.gz"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    below = find_volumes(str(tmp_path), series, ["t1c", "t2w"], "series", Path("/nowhere"))
    assert [one.name for one in below] == ["S-1", "more/S-2"]
    only = str(tmp_path / "more" / "S-2")
    (alone,) = find_volumes(only, series, ["t1c", "t2w"], "series", Path("/nowhere"))
    assert alone.name == alone.place == "S-2"


def subject(folder: Path, shapes: dict[str, tuple[int, ...]]) -> Path:
    folder.mkdir()
    for key, shape in shapes.items():
        volume = np.random.default_rng(0).normal(size=shape).astype(np.float32)
        nibabel.save(nibabel.Nifti1Image(volume, np.eye(4)), folder / f"{folder.name}-{key}.nii.gz")
    return folder


SAME = {"t1c": (10, 12, 14), "t2w": (10, 12, 14)}


def test_a_subject_needs_no_segmentation_and_knows_where_it_lies(tmp_path: Path) -> None:
    volume = read(subject(tmp_path / "S", SAME))
    assert volume.image.shape == (2, 16, 16, 16)
    assert type(volume.image) is torch.Tensor
    # padded by 3, 2 and 1 voxels in front
    np.testing.assert_allclose(volume.affine[:3, 3], [-3, -2, -1])
    assert volume.original == tmp_path / "S" / "S-t1c.nii.gz"


def test_a_subject_is_its_own_on_the_grid_that_others_are_aligned_to(tmp_path: Path) -> None:
    folder = subject(tmp_path / "S", SAME | {"t2w": (16, 16, 16)})
    with pytest.raises(UserError, match=r"dataset\.align_to=t1c"):
        read(folder)
    volume = read(folder, align_to="t2w")
    assert volume.original.name == "S-t2w.nii.gz"
    np.testing.assert_allclose(volume.affine, np.eye(4))


def test_what_is_wrong_with_a_subject_is_said(tmp_path: Path) -> None:
    folder = subject(tmp_path / "S", {"t1c": (10, 12, 14)})
    with pytest.raises(UserError, match="S: no t2w"):
        read(folder)
    with pytest.raises(UserError, match="does not exist"):
        read(tmp_path / "T")
    with pytest.raises(UserError, match="a file; its folder is needed"):
        read(folder / "S-t1c.nii.gz")


@pytest.mark.parametrize("share", [0.0, 0.02, 0.5, 0.99])
def test_a_truncated_series_is_named(tmp_path: Path, share: float) -> None:
    folder = subject(tmp_path / "S", SAME)
    path = folder / "S-t2w.nii.gz"
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    what = "empty file|not a readable NIfTI file|voxels are not readable"
    with pytest.raises(UserError, match=rf"S-t2w\.nii\.gz: .*({what})"):
        read(folder)
