"""Claims about how the files of subjects are found, and what is said where they are not."""

from __future__ import annotations

import re
from pathlib import Path

import nibabel
import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from vaelab.data.mri.brats import BraTSDataModule
from vaelab.data.volumes.layouts import PRESETS, guessed
from vaelab.errors import UserError

KEYS = ["t1c", "t1n", "t2f", "t2w", "seg"]
CONF = Path(__file__).parents[3] / "conf" / "dataset"
AFFINE = np.diag([12.0, 12.0, 12.0, 1.0])


def tree(root: Path, subjects: list[str], ends: list[str], suffix: str = ".nii.gz") -> Path:
    for subject in subjects:
        (root / subject).mkdir(parents=True)
        for number, end in enumerate(ends):
            voxels = np.random.default_rng(number).integers(0, 900, (16,) * 3).astype(np.int16)
            if "seg" in end.lower():
                voxels = np.zeros((16,) * 3, np.uint8)
                voxels[:2], voxels[2:5], voxels[5:9] = 4, 2, 1
            image = nibabel.Nifti1Image(voxels, AFFINE)
            nibabel.save(image, root / subject / f"{subject}{end}{suffix}")
    return root


def module(root: Path, **settings: object) -> BraTSDataModule:
    folder = root.parent
    return BraTSDataModule(
        str(root), str(folder / "splits"), str(folder / "cache"), val_split=0.5,
        roi_size=(16, 16, 16), spacing=(12, 12, 12), progress_bar=False, **settings,  # type: ignore[arg-type]
    )  # fmt: skip


def refusal(root: Path, **settings: object) -> str:
    with pytest.raises(UserError) as caught:
        module(root, **settings).scan(root)
    return str(caught.value)


OLD = ["_t1", "_t1ce", "_t2", "_flair", "_seg"]


@pytest.mark.parametrize("suffix", [".nii.gz", ".nii", ".NII.GZ", ".NII"])
def test_older_brats_is_read_with_its_preset_whatever_the_suffix(
    tmp_path: Path, suffix: str
) -> None:
    root = tree(tmp_path / "data", ["BraTS2021_00000", "BraTS2021_00002"], OLD, suffix)
    settings = yaml.safe_load((CONF / "brats_2021.yaml").read_text())
    data = module(root, files=settings["files"], label_map=settings["label_map"])
    data.setup("fit")
    (sample,) = data.dataset("val")
    assert sample["image"].shape == (4, 16, 16, 16)
    counts = np.bincount(sample["seg"].numpy().ravel())
    assert counts.tolist() == [7 * 256, 4 * 256, 3 * 256, 2 * 256]  # 4 became 3
    findings = [f for r in data.inventory(root)[0] for f in data.examine(r).findings]
    assert not [finding for finding in findings if "labels beside" in finding.what]


def test_the_presets_are_those_of_the_config_files() -> None:
    files = yaml.safe_load((CONF / "brats_2021.yaml").read_text())["files"]
    assert files == PRESETS["brats_2021"]
    assert set(PRESETS["brats_men"].items()) == {(key, f"*-{key}") for key in KEYS}


def test_a_set_of_one_series_is_read_whatever_its_name(tmp_path: Path) -> None:
    root = tree(tmp_path / "data", ["IXI002-Guys-0828", "IXI012-HH-1211"], ["-T1"])
    settings = yaml.safe_load((CONF / "one_series.yaml").read_text())
    settings.pop("defaults")
    records = module(root, **settings).scan(root)
    assert [record["patient"] for record in records] == ["IXI002", "IXI012"]
    assert Path(records[0]["t1"]).name == "IXI002-Guys-0828-T1.nii.gz"


def test_names_of_another_release_are_said_with_the_preset_that_would_do(tmp_path: Path) -> None:
    root = tree(tmp_path / "data", [f"BraTS2021_{n:05d}" for n in range(9)], OLD)
    message = refusal(root)
    assert "expected *-t1c.nii.gz, *-t1n.nii.gz" in message
    assert "Found in BraTS2021_00000: BraTS2021_00000_flair.nii.gz, " in message
    assert "did you mean dataset=brats_2021?" in message
    assert message.count("\n") == 6  # five subjects, and how many more
    assert "and 4 more" in message
    new = tree(
        tmp_path / "new", ["BraTS-MEN-0001-000", "BraTS-MEN-0002-000"], [f"-{k}" for k in KEYS]
    )
    assert "did you mean dataset=brats_men?" in refusal(new, files=PRESETS["brats_2021"])


@pytest.mark.parametrize(
    ("ends", "files"),
    [
        (
            ["_T1", "_T1GD", "_T2", "_FLAIR", "_segm"],
            {"t1c": "*_T1GD", "t1n": "*_T1", "t2f": "*_FLAIR", "t2w": "*_T2", "seg": "*_segm"},
        ),
        (
            ["_T1", "_T1c", "_T1c_bias", "_T2", "_T2_bias", "_FLAIR", "_tumor_segmentation"],
            {
                "t1c": "*_T1c", "t1n": "*_T1", "t2f": "*_FLAIR", "t2w": "*_T2",
                "seg": "*_tumor_segmentation",
            },
        ),
    ],
)  # fmt: skip
def test_settings_are_offered_that_find_the_files(
    tmp_path: Path, ends: list[str], files: dict[str, str]
) -> None:
    root = tree(tmp_path / "data", ["UPENN-GBM-00001_11", "UPENN-GBM-00002_11"], ends)
    override = re.search(r"did you mean 'dataset\.files=(\{.*\})'\?", refusal(root))
    assert override
    offered = yaml.safe_load(override[1].replace(":", ": "))
    assert offered == files
    assert len(module(root, files=offered).scan(root)) == 2


@pytest.mark.parametrize(
    ("wrong", "meant"), [("", "data/train"), ("data/train/P1-0", "data/train")]
)
def test_a_root_one_level_too_high_or_low_gets_the_right_one(
    tmp_path: Path, wrong: str, meant: str
) -> None:
    tree(tmp_path / "data" / "train", ["P1-0", "P2-0"], [f"-{key}" for key in KEYS])
    there = tmp_path / (wrong or "data")
    assert f"id you mean dataset.root_dir={tmp_path / meant}?" in refusal(there)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["imagesTr/a_0000.nii.gz", "labelsTr/a.nii.gz"], "the layout of nnU-Net"),
        (["sub-01/anat/sub-01_T1w.nii.gz"], "the layout of BIDS"),
        (["a_T1.nii.gz", "b_T1.nii.gz"], "side by side; give each subject a folder"),
        (["notes.txt"], "Found there: notes.txt"),
        ([], "Found there: nothing"),
    ],
)
def test_other_layouts_are_said_in_one_sentence(
    tmp_path: Path, names: list[str], message: str
) -> None:
    (tmp_path / "data").mkdir()
    for name in names:
        (tmp_path / "data" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "data" / name).touch()
    shown = refusal(tmp_path / "data")
    assert message in shown


def test_what_systems_leave_beside_subjects_is_no_subject(tmp_path: Path) -> None:
    root = tree(tmp_path / "data", ["P1-0", "P2-0"], [f"-{key}" for key in KEYS])
    for name in ("__MACOSX", "@eaDir", "lost+found"):
        (root / name).mkdir()
    (root / "P1-0" / "._P1-0-t1c.nii.gz").touch()
    assert [record["id"] for record in module(root).scan(root)] == ["P1-0", "P2-0"]


def test_a_key_that_is_no_series_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"dataset\.files: t1ce is none of dataset\.modalities"):
        module(tmp_path, files={"t1ce": "*"})


_name = st.text(st.characters(codec="utf-8", exclude_characters="/\0"), min_size=1, max_size=10)


@given(st.lists(_name, max_size=6), st.sampled_from([".nii", ".nii.gz", ".NII.GZ", ".txt", ""]))
def test_any_names_can_be_guessed_at(names: list[str], suffix: str) -> None:
    files = guessed([name + suffix for name in names], KEYS)
    assert files.keys() <= set(KEYS)


@given(_name.filter(lambda name: not name.startswith(".")))
def test_what_is_guessed_finds_the_file(subject: str) -> None:
    names = [f"{subject}_{end}.nii.gz" for end in ("t1ce", "t1", "t2", "flair", "seg")]
    assert guessed(names, KEYS) == PRESETS["brats_2021"]
