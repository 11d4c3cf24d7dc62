"""vaelab's own datasets keep the promises that it asks of others', and a broken one is named."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from vaelab.cli.config_files import CONF
from vaelab.data.index import Record
from vaelab.data.phantoms.mri import PhantomMRI
from vaelab.data.phantoms.xray import PhantomXray
from vaelab.testing import BrokenPromise, check_dataset

from ..data.test_contract import NumberDataModule
from .test_promises import options, part_of

MRI = PhantomMRI(num_patients=4, num_followups=1, voxel_size=6.0)
XRAY = PhantomXray(num_train=12, num_test=4, image_size=48)
SMALL = {
    "brats_men": {"roi_size": [16] * 3, "spacing": [12] * 3, "val_split": 0.4},
    "chest_xray": {"image_size": [32, 32], "calibration_split": 0.2},
}

OF_2021 = {"-t1c": "_t1ce", "-t1n": "_t1", "-t2f": "_flair", "-t2w": "_t2", "-seg": "_seg"}


@pytest.fixture(scope="session")
def trees(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Phantoms under the names of real data."""
    folder = tmp_path_factory.mktemp("trees")
    mri = MRI.prepare(str(folder))
    for option, names in (("brats_2021", OF_2021), ("one_series", {"-t1n": "-t1n"})):
        for file in sorted(mri.glob("*/*.nii.gz")):
            new, old = next(((v, k) for k, v in names.items() if f"{k}." in file.name), ("", ""))
            if old:
                target = (
                    folder / option / file.parent.name / file.name.replace(f"{old}.", f"{new}.")
                )
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(file, target)
    xray = XRAY.prepare(str(folder))
    return {
        "phantom_mri": mri, "brats_men": mri, "phantom_xray": xray, "chest_xray": xray,
        "brats_2021": folder / "brats_2021", "one_series": folder / "one_series",
    }  # fmt: skip


@pytest.mark.parametrize("option", options("dataset"))
def test_every_dataset_keeps_its_promises(
    option: str, trees: dict[str, Path], tmp_path: Path
) -> None:
    assert (CONF / "dataset" / f"{option}.yaml").is_file()
    small = SMALL["chest_xray" if "xray" in option else "brats_men"]
    check_dataset(
        part_of(
            "dataset", option, **small, phantoms=None, root_dir=str(trees[option]), num_workers=0,
            splits_dir=str(tmp_path / "splits"), cache_dir=str(tmp_path / "cache"),
            progress_bar=False,
        )
    )  # fmt: skip


class Numbers(NumberDataModule):
    """Four patients; ``change`` breaks a promise."""

    def __init__(self, folder: Path, **changes: Any) -> None:
        super().__init__(
            None, str(folder / "splits"), str(folder / "cache"), r"^(.+)-\d+$", 0.5, 0, 2, 0, 0.0,
            None, progress_bar=False,
        )  # fmt: skip
        self.changes = changes

    def split(self, records: list[Record]) -> dict[str, list[Record]]:
        splits = super().split(records)
        if "leak" in self.changes:
            splits["val"] = [*splits["val"], splits["train"][0]]
        return splits

    @property
    def channel_names(self) -> Sequence[str]:  # type: ignore[override]
        names: Sequence[str] = self.changes.get("names", ("number",))
        return names


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"leak": True}, "no patient is in train and in val"),
        ({"names": ("a", "b")}, "channel_names name the channels of an image"),
    ],
)
def test_a_dataset_that_breaks_a_promise_is_refused_by_name(
    changes: dict[str, Any], words: str, tmp_path: Path
) -> None:
    with pytest.raises(BrokenPromise, match=words):
        check_dataset(Numbers(tmp_path, **changes))


def test_the_least_that_a_dataset_can_be_keeps_its_promises(tmp_path: Path) -> None:
    check_dataset(Numbers(tmp_path))
