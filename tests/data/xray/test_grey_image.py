"""Claims about a grey image: whatever the file, the model sees it upright, scaled and whole."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from vaelab.data.xray.grey_image import LoadGreyImage, eight_bit, trim_dark_border
from vaelab.errors import UserError

SHARED = Path(__file__).parents[3].parent / "shared" / "data"


def load(path: Path, size: tuple[int, int] = (128, 128)) -> torch.Tensor:
    return LoadGreyImage(size)({"id": "x", "path": str(path)})["image"]


def refusal(path: Path) -> str:
    """What the user is told of a file."""
    with pytest.raises(UserError) as caught:
        load(path)
    return str(caught.value)


def ramp(top: int = 255, kind: type = np.uint8) -> np.ndarray:
    """128 × 128 from 0 at the left to ``top`` at the right."""
    return np.tile(np.linspace(0, top, 128).round(), (128, 1)).astype(kind)


EXPECTED = torch.from_numpy(ramp() / np.float32(255))


def test_an_image_of_the_target_size_is_only_scaled(tmp_path: Path) -> None:
    Image.fromarray(50 + ramp() // 2).save(tmp_path / "x.png")  # grey levels 50 to 177
    pixels = torch.from_numpy((ramp() // 2) / np.float32(127))
    torch.testing.assert_close(load(tmp_path / "x.png")[0], pixels)


@pytest.mark.parametrize(
    ("suffix", "mode"),
    [
        *[("png", mode) for mode in ("L", "RGB", "RGBA", "LA", "P")],
        *[("jpeg", mode) for mode in ("L", "RGB", "CMYK")],
    ],
)
def test_every_mode_becomes_grey(tmp_path: Path, suffix: str, mode: str) -> None:
    colour = Image.fromarray(ramp()).convert("RGB")
    image = colour.quantize(256) if mode == "P" else colour.convert(mode)
    path = tmp_path / f"x.{suffix}"
    image.save(path, **({"quality": 100} if suffix == "jpeg" else {}))
    with Image.open(path) as saved:
        assert saved.mode == mode
    result = load(path)
    assert result.shape == (1, 128, 128)
    assert result.dtype == torch.float32
    assert (result.min(), result.max()) == (0, 1)
    # Two grey levels, for the coefficients of a JPEG and for a luma that sums to almost one.
    torch.testing.assert_close(result[0], EXPECTED, atol=2 / 255, rtol=0)


def test_colour_is_weighed_as_luma(tmp_path: Path) -> None:
    """ITU-R 601-2: 0.299 R + 0.587 G + 0.114 B, rounded to grey levels."""
    stripes = np.zeros((128, 128, 3), np.uint8)
    for channel in range(3):
        stripes[:, 32 * (channel + 1) : 32 * (channel + 2), channel] = 255
    Image.fromarray(stripes).save(tmp_path / "x.png")
    row = load(tmp_path / "x.png")[0, 0, 16::32]
    weights = torch.tensor([0, 0.299, 0.587, 0.114]) / 0.587  # green is the brightest
    torch.testing.assert_close(row, weights, atol=1 / 150, rtol=0)  # a level of 0.587 × 255 = 150


def test_sixteen_bits_are_not_clipped_to_eight(tmp_path: Path) -> None:
    Image.fromarray(ramp(65535, np.uint16)).save(tmp_path / "x.png")
    expected = torch.from_numpy(ramp(65535, np.uint16).astype(np.float32) / 65535)
    torch.testing.assert_close(load(tmp_path / "x.png")[0], expected)


@pytest.mark.parametrize("shape", [(20, 300), (300, 20), (128, 128), (1, 2), (1000, 900)])
def test_any_shape_ends_at_the_image_size_and_spans_zero_to_one(
    tmp_path: Path, shape: tuple[int, int]
) -> None:
    noise = np.random.default_rng(0).integers(90, 130, shape, dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "x.png")
    result = load(tmp_path / "x.png", (48, 64))
    assert result.shape == (1, 48, 64)
    assert float(result.min()) == 0
    assert float(result.max()) == 1


@pytest.mark.parametrize(("value", "kind"), [(0, np.uint8), (137, np.uint8), (40000, np.uint16)])
@pytest.mark.parametrize("shape", [(128, 128), (97, 301), (1, 1)])
def test_a_constant_image_is_refused_by_name(
    tmp_path: Path, shape: tuple[int, int], value: int, kind: type
) -> None:
    Image.fromarray(np.full(shape, value, kind)).save(tmp_path / "x.png")
    message = refusal(tmp_path / "x.png")
    assert message.startswith(f"{tmp_path / 'x.png'}: a constant image shows nothing")
    assert f"all pixels are {value}" in message


def test_what_is_left_after_trimming_may_be_constant_and_becomes_black() -> None:
    flat = Image.fromarray(np.full((40, 40), 137.0, np.float32))
    pixels, _ = LoadGreyImage((16, 16), trim_border=True).fit(flat)
    assert not pixels.any()


TURNS = {1: 0, 3: 2, 6: 3, 8: 1}  # EXIF orientation: quarter turns to the left that undo it


@pytest.mark.parametrize("orientation", TURNS)
@pytest.mark.parametrize("suffix", ["png", "jpeg"])
def test_an_image_is_seen_as_exif_says(tmp_path: Path, orientation: int, suffix: str) -> None:
    y, x = np.mgrid[:240, :400] / 400
    upright = (255 * np.clip(x * (1 - y), 0, 1)).astype(np.uint8)
    stored = np.rot90(upright, -TURNS[orientation])
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(stored).save(tmp_path / f"turned.{suffix}", exif=exif)
    Image.fromarray(upright).save(tmp_path / f"upright.{suffix}")
    turned, expected = (load(tmp_path / f"{n}.{suffix}", (24, 40)) for n in ("turned", "upright"))
    torch.testing.assert_close(turned, expected, atol=2 / 255, rtol=0)


def test_a_grey_image_is_the_same_in_every_mode(tmp_path: Path) -> None:
    grey = Image.fromarray(ramp())
    expected = load(saved_as(grey, tmp_path / "grey.png"))
    for mode in ("RGB", "RGBA", "LA", "P"):
        other = saved_as(grey.convert(mode), tmp_path / f"{mode}.png")
        torch.testing.assert_close(load(other), expected, atol=1 / 255, rtol=0)
    print_colours = saved_as(grey.convert("CMYK"), tmp_path / "cmyk.jpeg", quality=98)
    torch.testing.assert_close(load(print_colours), expected, atol=3 / 255, rtol=0)


def saved_as(image: Image.Image, path: Path, **options: Any) -> Path:
    image.save(path, **options)
    return path


def test_a_file_that_may_not_be_read_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = saved_as(Image.fromarray(ramp()), tmp_path / "x.png")

    def refuse(self: Path, *_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "open", refuse)  # root may read everything
    assert refusal(path).startswith(f"{path}: not a readable image (may not be read)")


def framed(top: int, right: int, bottom: int, left: int) -> np.ndarray:
    """100 × 100 of bright noise with dark margins of these widths."""
    pixels = np.random.default_rng(0).integers(120, 256, (100, 100), dtype=np.uint8)
    pixels[:top] = pixels[100 - bottom :] = pixels[:, :left] = pixels[:, 100 - right :] = 3
    return pixels


@pytest.mark.parametrize(
    "margins", [(0, 0, 0, 0), (10, 0, 0, 0), (0, 20, 0, 5), (12, 7, 30, 1), (30, 30, 30, 30)]
)
def test_dark_margins_are_cut_off_exactly(margins: tuple[int, int, int, int]) -> None:
    top, right, bottom, left = margins
    assert trim_dark_border(framed(*margins)) == (left, top, 100 - right, 100 - bottom)


def test_at_most_thirty_percent_are_cut_on_each_side() -> None:
    assert trim_dark_border(framed(35, 35, 35, 35)) == (30, 30, 70, 70)
    assert trim_dark_border(framed(60, 0, 0, 0)) == (0, 30, 100, 100)


@pytest.mark.parametrize("level", [0.0, 137.0])
@pytest.mark.parametrize("shape", [(100, 80), (1, 1)])
def test_an_image_without_contrast_keeps_its_margins(shape: tuple[int, int], level: float) -> None:
    assert trim_dark_border(np.full(shape, level)) == (0, 0, shape[1], shape[0])


def test_a_trimmed_image_is_the_image_of_what_lies_within_its_margins(tmp_path: Path) -> None:
    pixels = framed(12, 7, 20, 1)
    pixels[40:50, 40:50], pixels[60:70, 60:70] = 0, 255  # black and white wherever it is cut
    Image.fromarray(pixels).save(tmp_path / "framed.png")
    Image.fromarray(pixels[12:80, 1:93]).save(tmp_path / "inside.png")
    record = {"id": "x", "path": str(tmp_path / "framed.png")}
    trimmed = LoadGreyImage((34, 46), trim_border=True)(record)["image"]
    inside, framed_too = (load(tmp_path / f"{n}.png", (34, 46)) for n in ("inside", "framed"))
    # 68 × 92 pixels become 34 × 46: the resize reaches one of them across the edge.
    ring = (slice(None), slice(1, -1), slice(1, -1))
    torch.testing.assert_close(trimmed[ring], inside[ring])
    assert (trimmed - framed_too).abs().mean() > 0.1


def decoded_in_full(path: Path) -> torch.Tensor:
    with Image.open(path) as image:
        grey = image.convert("L").convert("F").resize((128, 128), Image.Resampling.BILINEAR)
    pixels = np.asarray(grey)
    return torch.from_numpy((pixels - pixels.min()) / (pixels.max() - pixels.min()))


# The decoder's reduced image is rounded to whole grey levels, half a level off at most; so are
# the least and the greatest level, by which all is scaled. Together a level of 255 on average.
DRAFT_TOLERANCE = 1 / 255


@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_a_large_jpeg_decoded_small_is_the_image_decoded_in_full(tmp_path: Path, mode: str) -> None:
    y, x = np.mgrid[:1024, :1400] / 1024
    waves = (127.5 + 80 * np.sin(9 * x) * np.cos(7 * y)).round().astype(np.uint8)
    path = tmp_path / "x.jpeg"
    Image.fromarray(waves).convert(mode).save(path)
    assert (load(path)[0] - decoded_in_full(path)).abs().mean() < DRAFT_TOLERANCE


def test_a_large_jpeg_is_indeed_decoded_small(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[tuple[int, int]] = []
    resize = Image.Image.resize

    def spy(image: Image.Image, *args: Any, **kwargs: Any) -> Image.Image:
        sizes.append(image.size)
        return resize(image, *args, **kwargs)

    two_halves = Image.new("RGB", (1400, 1024))
    two_halves.paste((255, 255, 255), (0, 0, 700, 1024))
    two_halves.save(tmp_path / "x.jpeg")
    monkeypatch.setattr(Image.Image, "resize", spy)
    load(tmp_path / "x.jpeg")
    assert sizes == [(1400 // 4, 1024 // 4)]  # 1/8 would be less than twice 128


@pytest.mark.parametrize("content", [b"", b"<html>not found</html>", b"\x89PNG\r\n\x1a\n"])
def test_a_file_that_is_no_image_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.png").write_bytes(content)
    message = refusal(tmp_path / "x.png")
    assert message.startswith(f"{tmp_path / 'x.png'}: not a readable image")


@pytest.mark.skipif(
    not (SHARED / "chest_xray_fullres").is_dir(),
    reason=f"no real images at {SHARED / 'chest_xray_fullres'}",
)
def test_real_images_decoded_small_are_those_decoded_in_full() -> None:
    paths = sorted((SHARED / "chest_xray_fullres").rglob("*.jpeg"))[:6]
    assert paths
    for path in paths:
        assert (load(path)[0] - decoded_in_full(path)).abs().mean() < DRAFT_TOLERANCE


def test_sixteen_bit_images_are_brought_to_eight_and_large_ones_shrunk():
    deep = Image.fromarray(np.tile(np.float32([0, 65535]), (300, 50)))  # 100 × 300
    small = eight_bit(deep, (40, 40))
    assert small.mode == "L"
    assert small.size == (50, 150)  # 100 // 40 = 2
    assert eight_bit(deep, (100, 100)).getextrema() == (0, 255)
