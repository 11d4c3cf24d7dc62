"""Claims about the loader of BraTS folders: what is found, refused, split and delivered."""

from __future__ import annotations

import gzip
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from vaelab.data.index import Record
from vaelab.data.mri.brats import BraTSDataModule
from vaelab.data.volumes.settings import VolumeSettings
from vaelab.data.volumes.transforms import preprocessing, val_pipeline
from vaelab.errors import UserError

MODALITIES = ("t1c", "t1n", "t2f", "t2w")
FILES = (*MODALITIES, "seg")
SHAPE = (16, 14, 12)
RAW = Path(__file__).parents[3].parent / "shared" / "data" / "tcga_lgg_raw"


def write(path: Path, array: np.ndarray, origin: float = 0.0) -> None:
    affine = np.eye(4)
    affine[:3, 3] = origin
    nibabel.save(nibabel.Nifti1Image(array, affine), path)


def add_subject(root: Path, name: str, files: tuple[str, ...] = FILES) -> Path:
    """A folder of small volumes as BraTS names them; returns it."""
    rng = np.random.default_rng([*name.encode()])
    folder = root / name
    folder.mkdir(parents=True)
    for key in files:
        volume = rng.normal(100, 20, SHAPE).astype(np.float32)
        array = rng.integers(0, 4, SHAPE).astype(np.uint8) if key == "seg" else volume
        write(folder / f"{name}-{key}.nii.gz", array)
    return folder


@pytest.fixture(scope="module")
def shared_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six patients, two of whom were seen twice. To be read only."""
    root = tmp_path_factory.mktemp("brats")
    for patient in range(6):
        add_subject(root, f"BraTS-MEN-{patient:05d}-000")
    for patient in (1, 4):
        add_subject(root, f"BraTS-MEN-{patient:05d}-001")
    return root


@pytest.fixture
def root(shared_root: Path, tmp_path: Path) -> Path:
    """The same to spoil."""
    return Path(shutil.copytree(shared_root, tmp_path / "brats"))


def module(root: Path | str | None, tmp_path: Path, **changed: Any) -> BraTSDataModule:
    settings: dict[str, Any] = {
        "roi_size": (16, 16, 16),
        "val_split": 0.34,
        "splits_dir": str(tmp_path / "run" / "splits"),
        "cache_dir": str(tmp_path / "run" / "cache"),
    }
    return BraTSDataModule(root_dir=None if root is None else str(root), **(settings | changed))


def scan(root: Path | str | None, **changed: Any) -> list[Record]:
    return module(root, Path("/nowhere"), **changed).scan(root)


def ready(root: Path, tmp_path: Path, **changed: Any) -> BraTSDataModule:
    data = module(root, tmp_path, **changed)
    data.setup()
    return data


def told(action: Callable[[], Any]) -> str:
    """What the user is told."""
    with pytest.raises(UserError) as caught:
        action()
    return str(caught.value)


def ids(data: BraTSDataModule, split: str) -> list[str]:
    return [record["id"] for record in data.splits[split]]


# --- scanning


def test_every_subject_is_found_in_order_with_its_patient_and_files(shared_root: Path) -> None:
    records = scan(shared_root)
    assert [(record["id"][-9:], record["patient"][-5:]) for record in records] == [
        *(("00000-000", "00000"), ("00001-000", "00001"), ("00001-001", "00001")),
        *(("00002-000", "00002"), ("00003-000", "00003")),
        *(("00004-000", "00004"), ("00004-001", "00004"), ("00005-000", "00005")),
    ]
    for record in records:
        assert record.keys() == {"id", "patient", *FILES}
        folder = shared_root / record["id"]
        assert {record[key] for key in FILES} == {str(path) for path in folder.iterdir()}
        assert all(record[key].endswith(f"-{key}.nii.gz") for key in FILES)
    assert scan(shared_root) == records


def test_only_what_is_asked_for_is_needed(root: Path) -> None:
    for path in root.glob("*/*-t2w.nii.gz"):
        path.unlink()
    for path in root.glob("*/*-seg.nii.gz"):
        path.unlink()
    records = scan(root, modalities=["t1c", "t2f"], with_seg=False)
    assert len(records) == 8
    assert records[0].keys() == {"id", "patient", "t1c", "t2f"}


def test_another_pattern_makes_other_patients(shared_root: Path) -> None:
    records = scan(shared_root, patient_pattern=r"^BraTS-MEN-0000([01])?")
    assert [record["patient"] for record in records[:4]] == ["0", "1", "1", records[3]["id"]]


def test_files_beside_the_subjects_and_hidden_ones_are_not_data(root: Path) -> None:
    expected = scan(root)
    (root / "mapping.csv").touch()
    (root / ".ipynb_checkpoints").mkdir()
    twin = Path(expected[0]["t1c"])
    (twin.parent / f"._{twin.name}").touch()  # as an archive from a Mac unpacks
    assert scan(root) == expected


def spoil(root: Path) -> None:
    (root / "BraTS-MEN-00001-000" / "BraTS-MEN-00001-000-t2w.nii.gz").unlink()
    (root / "BraTS-MEN-00003-000" / "BraTS-MEN-00003-000-seg.nii.gz").unlink()
    (root / "BraTS-MEN-00003-000" / "BraTS-MEN-00003-000-t1c.nii.gz").unlink()
    (root / "empty").mkdir()


def test_one_error_lists_every_incomplete_subject_and_what_it_lacks(root: Path) -> None:
    spoil(root)
    message = told(lambda: scan(root))
    first, *lines = message.splitlines()
    assert first.startswith(f"dataset.root_dir={root}: 3 subjects are incomplete")
    assert "dataset.skip_incomplete=true" in first
    assert lines == [
        "  - BraTS-MEN-00001-000: no t2w",
        "  - BraTS-MEN-00003-000: no t1c, seg",
        "  - empty: no t1c, t1n, t2f, t2w, seg",
    ]


def test_skip_incomplete_leaves_them_out_and_says_so(
    root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    spoil(root)
    records = scan(root, skip_incomplete=True)
    found = {record["id"] for record in records}
    assert len(records) == 8 - 2
    assert not found & {"BraTS-MEN-00001-000", "BraTS-MEN-00003-000", "empty"}
    assert "3 incomplete subjects left out" in caplog.text
    assert "BraTS-MEN-00003-000: no t1c, seg" in caplog.text


def test_complete_data_leave_nothing_out(
    shared_root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    scan(shared_root, skip_incomplete=True)
    assert "left out" not in caplog.text


@pytest.mark.parametrize("skip_incomplete", [False, True])
def test_two_files_for_one_modality_are_never_guessed_between(
    root: Path, skip_incomplete: bool
) -> None:
    for number in (0, 2):
        name = f"BraTS-MEN-{number:05d}-000"
        shutil.copy(root / name / f"{name}-t1c.nii.gz", root / name / "copy-t1c.nii.gz")
    message = told(lambda: scan(root, skip_incomplete=skip_incomplete))
    assert "2 subjects are ambiguous" in message
    for number in (0, 2):
        name = f"BraTS-MEN-{number:05d}-000"
        assert f"{name}: more than one file for t1c ({name}-t1c.nii.gz, copy-t1c.nii.gz)" in message


def test_missing_segmentations_alone_point_to_with_seg(root: Path) -> None:
    for path in root.glob("*/*-seg.nii.gz"):
        path.unlink()
    message = told(lambda: scan(root))
    assert "8 subjects are incomplete" in message
    assert "dataset.with_seg=false" in message
    assert len(scan(root, with_seg=False)) == 8


def test_a_root_that_holds_nothing_is_told_what_should_be_there(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").touch()
    needed = "one folder per subject"
    assert "no subject found; expected folders with files named *-t1c.nii.gz" in told(
        lambda: scan(tmp_path / "empty")
    )
    for name, problem in (("absent", "does not exist"), ("file", "is a file, not a folder")):
        message = told(lambda path=tmp_path / name: scan(path))
        assert message.startswith(f"dataset.root_dir={tmp_path / name}: {problem}")
        assert needed in message
    message = told(lambda: scan(None))
    assert message.startswith("dataset.root_dir is not set")
    assert needed in message


def test_subjects_that_are_all_incomplete_leave_nothing_to_learn_from(root: Path) -> None:
    for path in root.glob("*/*-t1c.nii.gz"):
        path.unlink()
    message = told(lambda: scan(root, skip_incomplete=True))
    assert "subjects are incomplete" in message


# --- batches and splits


def test_batches_keep_the_contract(shared_root: Path, tmp_path: Path) -> None:
    data = ready(shared_root, tmp_path)
    # 34 % of 6 patients are 2; six or five subjects learn, in batches of 2
    for loader, split in (
        (data.train_dataloader(), "train"),
        (data.val_dataloader(), "val"),
        (data.test_dataloader(), "val"),  # there is no test part: judged on validation
    ):
        seen: list[str] = []
        for batch in loader:
            size = len(batch["id"])
            assert batch.keys() == {"image", "seg", "id"}
            assert batch["image"].shape == (size, 4, 16, 16, 16)
            assert batch["seg"].shape == (size, 1, 16, 16, 16)
            assert batch["image"].dtype == torch.float32
            assert batch["seg"].dtype == torch.uint8
            assert type(batch["image"]) is type(batch["seg"]) is torch.Tensor
            assert type(batch["id"]) is list
            seen += batch["id"]
        assert sorted(seen) == ids(data, split)
        assert split == "train" or seen == ids(data, split)


def test_no_patient_is_in_two_splits_and_none_is_lost(shared_root: Path, tmp_path: Path) -> None:
    for seed in range(5):
        data = ready(shared_root, tmp_path / str(seed), seed=seed)
        train, val = ({r["patient"] for r in data.splits[name]} for name in ("train", "val"))
        assert not train & val
        assert len(train | val) == 6
        assert len(val) == 2


def test_the_order_of_training_depends_on_seed_and_epoch_alone(
    shared_root: Path, tmp_path: Path
) -> None:
    def order(seed: int, epoch: int) -> list[str]:
        data = ready(shared_root, tmp_path, seed=seed)  # the split stays: it is saved
        loader = data.train_dataloader()
        loader.batch_sampler.sampler.set_epoch(epoch)  # as Lightning does
        return [name for batch in loader for name in batch["id"]]

    orders = {(seed, epoch): order(seed, epoch) for seed in (1, 2) for epoch in (0, 1, 2)}
    assert len({tuple(names) for names in orders.values()}) == len(orders)
    assert order(1, 2) == orders[1, 2]


def test_the_split_is_saved_and_kept_when_subjects_are_added(root: Path, tmp_path: Path) -> None:
    first = ready(root, tmp_path)
    saved = {path.name: path.read_text() for path in (tmp_path / "run" / "splits").iterdir()}
    assert saved.keys() == {"train.csv", "val.csv"}
    assert all(name in saved["train.csv"] for name in ids(first, "train"))
    for number in range(6, 16):
        add_subject(root, f"BraTS-MEN-{number:05d}-000")
    second = ready(root, tmp_path, seed=7, val_split=0.5)
    assert second.splits == first.splits
    for name, text in saved.items():
        assert (tmp_path / "run" / "splits" / name).read_text() == text


def test_a_split_follows_its_data_to_another_disk(root: Path, tmp_path: Path) -> None:
    first = ready(root, tmp_path)
    moved = root.rename(tmp_path / "moved")
    second = ready(moved, tmp_path)
    assert ids(second, "val") == ids(first, "val")
    assert all(Path(record["t1c"]).is_relative_to(moved) for record in second.splits["val"])


def test_a_saved_subject_that_is_gone_is_named(root: Path, tmp_path: Path) -> None:
    gone = ids(ready(root, tmp_path), "train")[0]
    shutil.rmtree(root / gone)
    message = told(lambda: ready(root, tmp_path))
    assert f"- {gone}" in message
    assert "train.csv" in message


def test_half_of_a_split_is_what_an_interrupted_run_left_and_is_drawn_anew(
    shared_root: Path, tmp_path: Path
) -> None:
    first = ready(shared_root, tmp_path)
    (tmp_path / "run" / "splits" / "train.csv").unlink()
    assert ready(shared_root, tmp_path).splits == first.splits
    assert (tmp_path / "run" / "splits" / "train.csv").is_file()


def test_phantoms_are_written_under_the_root_and_read_from_there(
    shared_root: Path, tmp_path: Path
) -> None:
    class Copies:
        def prepare(self, root_dir: str, progress_bar: bool) -> Path:
            return Path(shutil.copytree(shared_root, Path(root_dir) / "phantoms"))

    data = ready(tmp_path / "data", tmp_path, phantoms=Copies())
    assert len(ids(data, "train") + ids(data, "val")) == 8
    assert (tmp_path / "data" / "phantoms").is_dir()
    message = told(lambda: ready(None, tmp_path, phantoms=Copies()))  # type: ignore[arg-type]
    assert message.startswith("dataset.root_dir is not set")


def test_without_segmentations_batches_have_none(root: Path, tmp_path: Path) -> None:
    for path in root.glob("*/*-seg.nii.gz"):
        path.unlink()
    data = ready(root, tmp_path, with_seg=False)
    assert next(iter(data.train_dataloader())).keys() == {"image", "id"}


def test_the_order_of_modalities_is_the_order_of_channels(
    shared_root: Path, tmp_path: Path
) -> None:
    plain = ready(shared_root, tmp_path)
    swapped = ready(shared_root, tmp_path, modalities=["t2w", "t1c"])
    assert list(swapped.channel_names) == ["t2w", "t1c"]
    one, two = (data.dataset("val")[0]["image"] for data in (plain, swapped))
    assert torch.equal(two[0], one[3])
    assert torch.equal(two[1], one[0])


@pytest.mark.slow  # a process imports torch and MONAI
def test_worker_processes_that_share_nothing_deliver_the_same(
    shared_root: Path, tmp_path: Path
) -> None:
    """Spawned workers, as on macOS and Windows, get the dataset by pickle."""
    data = ready(shared_root, tmp_path, cache_rate=0.5)
    dataset = data.dataset("train")
    loader = DataLoader(dataset, num_workers=1, multiprocessing_context="spawn")
    expected = [dataset[index] for index in range(len(dataset))]  # type: ignore[arg-type]
    for batch, sample in zip(loader, expected, strict=True):
        assert torch.equal(batch["image"][0], sample["image"])
        assert batch["id"] == [sample["id"]]


# --- settings that cannot work


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("batch_size", 0),
        ("num_workers", -1),
        ("cache_rate", 2),
        ("cache_rate", -0.1),
        ("val_split", 0),
        ("val_split", 1),
        ("patient_pattern", "no group"),
        ("roi_size", [8, 8]),
        ("roi_size", [8, 8, 0]),
        ("spacing", [1, 1, 0]),
        ("spacing", [1, 1]),
        ("orientation", "RAX"),
        ("orientation", "RAR"),
        ("orientation", "RA"),
        ("orientation", "ras"),
        ("modalities", []),
        ("modalities", ["t1c", "t1c"]),
        ("align_to", "flair"),
        ("align_to", "seg"),
    ],
)
def test_a_value_that_cannot_work_is_named_before_any_data_is_read(
    tmp_path: Path, key: str, value: object
) -> None:
    message = told(lambda: module(tmp_path / "absent", tmp_path, **{key: value}))
    shown = repr(value) if key == "patient_pattern" else str(value)
    assert message.startswith(f"dataset.{key}={shown}: ")


# --- files that cannot work


def test_one_error_at_setup_lists_every_file_that_is_no_volume(root: Path, tmp_path: Path) -> None:
    def path(number: int, key: str) -> Path:
        name = f"BraTS-MEN-{number:05d}-000"
        return root / name / f"{name}-{key}.nii.gz"

    write(path(0, "t1c"), np.zeros((*SHAPE, 2), np.float32))
    path(1, "seg").write_text("not found")
    path(2, "t2w").write_bytes(b"")
    path(3, "t2f").write_bytes(path(3, "t2f").read_bytes()[:100])  # a broken download
    damaged = bytearray(path(4, "t1n").read_bytes())
    damaged[10:60] = b"\xff" * 50  # the stream, behind a sound gzip header
    path(4, "t1n").write_bytes(damaged)
    header = bytearray(gzip.decompress(path(5, "t1n").read_bytes()))
    header[70:72] = b"\x0b\x00"  # NIfTI-1 field datatype: there is no kind 11
    path(5, "t1n").write_bytes(gzip.compress(header))
    message = told(lambda: ready(root, tmp_path))
    assert message.startswith("6 subjects cannot be read:")
    assert "a volume with 3 axes is needed (its shape is (16, 14, 12, 2))" in message
    spoilt = [(0, "t1c"), (1, "seg"), (2, "t2w"), (3, "t2f"), (4, "t1n"), (5, "t1n")]
    lines = message.splitlines()[1:]
    assert [line.split(": ")[0] for line in lines] == [f"  - {path(*who)}" for who in spoilt]
    assert not (tmp_path / "run").exists()


def test_every_subject_on_two_grids_is_found_at_setup(root: Path, tmp_path: Path) -> None:
    for name in ("BraTS-MEN-00000-000", "BraTS-MEN-00005-000"):
        write(root / name / f"{name}-t2w.nii.gz", np.arange(512.0).reshape(8, 8, 8))
    name = "BraTS-MEN-00002-000"
    ramp = np.arange(np.prod(SHAPE), dtype=np.float32).reshape(SHAPE)
    write(root / name / f"{name}-t1n.nii.gz", ramp, origin=3.0)
    message = told(lambda: ready(root, tmp_path))
    assert message.startswith("3 subjects cannot be read:")
    assert "subject BraTS-MEN-00000-000: t2w has shape (8, 8, 8)" in message
    assert "subject BraTS-MEN-00005-000: t2w has shape (8, 8, 8)" in message
    assert "subject BraTS-MEN-00002-000: t1n has shape (16, 14, 12) and reaches" in message
    assert message.count("dataset.align_to=t1c") == 3
    data = ready(root, tmp_path, align_to="t1c")
    assert all(batch["image"].isfinite().all() for batch in data.train_dataloader())


def test_headers_that_differ_yet_end_on_one_grid_pass(root: Path, tmp_path: Path) -> None:
    name = "BraTS-MEN-00000-000"
    path = root / name / f"{name}-t2w.nii.gz"
    image = nibabel.load(path)
    lps = nibabel.orientations.axcodes2ornt("LPS")
    nibabel.save(image.as_reoriented(lps[:, :]), path)
    assert nibabel.aff2axcodes(nibabel.load(path).affine) == ("L", "P", "S")
    ready(root, tmp_path)


# --- a real patient, as it left the scanner


real = pytest.mark.skipif(not RAW.is_dir(), reason=f"the real patient is not at {RAW}")


@real
def test_a_raw_patient_lacks_a_segmentation_and_is_told_of_with_seg(tmp_path: Path) -> None:
    message = told(lambda: ready(RAW, tmp_path))
    assert "TCGA-FG-6692-000: no seg" in message
    assert "dataset.with_seg=false" in message


@real
def test_a_raw_patients_grids_differ_and_both_shapes_are_told(tmp_path: Path) -> None:
    message = told(lambda: ready(RAW, tmp_path, with_seg=False, spacing=[4, 4, 6]))
    assert "subject TCGA-FG-6692-000: t2f has shape (" in message
    assert "t1c has shape (" in message
    assert "dataset.align_to=t1c" in message


@real
def test_an_aligned_raw_patient_comes_out_finished() -> None:
    aligned = VolumeSettings(
        MODALITIES,
        (32, 32, 32),
        (8.0, 8.0, 8.0),  # 256 mm, a whole head
        align_to="t1c",
        with_seg=False,
    )
    records = scan(RAW, with_seg=False, align_to="t1c")
    sample = val_pipeline(preprocessing(aligned), with_seg=False)(records[0])
    assert sample["image"].shape == (4, 32, 32, 32)
    assert sample["image"].isfinite().all()
    first, *others = sample["image"]
    for other in others:  # one head in four contrasts: any move of 24 mm fits less well
        moved = [other.roll(shift, axis) for shift in (-3, 3) for axis in range(3)]
        fits = torch.stack([image.flatten() for image in (first, other, *moved)]).corrcoef()[0]
        assert fits[1] > fits[2:].max()
