"""Claims about what is found to be judged, and how it is read."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import torch
from PIL import Image

from vaelab.data.inputs import (
    Input,
    check_can_read,
    decode_dicom,
    find_inputs,
    images_below,
    read_full_size,
    read_radiograph,
    read_subject,
    subjects_below,
)
from vaelab.data.xray.grey_image import LoadGreyImage
from vaelab.errors import UserError

SLOPE = np.add.outer(np.arange(40), 2 * np.arange(60)).astype(np.uint8)  # (H, W)


def touch(root: Path, *names: str) -> None:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")


def found(inputs: str | list[str], output: Path = Path("/nowhere")) -> list[Input]:
    return find_inputs(inputs, images_below, "images", output)


def names(inputs: str | list[str], output: Path = Path("/nowhere")) -> list[str]:
    return [one.name for one in found(inputs, output)]


# --- what is found


def test_a_folder_gives_its_images_at_every_depth_in_order(tmp_path: Path) -> None:
    touch(tmp_path, "b.png", "a/b.JPG", "a/c/d.dcm", "notes.txt", ".hidden.png", ".trash/e.png")
    assert names(str(tmp_path)) == ["b.png", "a/b.JPG", "a/c/d.dcm"]


def test_dicom_without_a_suffix_is_known_by_its_content(tmp_path: Path) -> None:
    for name in ("IM00001", "1.2.840.113619", "DICOMDIR"):
        (tmp_path / name).write_bytes(bytes(128) + b"DICM")
    touch(tmp_path, "README")
    assert names(str(tmp_path)) == ["1.2.840.113619", "IM00001"]


def test_one_file_is_called_by_its_name(tmp_path: Path) -> None:
    touch(tmp_path, "a/b.png")
    assert names(str(tmp_path / "a" / "b.png")) == ["b.png"]


def test_several_inputs_are_named_from_what_they_have_in_common(tmp_path: Path) -> None:
    touch(tmp_path, "x/1.png", "y/z/1.png", "y/z/2.png")
    several = [str(tmp_path / "x"), str(tmp_path / "y" / "z" / "1.png")]
    assert names(several) == ["x/1.png", "y/z/1.png"]


def test_nothing_is_judged_twice(tmp_path: Path) -> None:
    touch(tmp_path, "a/1.png")
    (tmp_path / "a" / "again").symlink_to(tmp_path / "a")  # a folder in itself
    assert names([str(tmp_path), str(tmp_path / "a" / "1.png")]) == ["a/1.png"]


def test_links_to_folders_are_followed(tmp_path: Path) -> None:
    touch(tmp_path, "store/1.png")
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "linked").symlink_to(tmp_path / "store")
    assert names(str(tmp_path / "in")) == ["linked/1.png"]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("list.txt", "a/1.png\n\n  b/1.png\n"),
        ("list.csv", "age,file\n64,a/1.png\n7,b/1.png\n"),
        ("list.csv", "\ufeffpath\na/1.png\nb/1.png\n"),  # as Excel saves it
    ],
)
def test_a_list_names_files_from_where_it_lies(tmp_path: Path, name: str, content: str) -> None:
    touch(tmp_path, "a/1.png", "b/1.png", "b/2.png")
    (tmp_path / name).write_text(content, encoding="utf-8")
    assert names(str(tmp_path / name)) == ["a/1.png", "b/1.png"]


def test_a_table_without_a_column_of_files_is_refused(tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_text("name,age\n")
    with pytest.raises(UserError, match=r"column 'file' or 'path'.*'name', 'age'"):
        found(str(tmp_path / "list.csv"))


def test_places_differ_whenever_inputs_do(tmp_path: Path) -> None:
    touch(tmp_path, "a/1.png", "b/1.png", "b/1.jpg", "b/2.png", "b/A.png", "b/a.jpg")
    touch(tmp_path, "b/1.png.png")
    places = {one.name: one.place for one in found(str(tmp_path))}
    assert places["a/1.png"] == "a/1"
    assert places["b/2.png"] == "b/2"
    assert (places["b/1.png"], places["b/1.jpg"]) == ("b/1.png", "b/1.jpg")
    assert len({place.casefold() for place in places.values()}) == len(places) == 7


def test_results_of_an_earlier_time_are_no_inputs(tmp_path: Path) -> None:
    touch(tmp_path, "1.png", "out/1_heatmap.png")
    assert names(str(tmp_path), tmp_path / "out") == ["1.png"]


@pytest.mark.parametrize("output", ["in", "."])
def test_results_do_not_go_where_the_inputs_are(tmp_path: Path, output: str) -> None:
    touch(tmp_path, "in/1.png")
    with pytest.raises(UserError, match=r"task\.output_dir=.*choose another"):
        found(str(tmp_path / "in" / "1.png"), tmp_path / output)


def test_nothing_to_judge_is_an_error(tmp_path: Path) -> None:
    touch(tmp_path, "notes.md")
    with pytest.raises(UserError, match=r"task\.inputs=.*nothing to judge; expected images"):
        found(str(tmp_path))
    with pytest.raises(UserError, match=r"task\.inputs=.*absent.*does not exist"):
        found(str(tmp_path / "absent"))


def test_one_that_is_missing_among_others_is_left_to_be_reported(tmp_path: Path) -> None:
    touch(tmp_path, "1.png")
    assert names([str(tmp_path / "1.png"), str(tmp_path / "2.png")]) == ["1.png", "2.png"]


def test_a_subject_is_a_folder_with_a_series_complete_or_not(tmp_path: Path) -> None:
    touch(tmp_path, "more/S-2/S-2-t1c.nii.gz", "S-1/S-1-t2w.nii.gz", "other/x.nii.gz")
    expand = partial(subjects_below, modalities=["t1c", "t2w"])
    below = find_inputs(str(tmp_path), expand, "subjects", Path("/nowhere"))
    assert [one.name for one in below] == ["S-1", "more/S-2"]
    (alone,) = find_inputs(str(tmp_path / "more" / "S-2"), expand, "subjects", Path("/nowhere"))
    assert alone.name == alone.place == "S-2"


# --- 2D


@pytest.mark.parametrize("trim", [False, True])
@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_an_image_is_read_as_for_training(tmp_path: Path, suffix: str, trim: bool) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (300, 400), np.uint8)
    pixels[:, :50] = 0
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(pixels).save(path)
    loader = LoadGreyImage((32, 32), trim_border=trim)
    sample = read_radiograph(path, loader)
    assert torch.equal(sample.image, loader({"path": str(path)})["image"])
    if suffix == "png":  # 50 of 400 columns
        assert sample.box == ((0.125 if trim else 0.0), 0.0, 1.0, 1.0)


def saved(path: Path, pixels: np.ndarray) -> Path:
    Image.fromarray(pixels).save(path)
    return path


def test_grey_colour_and_sixteen_bits_are_one_image(tmp_path: Path) -> None:
    files = [
        saved(tmp_path / "grey.png", SLOPE),
        saved(tmp_path / "colour.png", np.stack([SLOPE] * 3, -1)),
        saved(tmp_path / "deep.png", SLOPE.astype(np.uint16) * 256),
    ]
    expected = (SLOPE - SLOPE.min()) / np.ptp(SLOPE)
    loader = LoadGreyImage((32, 32))
    first = read_radiograph(files[0], loader).image
    assert first.shape == (1, 32, 32)
    assert (first.min(), first.max()) == (0, 1)
    for path in files:
        np.testing.assert_allclose(read_full_size(path), expected, atol=1e-6)
        torch.testing.assert_close(read_radiograph(path, loader).image, first)


@pytest.mark.parametrize("content", [b"", b"no image", b"\x89PNG\r\n\x1a\n"])
def test_a_damaged_image_is_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"a\.png: not a readable image"):
        read_radiograph(path, LoadGreyImage((32, 32)))


# --- DICOM


def dicom(path: Path, pixels: np.ndarray, kind: str = "MONOCHROME2", **elements: Any) -> Path:
    """A DICOM file of unsigned 16 bits; elements by keyword."""
    pydicom = pytest.importorskip("pydicom")
    meta = pydicom.dataset.FileMetaDataset()
    meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = pydicom.uid.DigitalXRayImageStorageForPresentation
    meta.MediaStorageSOPInstanceUID = pydicom.uid.generate_uid()
    image = pydicom.Dataset()
    image.file_meta = meta
    image.SOPClassUID = meta.MediaStorageSOPClassUID
    image.SOPInstanceUID = meta.MediaStorageSOPInstanceUID
    colour = pixels.ndim == 3 and pixels.shape[2] == 3
    image.PhotometricInterpretation = "RGB" if colour else kind
    image.SamplesPerPixel = 3 if colour else 1
    if colour:
        image.PlanarConfiguration = 0
    image.Rows, image.Columns = pixels.shape[:2] if colour else pixels.shape[-2:]
    if pixels.ndim == 3 and not colour:
        image.NumberOfFrames = len(pixels)
    bits = 8 * pixels.dtype.itemsize
    image.BitsAllocated = image.BitsStored = bits
    image.HighBit, image.PixelRepresentation = bits - 1, 0
    image.PixelData = pixels.tobytes()
    for key, value in elements.items():
        setattr(image, key, value)
    image.save_as(path, enforce_file_format=True)
    return path


DEEP = SLOPE.astype(np.uint16) * 16


def test_a_dicom_image_is_the_same_as_its_png(tmp_path: Path) -> None:
    loader = LoadGreyImage((32, 32))
    png = read_radiograph(saved(tmp_path / "a.png", DEEP), loader)
    one = read_radiograph(dicom(tmp_path / "a.dcm", DEEP), loader)
    torch.testing.assert_close(one.image, png.image)
    np.testing.assert_allclose(
        read_full_size(tmp_path / "a.dcm"), read_full_size(tmp_path / "a.png"), atol=1e-6
    )


def test_monochrome1_is_turned_around(tmp_path: Path) -> None:
    turned = dicom(tmp_path / "one.dcm", DEEP.max() - DEEP, "MONOCHROME1")
    np.testing.assert_array_equal(np.asarray(decode_dicom(turned)), DEEP - DEEP.min())


def test_slope_intercept_and_window_are_applied(tmp_path: Path) -> None:
    path = dicom(
        tmp_path / "a.dcm", DEEP, RescaleSlope=2, RescaleIntercept=-100, RescaleType="US",
        WindowCenter=1100, WindowWidth=801, WindowCenterWidthExplanation="lungs",
    )  # fmt: skip
    # PS3.3 C.11.2.1.2.1: black up to c − 0.5 − (w − 1)/2 = 699.5, white from 1499.5
    share = np.clip((2.0 * DEEP - 100 - 699.5) / 800, 0, 1)
    np.testing.assert_allclose(read_full_size(path), share, atol=1e-4)


def test_a_colour_dicom_is_read_as_grey(tmp_path: Path) -> None:
    path = dicom(tmp_path / "a.dcm", np.stack([SLOPE] * 3, -1))
    np.testing.assert_allclose(np.asarray(decode_dicom(path)), SLOPE - SLOPE.min(), atol=1e-4)


def test_a_film_of_many_frames_is_refused(tmp_path: Path) -> None:
    path = dicom(tmp_path / "a.dcm", np.stack([DEEP] * 4))
    with pytest.raises(UserError, match=r"a\.dcm: one radiograph is needed"):
        decode_dicom(path)


def test_a_damaged_dicom_file_is_named(tmp_path: Path) -> None:
    path = dicom(tmp_path / "a.dcm", DEEP)
    whole = path.read_bytes()
    for size in (0, 10, 200, 400, len(whole) - 1000):
        path.write_bytes(whole[:size])
        with pytest.raises(UserError, match=r"a\.dcm: not a readable DICOM"):
            decode_dicom(path)


def test_without_pydicom_the_cure_is_named_before_any_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    touch(tmp_path, "1.png", "2.dcm")
    monkeypatch.setitem(sys.modules, "pydicom", None)
    check_can_read(found(str(tmp_path / "1.png")))
    with pytest.raises(UserError, match=r"pip install 'vaelab\[dicom\]'"):
        check_can_read(found(str(tmp_path)))


# --- 3D

SETTINGS: dict[str, Any] = {
    "modalities": ["t1c", "t2w"],
    "roi_size": [16, 16, 16],
    "spacing": [1.0, 1.0, 1.0],
    "orientation": "RAS",
    "align_to": None,
    "with_seg": True,
}


def subject(folder: Path, shapes: dict[str, tuple[int, ...]]) -> Path:
    folder.mkdir()
    for key, shape in shapes.items():
        volume = np.random.default_rng(0).normal(size=shape).astype(np.float32)
        nibabel.save(nibabel.Nifti1Image(volume, np.eye(4)), folder / f"{folder.name}-{key}.nii.gz")
    return folder


SAME = {"t1c": (10, 12, 14), "t2w": (10, 12, 14)}


def test_a_subject_needs_no_segmentation_and_knows_where_it_lies(tmp_path: Path) -> None:
    volume = read_subject(subject(tmp_path / "S", SAME), SETTINGS)
    assert volume.image.shape == (2, 16, 16, 16)
    assert type(volume.image) is torch.Tensor
    # padded by 3, 2 and 1 voxels in front
    np.testing.assert_allclose(volume.affine[:3, 3], [-3, -2, -1])
    assert volume.original == tmp_path / "S" / "S-t1c.nii.gz"


def test_a_subject_is_its_own_on_the_grid_that_others_are_aligned_to(tmp_path: Path) -> None:
    folder = subject(tmp_path / "S", SAME | {"t2w": (16, 16, 16)})
    with pytest.raises(UserError, match=r"dataset\.align_to=t1c"):
        read_subject(folder, SETTINGS)
    volume = read_subject(folder, SETTINGS | {"align_to": "t2w"})
    assert volume.original.name == "S-t2w.nii.gz"
    np.testing.assert_allclose(volume.affine, np.eye(4))


def test_what_is_wrong_with_a_subject_is_said(tmp_path: Path) -> None:
    folder = subject(tmp_path / "S", {"t1c": (10, 12, 14)})
    with pytest.raises(UserError, match=r"S: no \*-t2w\.nii\.gz"):
        read_subject(folder, SETTINGS)
    with pytest.raises(UserError, match="does not exist"):
        read_subject(tmp_path / "T", SETTINGS)
    with pytest.raises(UserError, match="a file; its folder is needed"):
        read_subject(folder / "S-t1c.nii.gz", SETTINGS)


@pytest.mark.parametrize("share", [0.0, 0.02, 0.5, 0.99])
def test_a_truncated_series_is_named(tmp_path: Path, share: float) -> None:
    folder = subject(tmp_path / "S", SAME)
    path = folder / "S-t2w.nii.gz"
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    what = "empty file|not a readable NIfTI file|voxels are not readable"
    with pytest.raises(UserError, match=rf"S-t2w\.nii\.gz: .*({what})"):
        read_subject(folder, SETTINGS)
