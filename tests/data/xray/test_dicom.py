"""Claims about how DICOM radiographs are read."""

from __future__ import annotations

import importlib.util
import logging
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from vaelab.data.xray.dicom import decode_dicom, doubts_of_header, is_dicom
from vaelab.data.xray.grey_image import LoadGreyImage
from vaelab.data.xray.inputs import read_full_size, read_radiograph
from vaelab.errors import UserError

pydicom = pytest.importorskip("pydicom")

SLOPE = np.add.outer(np.arange(40), 2 * np.arange(60)).astype(np.uint8)  # (H, W)


def saved(path: Path, pixels: np.ndarray) -> Path:
    Image.fromarray(pixels).save(path)
    return path


def dicom(path: Path, pixels: np.ndarray, kind: str = "MONOCHROME2", **elements: Any) -> Path:
    """A DICOM file; elements by keyword, those that are None left out."""
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
    image.HighBit, image.PixelRepresentation = bits - 1, int(pixels.dtype.kind == "i")
    image.PixelData = pixels.tobytes()
    for key, value in elements.items():
        if value is None:
            delattr(image, key)
        else:
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


# --- padding


def padded(value: int, dtype: Any) -> np.ndarray:
    """``SLOPE`` with a frame of padding, 5 pixels wide."""
    pixels = np.full((50, 70), value, dtype)
    pixels[5:-5, 5:-5] = SLOPE
    return pixels


FRAMED = np.pad(SLOPE - SLOPE.min(), 5).astype(np.float32)


def test_padding_is_as_dark_as_the_darkest_pixel(tmp_path: Path) -> None:
    deep = dicom(tmp_path / "a.dcm", padded(-32768, np.int16), PixelPaddingValue=-32768)
    np.testing.assert_array_equal(np.asarray(decode_dicom(deep)), FRAMED)


def test_padding_of_a_negative_is_dark_too(tmp_path: Path) -> None:
    negative = padded(65535, np.uint16)
    negative[5:-5, 5:-5] = 1000 - SLOPE.astype(np.uint16)
    path = dicom(tmp_path / "a.dcm", negative, "MONOCHROME1", PixelPaddingValue=65535)
    np.testing.assert_array_equal(np.asarray(decode_dicom(path)), FRAMED)


def test_padding_may_be_a_range_and_goes_through_no_window(tmp_path: Path) -> None:
    pixels = padded(2000, np.uint16)
    pixels[0] = 2010
    path = dicom(
        tmp_path / "a.dcm", pixels, PixelPaddingValue=2000, PixelPaddingRangeLimit=2010,
        RescaleSlope=2, RescaleIntercept=-5, RescaleType="US",
    )  # fmt: skip
    np.testing.assert_array_equal(np.asarray(decode_dicom(path)), 2 * FRAMED)


def test_a_file_of_nothing_but_padding_is_constant(tmp_path: Path) -> None:
    path = dicom(tmp_path / "a.dcm", np.full((40, 60), 7, np.uint16), PixelPaddingValue=7)
    with pytest.raises(UserError, match=r"a\.dcm: a constant image shows nothing"):
        read_radiograph(path, LoadGreyImage((32, 32)))


# --- what others leave out


def test_without_a_preamble_it_is_dicom_all_the_same(tmp_path: Path) -> None:
    whole = dicom(tmp_path / "a.dcm", DEEP).read_bytes()
    bare = tmp_path / "without-suffix"
    bare.write_bytes(whole[132:])  # 128 bytes and DICM
    assert is_dicom(bare)
    np.testing.assert_array_equal(np.asarray(decode_dicom(bare)), DEEP - DEEP.min())


@pytest.mark.parametrize("implicit", [True, False])
def test_without_file_meta_information_the_encoding_is_guessed(
    tmp_path: Path, implicit: bool
) -> None:
    image = pydicom.dcmread(dicom(tmp_path / "a.dcm", DEEP))
    del image.file_meta
    bare = tmp_path / "IM000001"
    image.save_as(bare, implicit_vr=implicit, little_endian=True, enforce_file_format=False)
    assert is_dicom(bare)
    np.testing.assert_array_equal(np.asarray(decode_dicom(bare)), DEEP - DEEP.min())


@pytest.mark.parametrize("key", ["PhotometricInterpretation", "SamplesPerPixel"])
def test_what_a_grey_image_says_of_itself_may_be_missing(tmp_path: Path, key: str) -> None:
    path = dicom(tmp_path / "a.dcm", DEEP, **{key: None})
    np.testing.assert_array_equal(np.asarray(decode_dicom(path)), DEEP - DEEP.min())


@pytest.mark.parametrize(
    "head", [b"", b"\x08\0", b"\x89PNG" + bytes(200), b"\x08\0" + b"\xff" * 200]
)
def test_other_files_are_not_taken_for_dicom(tmp_path: Path, head: bytes) -> None:
    (tmp_path / "a").write_bytes(head)
    assert not is_dicom(tmp_path / "a")


@pytest.mark.parametrize(
    "elements",
    [
        {"RescaleSlope": "", "RescaleIntercept": ""},
        {"WindowCenter": 100, "WindowWidth": 0},
        {"WindowCenter": "", "WindowWidth": ""},
        {"WindowCenter": 100},
    ],
)
def test_a_scaling_or_window_that_says_nothing_is_none(
    tmp_path: Path, elements: dict[str, Any]
) -> None:
    path = dicom(tmp_path / "a.dcm", DEEP, **elements)
    np.testing.assert_array_equal(np.asarray(decode_dicom(path)), DEEP - DEEP.min())


@given(st.integers(0, 132 + 400), st.binary(min_size=1, max_size=8))
def test_whatever_bytes_a_header_holds_it_is_read_or_refused_in_a_sentence(
    place: int, content: bytes
) -> None:
    with TemporaryDirectory() as folder:
        path = dicom(Path(folder) / "a.dcm", DEEP)
        whole = bytearray(path.read_bytes())
        whole[place : place + len(content)] = content
        path.write_bytes(whole)
        with suppress(UserError):
            assert np.isfinite(np.asarray(decode_dicom(path))).all()


# --- compression


def compressed(path: Path, syntax: str, bits: int) -> Path:
    """As GDCM writes it."""
    gdcm = pytest.importorskip("gdcm")
    source = dicom(path.with_suffix(".raw.dcm"), DEEP, BitsStored=bits, HighBit=bits - 1)
    reader = gdcm.ImageReader()
    reader.SetFileName(str(source))
    assert reader.Read()
    change = gdcm.ImageChangeTransferSyntax()
    change.SetTransferSyntax(gdcm.TransferSyntax(getattr(gdcm.TransferSyntax, syntax)))
    change.SetInput(reader.GetImage())
    assert change.Change()
    writer = gdcm.ImageWriter()
    writer.SetFileName(str(path))
    writer.SetFile(reader.GetFile())
    writer.SetImage(change.GetOutput())
    assert writer.Write()
    return path


@pytest.mark.parametrize(
    ("syntax", "bits"),
    [
        ("JPEGLosslessProcess14_1", 16),
        ("JPEGLosslessProcess14", 12),
        ("JPEGLSLossless", 16),
        ("JPEG2000Lossless", 16),
        ("RLELossless", 16),
    ],
)
def test_a_compressed_image_is_decoded(tmp_path: Path, syntax: str, bits: int) -> None:
    path = compressed(tmp_path / "a.dcm", syntax, bits)
    assert pydicom.dcmread(path).file_meta.TransferSyntaxUID.is_compressed
    np.testing.assert_array_equal(np.asarray(decode_dicom(path)), DEEP - DEEP.min())


def test_lossy_jpeg_of_twelve_bits_is_named_with_what_decodes_it(tmp_path: Path) -> None:
    path = compressed(tmp_path / "a.dcm", "JPEGExtendedProcess2_4", 12)
    if importlib.util.find_spec("libjpeg") is None:
        with pytest.raises(UserError, match=r"JPEG of 12 bits.*pip install pylibjpeg "):
            decode_dicom(path)


def test_a_missing_decoder_is_named_with_what_brings_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = compressed(tmp_path / "a.dcm", "JPEGLSLossless", 16)
    decoder = pydicom.pixels.get_decoder(pydicom.uid.JPEGLSLossless)
    monkeypatch.setattr(decoder, "_available", {})
    with pytest.raises(UserError, match=r"JPEG-LS Lossless.*pip install -e '\.\[dicom\]'$"):
        decode_dicom(path)


def test_a_damaged_compressed_image_is_one_sentence(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    path = compressed(tmp_path / "a.dcm", "JPEGLosslessProcess14_1", 16)
    whole = bytearray(path.read_bytes())
    start = whole.rindex(b"\xff\xd8\xff")
    whole[start : start + 40] = bytes(40)
    path.write_bytes(whole)
    with pytest.raises(UserError, match=r"a\.dcm: not a readable DICOM image") as caught:
        decode_dicom(path)
    assert "\n" not in str(caught.value)
    assert not caplog.records
    assert "Traceback" not in "".join(capfd.readouterr())


# --- whose chest


@pytest.mark.parametrize(
    ("elements", "doubts"),
    [
        ({"BodyPartExamined": "CHEST"}, []),
        ({"BodyPartExamined": "THORAX PA", "Modality": "DX"}, []),
        ({"BodyPartExamined": ""}, []),
        ({"BodyPartExamined": "HIP"}, ["its body part is HIP, not a chest"]),
        ({"PatientSpeciesDescription": "Canine"}, ["its patient is a Canine"]),
        ({"PatientSpeciesDescription": "Homo sapiens"}, []),
        ({"Modality": "CT"}, ["its modality is CT, no radiograph"]),
    ],
)
def test_what_is_no_chest_by_its_header_is_said(
    tmp_path: Path, elements: dict[str, str], doubts: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    path = dicom(tmp_path / "a.dcm", DEEP, **elements)
    assert doubts_of_header(path) == doubts
    with caplog.at_level(logging.WARNING):
        read_radiograph(path, LoadGreyImage((32, 32)))
    assert len(caplog.records) == len(doubts)
