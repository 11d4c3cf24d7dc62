"""Claims about how a subject's files become one sample."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import (
    Compose,
    ConcatItemsd,
    EnsureChannelFirstd,
    LoadImaged,
    NormalizeIntensityd,
    Orientationd,
    Randomizable,
    RandSpatialCropd,
    ResizeWithPadOrCropd,
    Spacing,
    Spacingd,
)
from nibabel.orientations import axcodes2ornt, io_orientation, ornt_transform

from vaelab.data.volumes.intensity import mean_and_deviation
from vaelab.data.volumes.settings import VolumeSettings
from vaelab.data.volumes.transforms import (
    RandCropIfLargerd,
    preprocessing,
    train_pipeline,
    val_pipeline,
)
from vaelab.errors import UserError

MODALITIES = ("t1c", "t1n", "t2f", "t2w")
NOISE = np.random.default_rng(0).normal(100, 20, (16, 18, 20)).astype(np.float32)
LABELS = np.random.default_rng(1).choice([0, 2, 4], (16, 18, 20)).astype(np.uint8)
UNIT = np.eye(4)


def turned(array: np.ndarray, affine: np.ndarray, orientation: str) -> nibabel.Nifti1Image:
    """The same voxels at the same places, stored along other axes."""
    image = nibabel.Nifti1Image(array, affine)
    there = ornt_transform(io_orientation(affine), axcodes2ornt(orientation))
    return image.as_reoriented(there)


def subject(
    folder: Path,
    volumes: Mapping[str, np.ndarray],
    affine: np.ndarray | Mapping[str, np.ndarray] = UNIT,
    orientation: str = "RAS",
) -> dict[str, Any]:
    """A record of files that hold ``volumes``."""
    folder.mkdir(parents=True, exist_ok=True)
    record: dict[str, Any] = {"id": "S-001-000"}
    for key, array in volumes.items():
        own = affine[key] if isinstance(affine, Mapping) else affine
        record[key] = str(folder / f"S-001-000-{key}.nii.gz")
        nibabel.save(turned(array, own, orientation), record[key])
    return record


def steps(roi_size: Sequence[int] = (24, 24, 24), **changed: Any) -> list[Any]:
    return preprocessing(
        VolumeSettings(**{"modalities": MODALITIES, "roi_size": roi_size} | changed)
    )


def sample(record: Mapping[str, Any], **changed: Any) -> dict[str, Any]:
    return val_pipeline(steps(**changed), changed.get("with_seg", True))(record)


def four(array: np.ndarray, seg: np.ndarray | None = None) -> dict[str, np.ndarray]:
    """All modalities alike, and a segmentation."""
    labels = np.zeros(array.shape, np.uint8) if seg is None else seg
    return dict.fromkeys(MODALITIES, array) | {"seg": labels}


def rotated(degrees: float) -> np.ndarray:
    """Affine of a 1 mm grid turned about the third axis."""
    angle = np.deg2rad(degrees)
    affine = np.eye(4)
    affine[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    return affine


def cause(record: Mapping[str, Any], **changed: Any) -> str:
    """What the user is told; MONAI's Compose wraps it."""
    with pytest.raises(RuntimeError) as caught:
        sample(record, **changed)
    assert isinstance(caught.value.__cause__, UserError)
    return str(caught.value.__cause__)


# --- order


DETERMINISTIC = [
    *("LoadImaged", "EnsureChannelFirstd", "Orientationd", "SpacedIfNeededd", "CheckSameGridd"),
    *("Standardised", "ResizeWithPadOrCropd", "ConcatItemsd", "SelectItemsd"),
    "CastToTyped",
]


def classes(pipeline: Compose) -> list[str]:
    return [type(step).__name__ for step in pipeline.transforms]


def test_training_alone_ends_in_a_random_crop() -> None:
    to_batch = ["ToTensord", "SelectItemsd"]
    val = val_pipeline(steps(), with_seg=True)
    train = train_pipeline(steps(), (24, 24, 24), with_seg=True)
    assert classes(val) == [*DETERMINISTIC, *to_batch]
    assert classes(train) == [*DETERMINISTIC, "RandCropIfLargerd", *to_batch]
    assert not any(isinstance(step, Randomizable) for step in val.transforms)
    (crop,) = [step for step in train.transforms if isinstance(step, Randomizable)]
    assert isinstance(crop, RandSpatialCropd)


def test_alignment_comes_between_spacing_and_the_check() -> None:
    pipeline = val_pipeline(steps(align_to="t1c"), with_seg=True)
    after = DETERMINISTIC.index("SpacedIfNeededd") + 1
    expected = [*DETERMINISTIC[:after], "ResampleToMatchd", *DETERMINISTIC[after:]]
    assert classes(pipeline)[: len(expected)] == expected


def test_a_crop_of_the_padded_size_moves_nothing(tmp_path: Path) -> None:
    record = subject(tmp_path, four(NOISE, LABELS))
    roi_size = (24, 12, 20)
    train = train_pipeline(steps(roi_size), roi_size, with_seg=True)(record)
    val = val_pipeline(steps(roi_size), with_seg=True)(record)
    assert torch.equal(train["image"], val["image"])
    assert torch.equal(train["seg"], val["seg"])


# --- size


@pytest.mark.parametrize("orientation", ["RAS", "LPS", "PIR", "SLA"])
@pytest.mark.parametrize(
    ("shape", "spacing"),
    [
        ((16, 16, 16), (1.0, 1.0, 1.0)),  # exactly
        ((9, 10, 11), (1.0, 1.0, 1.0)),  # smaller, even and odd
        ((23, 24, 25), (1.0, 1.0, 1.0)),  # larger
        ((10, 16, 22), (1.0, 1.0, 1.0)),  # both
        ((24, 24, 5), (0.9, 0.9, 5.5)),  # anisotropic, as a scanner writes it
    ],
)
def test_every_sample_ends_at_the_roi_size_whatever_it_was(
    tmp_path: Path, shape: tuple[int, ...], spacing: tuple[float, ...], orientation: str
) -> None:
    volume = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    record = subject(tmp_path, {"t1c": volume}, np.diag([*spacing, 1.0]), orientation)
    result = sample(record, modalities=["t1c"], roi_size=(16, 16, 16), with_seg=False)
    assert result["image"].shape == (1, 16, 16, 16)
    assert result["image"].isfinite().all()


def test_an_oblique_volume_ends_at_the_roi_size_too(tmp_path: Path) -> None:
    record = subject(tmp_path, four(NOISE, LABELS), rotated(20) @ np.diag([1.1, 0.9, 2.0, 1.0]))
    result = sample(record, roi_size=(16, 24, 32))
    assert result["image"].shape == (4, 16, 24, 32)
    assert result["seg"].shape == (1, 16, 24, 32)
    assert result["image"].isfinite().all()


def test_spacing_is_in_millimetres(tmp_path: Path) -> None:
    volume = np.ones((20, 20, 20), np.float32)
    volume[::2] = 2  # along the first axis, so that no slice across the others is constant
    record = subject(tmp_path, {"t1c": volume})
    sizes = (1.0, 2.0, 4.0)
    image = sample(record, modalities=["t1c"], spacing=sizes, with_seg=False)["image"][0]
    used = [int((image != 0).flatten(1).any(1).sum())]
    used += [int((image != 0).movedim(axis, 0).flatten(1).any(1).sum()) for axis in (1, 2)]
    # 19 mm from the first voxel to the last: 19/1 + 1, 19/2 + 1 and 19/4 + 1 voxels, rounded
    assert used == [20, 10, 6]


# --- what is where


def test_channels_are_the_modalities_in_order(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    volumes = {key: rng.normal(size=(8, 8, 8)).astype(np.float32) for key in MODALITIES}
    record = subject(tmp_path, volumes)
    order = ["t2w", "t1c", "t2f"]
    image = sample(record, modalities=order, roi_size=(8, 8, 8), with_seg=False)["image"]
    for channel, key in zip(image, order, strict=True):
        expected = (volumes[key] - volumes[key].mean()) / volumes[key].std()
        np.testing.assert_allclose(channel, expected, atol=1e-5)


def test_each_modality_is_standardised_before_it_is_padded(tmp_path: Path) -> None:
    scales = {"t1c": 1.0, "t1n": 1000.0, "t2f": 0.01, "t2w": 1.0}
    record = subject(tmp_path, {key: NOISE * scale for key, scale in scales.items()})
    image = sample(record, roi_size=(24, 24, 24), with_seg=False)["image"]
    inside = image[:, 4:20, 3:21, 2:22]  # 16, 18 and 20 voxels amid 24
    torch.testing.assert_close(inside.mean((1, 2, 3)), torch.zeros(4), atol=1e-4, rtol=0)
    torch.testing.assert_close(
        inside.std((1, 2, 3), correction=0), torch.ones(4), atol=1e-4, rtol=0
    )
    assert int((image != 0).sum()) <= inside.numel()  # what was added is 0


def test_standardisation_sees_the_whole_volume_though_it_is_cropped(tmp_path: Path) -> None:
    volume = np.zeros((24, 24, 24), np.float32)
    volume[8:16, 8:16, 8:16] = 1.0
    record = subject(tmp_path, {"t1c": volume})
    image = sample(record, modalities=["t1c"], roi_size=(8, 8, 8), with_seg=False)["image"]
    share = 8**3 / 24**3  # mean of a volume of zeros and ones; deviation sqrt(p(1 - p))
    expected = (1 - share) / np.sqrt(share * (1 - share))
    torch.testing.assert_close(image, torch.full((1, 8, 8, 8), expected, dtype=torch.float32))


def test_a_constant_modality_becomes_zero_and_not_infinite(tmp_path: Path) -> None:
    record = subject(tmp_path, {"t1c": np.full((8, 8, 8), 7.0, np.float32)})
    image = sample(record, modalities=["t1c"], roi_size=(8, 8, 8), with_seg=False)["image"]
    assert not image.any()


def test_a_sample_is_plain_tensors_of_the_promised_types(tmp_path: Path) -> None:
    record = subject(tmp_path, four(NOISE, LABELS))
    for pipeline in (
        train_pipeline(steps((16, 16, 16)), (16, 16, 16), with_seg=True),
        val_pipeline(steps((16, 16, 16)), with_seg=True),
    ):
        result = pipeline(record)
        assert result.keys() == {"image", "seg", "id"}
        assert result["id"] == "S-001-000"
        assert (result["image"].dtype, result["seg"].dtype) == (torch.float32, torch.uint8)
        assert (result["image"].shape, result["seg"].shape) == ((4, 16, 16, 16), (1, 16, 16, 16))
        assert not any(isinstance(value, MetaTensor) for value in result.values())


def test_without_seg_there_is_no_seg(tmp_path: Path) -> None:
    record = subject(tmp_path, {"t1c": NOISE})
    assert sample(record, modalities=["t1c"], with_seg=False).keys() == {"image", "id"}


@pytest.mark.parametrize("kind", [np.uint8, np.int16, np.float32, np.float64])
def test_labels_stay_labels_through_resampling(tmp_path: Path, kind: type) -> None:
    seg = LABELS.astype(kind)  # 0, 2 and 4: interpolation would make 1 and 3
    record = subject(tmp_path, four(NOISE, seg), rotated(15) @ np.diag([0.7, 1.3, 2.2, 1.0]))
    result = sample(record)["seg"]
    assert set(result.unique().tolist()) == {0, 2, 4}


@pytest.mark.parametrize("orientation", ["RAS", "LPS", "PIR", "SLA"])
def test_a_landmark_lands_at_one_place_however_it_is_stored(
    tmp_path: Path, orientation: str
) -> None:
    volume, seg = NOISE.copy(), np.zeros(NOISE.shape, np.uint8)
    volume[2, 5, 11], seg[2, 5, 11] = 1e4, 3
    record = subject(tmp_path, four(volume, seg), orientation=orientation)
    result = sample(record)
    # (16, 18, 20) padded to 24 gains 4, 3 and 2 voxels in front
    place = torch.tensor([2 + 4, 5 + 3, 11 + 2])
    assert torch.equal(result["seg"][0].nonzero()[0], place)
    brightest = torch.tensor(np.unravel_index(int(result["image"][0].argmax()), (24, 24, 24)))
    assert torch.equal(brightest, place)


def test_storage_makes_no_difference_to_any_voxel(tmp_path: Path) -> None:
    affine = np.diag([1.0, 1.0, 1.0, 1.0])
    affine[:3, 3] = -30, 12, 7
    ras = sample(subject(tmp_path / "ras", four(NOISE, LABELS), affine, "RAS"))
    lps = sample(subject(tmp_path / "lps", four(NOISE, LABELS), affine, "LPS"))
    torch.testing.assert_close(lps["image"], ras["image"])
    assert torch.equal(lps["seg"], ras["seg"])


def test_the_orientation_asked_for_is_the_one_delivered(tmp_path: Path) -> None:
    record = subject(tmp_path, four(NOISE, LABELS))
    ras, lps = sample(record, orientation="RAS"), sample(record, orientation="LPS")
    torch.testing.assert_close(lps["image"].flip(1, 2), ras["image"])  # R↔L and A↔P


# --- one grid


def test_another_shape_is_refused_with_subject_modality_and_both_shapes(tmp_path: Path) -> None:
    record = subject(tmp_path, four(NOISE) | {"t2f": NOISE[:, :12]})
    message = cause(record)
    assert message.startswith("subject S-001-000: t2f has shape (16, 12, 20)")
    assert "t1c has shape (16, 18, 20)" in message
    assert "dataset.align_to=t1c" in message


def test_the_segmentation_must_fit_too(tmp_path: Path) -> None:
    record = subject(tmp_path, four(NOISE, LABELS[..., :10]))
    assert cause(record).startswith("subject S-001-000: seg has shape (16, 18, 10)")


def test_one_shape_at_another_place_is_refused_with_both_places(tmp_path: Path) -> None:
    shifted = UNIT.copy()
    shifted[:3, 3] = 5, 0, 0
    affines = dict.fromkeys([*MODALITIES, "seg"], UNIT) | {"t2w": shifted}
    message = cause(subject(tmp_path, four(NOISE), affines))
    assert message.startswith("subject S-001-000: t2w has shape (16, 18, 20)")
    assert "from (5.00, 0.00, 0.00) to (20.00, 17.00, 19.00) mm" in message
    assert "from (0.00, 0.00, 0.00) to (15.00, 17.00, 19.00) mm" in message


def test_one_origin_with_other_axes_is_refused_with_both_ends(tmp_path: Path) -> None:
    affines = dict.fromkeys([*MODALITIES, "seg"], UNIT) | {"t2w": rotated(3)}
    message = cause(subject(tmp_path, four(NOISE), affines))
    assert "to (14.09, 17.76, 19.00) mm" in message  # 15 cos − 17 sin and 15 sin + 17 cos of 3°
    assert "to (15.00, 17.00, 19.00) mm" in message


@pytest.mark.parametrize(("shift", "fits"), [(0.09, True), (0.11, False)])  # mm on a 1 mm grid
def test_a_tenth_of_a_voxel_is_the_limit(tmp_path: Path, shift: float, fits: bool) -> None:
    shifted = UNIT.copy()
    shifted[2, 3] = shift
    affines = dict.fromkeys([*MODALITIES, "seg"], UNIT) | {"t2w": shifted}
    record = subject(tmp_path, four(NOISE), affines)
    if fits:
        assert sample(record)["image"].shape == (4, 24, 24, 24)
    else:
        assert "t2w" in cause(record)


def test_one_grid_in_two_storage_orders_is_one_grid(tmp_path: Path) -> None:
    record = subject(tmp_path / "ras", four(NOISE, LABELS))
    other = subject(tmp_path / "pir", {"t2w": NOISE}, orientation="PIR")
    image = sample(record | {"t2w": other["t2w"]})["image"]
    torch.testing.assert_close(image[3], image[0])


# --- align_to


def places(shape: Sequence[int], affine: np.ndarray) -> np.ndarray:
    """(x, y, z) in mm of every voxel, shape (3, D, H, W)."""
    return np.tensordot(affine[:3, :3], np.indices(shape), 1) + affine[:3, 3].reshape(3, 1, 1, 1)


def test_alignment_brings_every_voxel_to_its_place(tmp_path: Path) -> None:
    coarse = rotated(10) @ np.diag([2.0, 2.0, 3.0, 1.0])
    coarse[:3, 3] = -8, -12, -6  # covers the fine grid on every side
    fine, wide = places((12, 14, 16), UNIT), places((18, 18, 12), coarse)
    slope = np.array([1, 2, 3])  # a linear function of the place, which resampling keeps exactly
    volumes = {
        "t1c": np.tensordot(slope, fine, 1).astype(np.float32),
        "t1n": np.tensordot(slope, wide, 1).astype(np.float32),
        "seg": np.where(wide[2] > 7, 4, 0).astype(np.uint8),
    }
    record = subject(tmp_path, volumes, {"t1c": UNIT, "t1n": coarse, "seg": coarse})
    settings: dict[str, Any] = {"modalities": ["t1c", "t1n"], "roi_size": (12, 14, 16)}
    assert "dataset.align_to=t1c" in cause(record, **settings)
    result = sample(record, **settings, align_to="t1c")
    torch.testing.assert_close(result["image"][1], result["image"][0], atol=1e-4, rtol=0)
    assert set(result["seg"].unique().tolist()) == {0, 4}
    assert not result["seg"][..., : 7 - 3].any()  # the edge is at 7 mm; a slice is 3 mm
    assert (result["seg"][..., 7 + 3 :] == 4).all()


def test_what_an_aligned_volume_does_not_cover_is_finite(tmp_path: Path) -> None:
    away = UNIT.copy()
    away[:3, 3] = 10, 0, 0
    affines = {"t1c": UNIT, "t1n": away}
    record = subject(tmp_path, {"t1c": NOISE, "t1n": NOISE}, affines)
    changed: dict[str, Any] = {"modalities": ["t1c", "t1n"], "with_seg": False}
    image = sample(record, **changed, align_to="t1c")["image"]
    assert image.shape == (2, 24, 24, 24)
    assert image.isfinite().all()


def test_alignment_of_a_single_modality_has_nothing_to_do(tmp_path: Path) -> None:
    record = subject(tmp_path, {"t1c": NOISE})
    changed: dict[str, Any] = {"modalities": ["t1c"], "with_seg": False}
    aligned, plain = sample(record, **changed, align_to="t1c"), sample(record, **changed)
    assert torch.equal(aligned["image"], plain["image"])


# --- faster than MONAI's own steps, to the same end


@pytest.mark.parametrize("kind", [np.uint8, np.int16, np.float32])
def test_voxels_are_read_in_the_type_and_order_of_the_file(tmp_path: Path, kind: type) -> None:
    """Every copy of a whole volume that is spared here is time."""
    record = subject(tmp_path, {"t1c": NOISE.astype(kind)})
    load, first, oriented, spaced, *_ = steps(modalities=["t1c"], with_seg=False)
    volume = load(record)["t1c"]
    assert volume.numpy().dtype == kind
    assert volume.numpy().flags.f_contiguous
    item = spaced(oriented(first(load(record))))
    assert item["t1c"].numpy().dtype == kind
    assert item["t1c"].numpy().flags.f_contiguous


def test_volumes_of_which_one_has_another_spacing_are_all_spaced(tmp_path: Path) -> None:
    whole = NOISE.astype(np.int16)
    affines = {"t1c": UNIT, "t1n": np.diag([2.0, 1.0, 1.0, 1.0])}
    record = subject(tmp_path, {"t1c": whole, "t1n": whole[::2]}, affines)
    load, first, oriented, spaced, *_ = steps(modalities=["t1c", "t1n"], with_seg=False)
    item = spaced(oriented(first(load(record))))
    assert {item[key].dtype for key in ("t1c", "t1n")} == {torch.float32}
    np.testing.assert_array_equal(item["t1c"][0], whole)
    assert item["t1n"].shape == (1, 15, 18, 20)  # from the first voxel to the last: 7·2 + 1


def test_volumes_on_one_grid_are_resampled_at_once_to_the_bits_of_one_by_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = {key: np.roll(NOISE, i).astype(np.int16) for i, key in enumerate(MODALITIES)}
    affines = dict.fromkeys([*MODALITIES, "seg"], np.diag([0.8, 1.3, 2.0, 1.0]))
    affines["t2w"] = np.diag([1.6, 1.3, 1.0, 1.0])
    record = subject(tmp_path, values | {"seg": LABELS}, affines)
    load, first, oriented, spaced, *_ = steps()
    item = oriented(first(load(record)))
    keys, modes = [*MODALITIES, "seg"], [*["bilinear"] * 4, "nearest"]
    one_by_one = Spacingd(keys, pixdim=(1.0, 1.0, 1.0), mode=modes)(
        {key: item[key].contiguous() for key in keys}
    )
    sizes = []
    resample = Spacing.__call__

    def counted(self: Spacing, data_array: torch.Tensor, **how: Any) -> torch.Tensor:
        if not how.get("lazy"):  # where it is only planned nothing is resampled
            sizes.append(len(data_array))
        return resample(self, data_array, **how)

    monkeypatch.setattr(Spacing, "__call__", counted)
    together = spaced(item)
    assert sizes == [3, 1, 1]  # three modalities, the one on a grid of its own, the labels
    for key in keys:
        assert torch.equal(together[key].as_tensor(), one_by_one[key].as_tensor())
        assert torch.equal(together[key].affine, one_by_one[key].affine)


def test_a_sample_larger_than_the_crop_is_cropped_and_no_other() -> None:
    crop = RandCropIfLargerd(["image"], (4, 4, 4))
    for size in (4, 6):
        image = torch.rand(2, size, size, size)
        cropped = crop({"image": image})["image"]
        assert cropped.shape == (2, 4, 4, 4)
        assert (cropped is image) == (size == 4)


def plain_monai(nonzero: bool) -> Compose:
    """The same preprocessing of MONAI's transforms alone."""
    volumes = [*MODALITIES, "seg"]
    return Compose(
        [
            LoadImaged(volumes, image_only=True),
            EnsureChannelFirstd(volumes),
            Orientationd(volumes, axcodes="RAS", labels=None),
            Spacingd(volumes, pixdim=(1.0, 1.0, 1.0), mode=[*["bilinear"] * 4, "nearest"]),
            NormalizeIntensityd(MODALITIES, nonzero=nonzero, channel_wise=True),
            ConcatItemsd(MODALITIES, name="image"),
            ResizeWithPadOrCropd(["image", "seg"], spatial_size=(12, 20, 24)),
        ]
    )


@pytest.mark.filterwarnings("ignore:NvImgCodecPydicomReader")
@pytest.mark.parametrize("kind", [np.uint8, np.int16, np.uint16, np.int32, np.float32, np.float64])
@pytest.mark.parametrize(
    ("orientation", "spacing"), [("RAS", (1, 1, 1)), ("LPS", (1, 1, 1)), ("PIR", (0.8, 1.3, 2.0))]
)
@pytest.mark.parametrize("nonzero", [False, True])
def test_the_result_is_that_of_plain_monai(
    tmp_path: Path,
    kind: type,
    orientation: str,
    spacing: tuple[float, float, float],
    nonzero: bool,
) -> None:
    volume = np.clip(NOISE, 0, 255).astype(kind)
    volume[:, :3] = 0  # background
    record = subject(tmp_path, four(volume, LABELS), np.diag([*spacing, 1.0]), orientation)
    expected = plain_monai(nonzero)(record)
    result = sample(record, roi_size=(12, 20, 24), nonzero=nonzero)
    # Values are of order 1; means that were summed in another order differ in the last digits.
    torch.testing.assert_close(result["image"], expected["image"].as_tensor(), atol=2e-6, rtol=0)
    assert torch.equal(result["seg"], expected["seg"].as_tensor().to(torch.uint8))


def test_background_stays_at_0_where_only_nonzero_voxels_are_standardised(tmp_path: Path) -> None:
    volume = np.clip(NOISE, 1, 255).astype(np.int16)
    volume[:, :3] = 0
    image = sample(subject(tmp_path, four(volume, LABELS)), nonzero=True)["image"]
    brain = image != 0
    for channel, inside in zip(image, brain, strict=True):
        assert abs(float(channel[inside].mean())) < 1e-5
        assert abs(float(channel[inside].std(correction=0)) - 1) < 1e-5
    assert (~brain).any()


def test_the_bits_do_not_depend_on_the_number_of_threads(tmp_path: Path) -> None:
    """MONAI's own do, so that what is cached by a worker would differ from what is read alone."""
    large = np.random.default_rng(0).normal(100, 20, (64, 64, 64)).astype(np.float32)
    record = subject(tmp_path, {"t1c": large})
    changed: dict[str, Any] = {"modalities": ["t1c"], "with_seg": False, "roi_size": (64, 64, 64)}
    before = torch.get_num_threads()
    images = []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            images.append(sample(record, **changed)["image"])
    finally:
        torch.set_num_threads(before)
    assert torch.equal(*images)


@pytest.mark.parametrize("offset", [0.0, 0.1, -3e4, 1e6])
def test_mean_and_deviation_are_exact_far_from_zero(offset: float) -> None:
    voxels = (np.random.default_rng(0).normal(size=(50, 41, 37)) + offset).astype(np.float32)
    mean, deviation = mean_and_deviation(voxels)
    assert mean == pytest.approx(voxels.astype(np.float64).mean(), rel=1e-12)
    assert deviation == pytest.approx(voxels.astype(np.float64).std(), rel=1e-9)
    assert mean_and_deviation(np.full((40, 40, 40), offset, np.float32)) == (
        pytest.approx(np.float32(offset)),
        0.0,
    )
