"""Every bad input gives one clear message by the command line, before any training time is spent.

Training lists all offenders at once, so that one run tells of a whole table of them.
"""

from __future__ import annotations

import csv
import gzip
import logging
import os
import struct
import sys
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from hydra.core.global_hydra import GlobalHydra
from PIL import Image

from vaelab import run

from ..conftest import CLI, TINY_MRI, TINY_XRAY

SHAPE = (16, 16, 16)
SIZE = 12.0  # mm, so that 16 voxels are a head
Spoil = Callable[[Path], Any]


def told(folder: Path, *arguments: str) -> tuple[int, str]:
    """``python -m vaelab.run`` in this process: the exit status and the log of the run."""
    root = logging.getLogger()
    handlers, captured = list(root.handlers), logging._warnings_showwarning
    status = 0
    with pytest.MonkeyPatch.context() as patch:
        GlobalHydra.instance().clear()
        patch.setattr(sys, "argv", ["vaelab", *arguments, f"run_dir={folder}"])
        patch.chdir(folder.parent)
        try:
            run.main()
        except SystemExit as stop:
            status = 1 if isinstance(stop.code, str) else int(stop.code or 0)
    for handler in [handler for handler in root.handlers if handler not in handlers]:
        root.removeHandler(handler)
        handler.close()
    root.handlers[:] = handlers
    logging.captureWarnings(captured is not None)
    return status, (folder / "train.log").read_text(encoding="utf-8")


def line_of(message: str, name: str) -> str:
    """The one line of a message about a file or folder of this name."""
    (line,) = [line for line in message.splitlines() if f"/{name}" in line or f"- {name}" in line]
    return line


# --- volumes


def volume(path: Path, array: np.ndarray | None = None, affine: Any = None) -> Path:
    """A sound series, or what is given in its place."""
    if array is None:
        rng = np.random.default_rng([*path.name.encode()])
        array = rng.normal(100, 20, SHAPE).astype(np.float32)
    affine = np.diag([SIZE, SIZE, SIZE, 1.0]) if affine is None else affine
    nibabel.save(nibabel.Nifti1Image(array, affine), path)
    return path


def labels() -> np.ndarray:
    seg = np.zeros(SHAPE, np.uint8)
    seg[4:8, 4:8, 4:8], seg[5:7, 5:7, 5:7] = 2, 1
    return seg


def subject(root: Path, name: str) -> Path:
    folder = root / name
    folder.mkdir(parents=True)
    for key in ("t1c", "t2w"):
        volume(folder / f"{name}-{key}.nii.gz")
    volume(folder / f"{name}-seg.nii.gz", labels())
    return folder


def series(folder: Path, key: str = "t2w") -> Path:
    return folder / f"{folder.name}-{key}.nii.gz"


def header(path: Path, offset: int, content: bytes) -> None:
    """Overwrite bytes of the NIfTI-1 header."""
    whole = bytearray(gzip.decompress(path.read_bytes()))
    whole[offset : offset + len(content)] = content
    path.write_bytes(gzip.compress(bytes(whole)))


def replace_by_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def replace_by_link(path: Path, target: str) -> None:
    path.unlink()
    path.symlink_to(target)


def spaced(path: Path, size: float) -> None:
    for key in ("t1c", "t2w", "seg"):
        file = series(path, key)
        volume(file, np.asarray(nibabel.load(file).dataobj), np.diag([size, size, size, 1.0]))


RGB = np.zeros(SHAPE, np.dtype([("R", "u1"), ("G", "u1"), ("B", "u1")]))
NO_FORMS = struct.pack("<hh", 0, 0)  # qform_code and sform_code, at byte 252
TILTED = np.array([[SIZE, 0, 0, 0], [0, SIZE, 0, 0], [0, 0, 0, 0], [0, 0, 0, 1.0]])

# What a header tells, for nothing: name → how a subject is spoilt, and what is said of it.
BAD_HEADERS: dict[str, tuple[Spoil, str]] = {
    "empty": (lambda f: series(f).write_bytes(b""), "an empty file"),
    "text": (lambda f: series(f).write_text("404 not found"), "not a readable NIfTI file"),
    "page": (lambda f: series(f).write_text("<!DOCTYPE html>\n"), "it is a web page"),
    "pointer": (
        lambda f: series(f).write_text("version https://git-lfs.github.com/spec/v1\n"),
        "git lfs pull",
    ),
    "unpacked": (
        lambda f: series(f).write_bytes(gzip.decompress(series(f).read_bytes())),
        "it is not compressed: call it .nii",
    ),
    "noise": (lambda f: series(f).write_bytes(gzip.compress(os.urandom(9000))), "not a readable"),
    "stub": (lambda f: series(f).write_bytes(series(f).read_bytes()[:60]), "not a readable"),
    "folder": (lambda f: replace_by_folder(series(f)), "a folder, where a file is needed"),
    "lost": (lambda f: replace_by_link(series(f), "annex"), "a link that leads nowhere"),
    "loop": (lambda f: replace_by_link(series(f), series(f).name), "a link that leads nowhere"),
    "complex": (lambda f: volume(series(f), np.ones(SHAPE, np.complex64)), "not real numbers"),
    "colour": (lambda f: volume(series(f), RGB), "not real numbers (data type RGB)"),
    "film": (lambda f: volume(series(f), np.ones((*SHAPE, 2), "f4")), "3 axes is needed"),
    "slice": (lambda f: volume(series(f), np.ones((16, 16), "f4")), "3 axes is needed"),
    "singular": (lambda f: header(series(f), 312, bytes(12)), "its affine is singular"),
    "nan-affine": (lambda f: header(series(f), 280, struct.pack("<f", np.nan)), "not finite"),
    "zero-spacing": (
        lambda f: [header(series(f), 252, NO_FORMS), header(series(f), 80, bytes(4))],
        "a voxel size of zero or NaN",
    ),
    "metres": (lambda f: spaced(f, 0.012), "are the units wrong?"),
    "huge-spacing": (lambda f: spaced(f, 1000.0), "are the units wrong?"),
    "truncated": (lambda f: cut(series(f), 0.7), "its voxels are not readable"),
    "truncated-seg": (lambda f: cut(series(f, "seg"), 0.99), "its voxels are not readable"),
    "header-only": (lambda f: header_only(series(f)), "its voxels are not readable"),
    "claims-too-much": (
        lambda f: header(series(f), 42, struct.pack("<3h", 32000, 32000, 32000)),
        "an impossible number of voxels",
    ),
}


def with_voxels(key: str, change: Callable[[np.ndarray], Any]) -> Spoil:
    def spoil(folder: Path) -> None:
        path = series(folder, key)
        array = np.asarray(nibabel.load(path).dataobj).astype(np.float32)
        change(array)
        volume(path, array)

    return spoil


def cut(path: Path, share: float) -> None:
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])


def damage(path: Path) -> None:
    """Other bytes in the middle of the stream: its checksum no longer fits."""
    whole = bytearray(path.read_bytes())
    middle = len(whole) // 2
    whole[middle : middle + 50] = bytes(50)
    path.write_bytes(whole)


def header_only(path: Path) -> None:
    path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes())[:352]))


NEEDED = "a segmentation needs whole numbers from 0 to 255; is a series in its place?"

# What shows when voxels are decoded, which the cache does before the first epoch.
BAD_VOXELS: dict[str, tuple[Spoil, str]] = {
    "damaged": (lambda f: damage(series(f)), "its voxels are not readable"),
    "nan": (with_voxels("t2w", lambda a: a.put(7, np.nan)), "NaN or infinite (1 of 4096)"),
    "infinite": (with_voxels("t1c", lambda a: a.put([7, 8], np.inf)), "infinite (2 of 4096)"),
    "constant": (with_voxels("t1c", lambda a: a.fill(3)), "constant volume shows nothing"),
    "too-bright": (
        lambda f: volume(series(f), np.random.default_rng(0).normal(0, 1e300, SHAPE)),
        "infinite",
    ),
    "half-labels": (with_voxels("seg", lambda a: a.put(7, 1.5)), NEEDED),
    "negative-labels": (with_voxels("seg", lambda a: a.put(7, -1)), NEEDED),
    "large-labels": (with_voxels("seg", lambda a: a.put(7, 300)), NEEDED),
    "swapped": (
        lambda f: [
            series(f).rename(f / "x"),
            series(f, "seg").rename(series(f)),
            (f / "x").rename(series(f, "seg")),
        ],
        NEEDED,
    ),
}

# What a person should look at, and training takes.
ODD_VOLUMES: dict[str, tuple[Spoil, str]] = {
    "empty-seg": (with_voxels("seg", lambda a: a.fill(0)), "an empty segmentation"),
    "no-background": (with_voxels("seg", lambda a: a.fill(1)), "without background"),
    "old-labels": (with_voxels("seg", lambda a: a.put(7, 4)), "labels beside the known 0, 1, 2, 3"),
    "seg-as-series": (lambda f: volume(series(f), labels()), "looks like a segmentation"),
    "twins": (
        lambda f: volume(series(f), np.asarray(nibabel.load(series(f, "t1c")).dataobj)),
        "files with the same voxels",
    ),
    "no-forms": (
        lambda f: [header(series(f, key), 252, NO_FORMS) for key in ("t1c", "t2w", "seg")],
        "neither sform nor qform",
    ),
    "two-forms": (
        lambda f: [
            header(series(f), 252, struct.pack("<hh", 1, 2)),
            header(series(f), 268, struct.pack("<f", 99)),  # qoffset_x
        ],
        "sform and qform disagree",
    ),
    "coarse": (lambda f: spaced(f, 24.0), "voxels of more than 20 mm"),
    "small": (lambda f: spaced(f, 2.0), "an unusual field of view"),
}


def nothing(_: Path) -> None:
    """A subject that is as it should be."""


FINE_VOLUMES: dict[str, Spoil] = {
    "sound": nothing,
    "float-seg": with_voxels("seg", lambda a: None),
    "nearly-whole-seg": with_voxels("seg", lambda a: a.put([7, 8], [1.00003, 1.9999998])),
    "fourth-axis": lambda f: volume(
        series(f), np.random.default_rng(0).normal(size=(*SHAPE, 1)).astype(np.float32)
    ),
    "hidden": lambda f: (f / f"._{series(f).name}").write_bytes(b"\0\5\x16\7"),
    "Köpfe und Räume 頭": nothing,
    "two\nlines": nothing,
    "comma,\"quote'<b>": nothing,
}

# A swapped pair shows in the segmentation, which prediction does not read.
NOT_SEG = {
    *(name for name in BAD_HEADERS | BAD_VOXELS if "seg" not in name and "label" not in name),
} - {"swapped"}

VOLUMES = (
    *TINY_MRI[4:],
    "dataset=brats_men",
    "dataset.modalities=[t1c,t2w]",
    "model.input_channels=2",
    "dataset.num_workers=0",
    "train.max_epochs=1",
    "~task.then",
)


def trained_on(folder: Path, cases: dict[str, Any]) -> tuple[int, str, Path]:
    """Train on a tree with a subject for each case; its status, log and run folder."""
    root = folder / "data"
    for name, case in cases.items():
        (case[0] if isinstance(case, tuple) else case)(subject(root, name))
    status, log = told(folder / "run", *VOLUMES, f"dataset.root_dir={root}")
    return status, log, folder / "run"


def predicted(run_dir: Path, inputs: Path) -> dict[str, dict[str, str]]:
    """File → row, of new inputs of which some are bad."""
    status, log = told(run_dir, "task=predict", f"task.inputs={inputs}")
    assert status == 1
    assert "Traceback" not in log
    with (run_dir / "predictions" / "predictions.csv").open(newline="", encoding="utf-8") as file:
        return {row["file"]: row for row in csv.DictReader(file)}


def assert_refused(status: int, log: str, run_dir: Path, offenders: int) -> None:
    assert status == 1
    assert "Traceback" not in log
    assert len([line for line in log.splitlines() if line.startswith("  - ")]) == offenders
    assert not (run_dir / "checkpoints").exists()
    assert not (run_dir / "logs" / "metrics.csv").exists()


@pytest.fixture(scope="module")
def refused_headers(tmp_path_factory: pytest.TempPathFactory) -> str:
    cases = BAD_HEADERS | {"sound": (nothing, "")}
    status, log, run_dir = trained_on(tmp_path_factory.mktemp("headers"), cases)
    assert_refused(status, log, run_dir, len(BAD_HEADERS) + 2 * 2)  # two have three such files
    assert not (run_dir / "splits").exists()
    return log


@pytest.fixture(scope="module")
def refused_voxels(tmp_path_factory: pytest.TempPathFactory) -> str:
    cases = BAD_VOXELS | {"sound": (nothing, "")}
    status, log, run_dir = trained_on(tmp_path_factory.mktemp("voxels"), cases)
    assert_refused(status, log, run_dir, len(BAD_VOXELS))
    assert len(list((run_dir / "cache").rglob("*.safetensors"))) == 1  # the sound one's
    return log


@pytest.mark.parametrize("name", BAD_HEADERS)
def test_a_bad_header_is_told_before_training(refused_headers: str, name: str) -> None:
    lines = [line for line in refused_headers.splitlines() if f"/{name}/" in line]
    assert lines
    assert all(BAD_HEADERS[name][1] in line for line in lines)


@pytest.mark.parametrize("name", BAD_VOXELS)
def test_bad_voxels_are_told_before_training(refused_voxels: str, name: str) -> None:
    line = line_of(refused_voxels, f"{name}/")
    assert BAD_VOXELS[name][1] in line
    assert line.count(".nii.gz: ") == 1  # of three files one is bad


def test_odd_volumes_and_odd_names_are_trained_on(tmp_path: Path) -> None:
    status, log, run_dir = trained_on(tmp_path, ODD_VOLUMES | FINE_VOLUMES)
    assert status == 0, log
    assert "odd headers; task=check_data lists all of them" in log
    assert (run_dir / "checkpoints" / "vae_best.pth").is_file()
    # The same run judges new subjects: each bad one has its reason, and does not stop the others.
    cases = {name: case for name, case in (BAD_HEADERS | BAD_VOXELS).items() if name in NOT_SEG}
    for name, (spoil, _) in cases.items():
        spoil(subject(tmp_path / "new", name))
    subject(tmp_path / "new", "sound")
    rows = predicted(run_dir, tmp_path / "new")
    assert rows.keys() == cases.keys() | {"sound"}
    assert float(rows["sound"]["score"]) > 0
    for name, (_, message) in cases.items():
        assert message in rows[name]["error"]
        assert rows[name]["score"] == ""


@pytest.mark.parametrize("share", [0.0, 0.5])
def test_what_no_cache_decodes_is_looked_at_before_training_too(
    tmp_path: Path, share: float
) -> None:
    root = tmp_path / "data"
    for name in ("damaged", "nan", "constant"):
        BAD_VOXELS[name][0](subject(root, name))
    more = (f"dataset.cache_rate={share}", f"dataset.root_dir={root}")
    status, log = told(tmp_path / "run", *VOLUMES, *more)
    assert status == 1
    assert "Traceback" not in log
    assert "cannot be read:" in log
    assert not (tmp_path / "run" / "checkpoints").exists()


# --- X-rays


PIXELS = np.random.default_rng(0).integers(0, 256, (60, 80), np.uint8)


def png(width: int, height: int) -> bytes:
    """A PNG that says it is this large and is not."""

    def chunk(name: bytes, content: bytes) -> bytes:
        check = struct.pack(">I", zlib.crc32(name + content))
        return struct.pack(">I", len(content)) + name + content + check

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(bytes(99)))


def saved(path: Path, mode: str = "L", kind: str = "JPEG", **options: Any) -> None:
    Image.fromarray(PIXELS).convert(mode).save(path, kind, **options)


def cut_jpeg(path: Path) -> None:
    saved(path)
    cut(path, 0.6)


def deep_jpeg(path: Path) -> None:
    """Its frame header (marker C0) says 12 bits."""
    saved(path)
    whole = bytearray(path.read_bytes())
    whole[whole.index(b"\xff\xc0") + 4] = 12
    path.write_bytes(whole)


def folder_named(path: Path) -> None:
    path.mkdir()


BAD_IMAGES: dict[str, tuple[Spoil, str]] = {
    "truncated.jpeg": (cut_jpeg, "not a readable image"),
    "empty.jpeg": (lambda p: p.write_bytes(b""), "an empty file"),
    "text.jpeg": (lambda p: p.write_text("404"), "neither JPEG nor PNG"),
    "tiff.png": (lambda p: saved(p, kind="TIFF"), "neither JPEG nor PNG"),
    "deep.jpeg": (deep_jpeg, "a JPEG of 12 bits, where 8 can be decoded"),
    "folder.jpeg": (folder_named, "a folder, where a file is needed"),
    "one-pixel.png": (lambda p: Image.new("L", (1, 1)).save(p), "a constant image"),
    "black.jpeg": (lambda p: Image.new("L", (90, 90)).save(p), "a constant image"),
    "bomb.png": (lambda p: p.write_bytes(png(20_000, 20_000)), "more pixels than"),
    "large.png": (lambda p: p.write_bytes(png(10_000, 8_100)), "the limit is 80,000,000"),
    "warned.png": (lambda p: p.write_bytes(png(10_000, 10_000)), "more pixels than"),
}

ODD_IMAGES: dict[str, tuple[Spoil, str]] = {
    "transparent.png": (lambda p: Image.new("LA", (60, 60)).save(p) or half_clear(p), "transpar"),
    "print.jpeg": (lambda p: saved(p, "CMYK"), "CMYK"),
    "bits.png": (lambda p: saved(p, "1", "PNG"), "1 bit"),
    "tiny.png": (lambda p: Image.fromarray(PIXELS[:9, :9]).save(p), "less than 32 pixels"),
    "strip.png": (lambda p: Image.fromarray(PIXELS[:2]).save(p), "4 times the other"),
    "photo.jpeg": (
        lambda p: Image.fromarray(np.dstack([PIXELS, 255 - PIXELS, PIXELS])).save(p),
        "a colour picture",
    ),
}


def half_clear(path: Path) -> None:
    alpha = np.full(PIXELS.shape, 255, np.uint8)
    alpha[:30] = 0
    Image.fromarray(np.dstack([PIXELS, alpha])).save(path)


FINE_IMAGES: dict[str, Spoil] = {
    "sound.jpeg": saved,
    "really-a.jpeg": lambda p: saved(p, kind="PNG"),
    "palette.png": lambda p: saved(p, "P", "PNG"),
    "deep.png": lambda p: Image.fromarray(PIXELS.astype(np.uint16) * 256).save(p),
    "opaque.png": lambda p: saved(p, "RGBA", "PNG"),
    "Lungs with späces 肺.jpeg": saved,
    "two\nlines.jpeg": saved,
    "comma,\"quote'<b>.jpeg": saved,
}

XRAYS = (
    "experiment=med_anomaly",
    *(argument for argument in TINY_XRAY[1:] if "phantom" not in argument),
    "train.max_epochs=1",
)


def chest_tree(root: Path, cases: dict[str, Any], *, also_test: bool = True) -> Path:
    """The Kaggle layout with a healthy image of a patient of its own for each case."""
    for letter, place in zip("abc", ("train/NORMAL", "test/NORMAL", "test/PNEUMONIA"), strict=True):
        (root / place).mkdir(parents=True)
        for number in range(3):
            noise = np.random.default_rng([*place.encode(), number]).integers(0, 256, (50, 40))
            Image.fromarray(noise.astype(np.uint8)).save(root / place / f"{letter}{number}.png")
    for name, case in cases.items():
        (case[0] if isinstance(case, tuple) else case)(root / "train" / "NORMAL" / name)
    if also_test:
        (root / "test" / "PNEUMONIA" / "late.jpeg").write_text("404")
    return root


@pytest.fixture(scope="module")
def refused_images(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("images")
    root = chest_tree(folder / "data", BAD_IMAGES, also_test=False)
    run_dir = folder / "run"
    status, log = told(run_dir, *XRAYS, f"dataset.root_dir={root}", "~task.then")
    assert_refused(status, log, run_dir, len(BAD_IMAGES))
    return log


@pytest.mark.parametrize("name", BAD_IMAGES)
def test_a_bad_image_is_told_before_training(refused_images: str, name: str) -> None:
    assert BAD_IMAGES[name][1] in line_of(refused_images, name)


def test_a_bad_test_image_is_told_before_training_too(tmp_path: Path) -> None:
    root = chest_tree(tmp_path / "data", {})
    status, log = told(tmp_path / "run", *XRAYS, f"dataset.root_dir={root}")
    assert_refused(status, log, tmp_path / "run", 1)
    assert "neither JPEG nor PNG" in line_of(log, "late.jpeg")


def test_odd_images_and_odd_names_go_all_the_way_to_the_report(tmp_path: Path) -> None:
    root = chest_tree(tmp_path / "data", ODD_IMAGES | FINE_IMAGES, also_test=False)
    for name in FINE_IMAGES:
        Image.fromarray(PIXELS[::-1]).save(root / "test" / "PNEUMONIA" / f"sick {name}", "PNG")
    (root / "train" / "NORMAL" / "again").symlink_to(root / "train")  # a loop
    (root / "train" / "NORMAL" / "._sound.jpeg").write_bytes(b"\0\5\x16\7")  # from a Mac
    status, log = told(tmp_path / "run", *XRAYS, f"dataset.root_dir={root}")
    assert status == 0, log
    page = (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    assert "comma,&#34;quote&#39;&lt;b&gt;.jpeg" in page
    assert "quote'<b>" not in page
    assert "肺" in page
    scores = (tmp_path / "run" / "scores.csv").read_text(encoding="utf-8")
    assert "sick two\nlines.jpeg" in scores
    (tmp_path / "new").mkdir()
    cases = {name: case for name, case in BAD_IMAGES.items() if name != "folder.jpeg"}
    for name, (spoil, _) in cases.items():
        spoil(tmp_path / "new" / name)
    saved(tmp_path / "new" / "sound.jpeg")
    rows = predicted(tmp_path / "run", tmp_path / "new")
    assert float(rows["sound.jpeg"]["score"]) > 0
    for name, (_, message) in cases.items():
        assert message in rows[name]["error"]
        assert rows[name]["score"] == ""


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda root: root.write_text("x"), "is a file, not a folder"),
        (lambda root: root.mkdir(), "Found there: nothing"),
        (lambda root: (root / "images").mkdir(parents=True), "Found there: images"),
        (
            lambda root: (root / "chest_xray" / "train" / "NORMAL").mkdir(parents=True),
            "did you mean dataset.root_dir=",
        ),
    ],
)
def test_a_tree_of_another_shape_is_told_what_was_found(
    tmp_path: Path, make: Spoil, message: str
) -> None:
    make(tmp_path / "data")
    status, log = told(tmp_path / "run", *XRAYS, f"dataset.root_dir={tmp_path / 'data'}")
    assert status == 1
    assert message in log
    assert "Traceback" not in log


# --- config

BAD_VALUES = [
    ("dataset.val_split=0", "dataset.val_split=0: "),
    ("dataset.val_split=1", "dataset.val_split=1: "),
    ("dataset.val_split=-1", "dataset.val_split=-1: "),
    ("dataset.val_split=nan", "dataset.val_split=nan: "),
    ("dataset.val_split=some", "dataset.val_split=some: "),
    ("dataset.roi_size=[20,16,16]", "try "),
    ("dataset.roi_size=[16,16]", "three sides in voxels"),
    ("dataset.roi_size=16", "dataset.roi_size=16: "),
    ("dataset.spacing=[1,1,0]", "three sizes in mm above 0"),
    ("dataset.spacing=[1,1,-1]", "three sizes in mm above 0"),
    ("dataset.spacing=[1,1,inf]", "three sizes in mm above 0"),
    ("dataset.orientation=UP", "dataset.orientation=UP: three axis codes"),
    ("dataset.batch_size=0", "dataset.batch_size=0: at least 1"),
    ("dataset.batch_size=two", "dataset.batch_size=two: "),
    ("dataset.batch_size=1.5", "dataset.batch_size=1.5: "),
    ("dataset.num_workers=-1", "dataset.num_workers=-1: "),
    ("dataset.cache_rate=2", "dataset.cache_rate=2: "),
    ("dataset.modalities=[]", "dataset.modalities=[]: "),
    ("dataset.modalities=t1c", "dataset.modalities=t1c: "),
    ("dataset.modalities=[t1c,flair]", "sound: no flair"),
    ("dataset.align_to=flair", "dataset.align_to=flair: must be one of"),
    ("dataset.patient_pattern='('", "dataset.patient_pattern='(': not a regular expression"),
    ("dataset.root_dir=absent", "absent: does not exist"),
    ("dataset.with_seg=perhaps", "dataset.with_seg=perhaps: "),
    ("dataset.val_spit=0.2", "val_spit"),
    ("+dataset.val_spit=0.2", "val_spit"),
    ("dataset=mri", "mri"),
]


@pytest.fixture(scope="module")
def sound_volumes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("sound")
    for name in ("sound", "too"):
        subject(root, name)
    return root


@pytest.mark.parametrize(("argument", "message"), BAD_VALUES)
def test_a_bad_value_is_told_with_its_key(
    cli: CLI,
    sound_volumes: Path,
    argument: str,
    message: str,
    capfd: pytest.CaptureFixture[str],
) -> None:
    assert cli(*VOLUMES, f"dataset.root_dir={sound_volumes}", argument) == 1
    shown = "".join(capfd.readouterr())
    assert message in shown
    assert "Traceback" not in shown
    assert not list(Path("outputs").rglob("checkpoints"))


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("dataset.image_size=[32]", "image_size=[32]: "),
        ("dataset.image_size=[32,0]", "dataset.image_size=[32, 0]: two sides"),
        ("dataset.test_per_class=0", "dataset.test_per_class=0: from 1 to 3"),
        ("dataset.calibration_split=1", "dataset.calibration_split=1: "),
        ("dataset.max_pixels=0", "dataset.max_pixels=0: from 1 to"),
    ],
)
def test_a_bad_value_for_images_is_told_with_its_key(
    cli: CLI, tmp_path: Path, argument: str, message: str, capfd: pytest.CaptureFixture[str]
) -> None:
    root = chest_tree(tmp_path / "data", {}, also_test=False)
    assert cli(*XRAYS, f"dataset.root_dir={root}", argument, "~task.then") == 1
    shown = "".join(capfd.readouterr())
    assert message in shown
    assert "Traceback" not in shown


@pytest.fixture(autouse=True)
def quiet_nibabel() -> Iterator[None]:
    """nibabel logs what it mends in a header."""
    logger = logging.getLogger("nibabel.global")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    yield
    logger.setLevel(level)
