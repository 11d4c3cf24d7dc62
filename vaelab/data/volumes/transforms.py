"""Preprocessing of multi-modal volumes as MONAI dict transforms.

``preprocessing`` is deterministic and can be cached; what is random comes after it.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor, NibabelReader
from monai.data.utils import AFFINE_TOL
from monai.transforms import (
    CastToTyped,
    Compose,
    ConcatItemsd,
    EnsureChannelFirstd,
    LoadImaged,
    MapLabelValued,
    MapTransform,
    NormalizeIntensityd,
    Orientationd,
    RandSpatialCropd,
    ResampleToMatchd,
    ResizeWithPadOrCropd,
    SelectItemsd,
    Spacingd,
    ToTensord,
)

from vaelab.data.volumes.crop import CentredOnBrain
from vaelab.data.volumes.intensity import Standardised
from vaelab.data.volumes.settings import CROP_BRAIN, VolumeSettings
from vaelab.data.volumes.voxels import read_voxels
from vaelab.errors import UserError

# Grids that agree to a tenth of a voxel are one grid: headers are rounded when they are written.
GRID_TOLERANCE = 0.1


class CheckSameGridd(MapTransform):
    """Pass volumes on unchanged if they share one grid: the same shape, origin and axes.

    Raises:
        UserError: naming the subject, the modality, both shapes (or positions) and the cure.
    """

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Compare every key with the first."""
        result = dict(data)
        first, *others = self.key_iterator(result)
        reference: MetaTensor = result[first]
        for key in others:
            volume: MetaTensor = result[key]
            if volume.shape != reference.shape:
                here, there = _size(volume), _size(reference)
            elif not _same_affine(volume, reference):
                here, there = _position(volume), _position(reference)
            else:
                continue
            raise UserError(
                f"subject {data['id']}: {key} has {here} after spacing, {first} has {there}; "
                f"one grid is needed. Set dataset.align_to={first} to resample the others onto it"
            )
        return result


class StoredTypeReader(NibabelReader):
    """NIfTI voxels as they are stored where that is smaller than float32, so that less is moved.

    They also stay in the order they are stored in: MONAI would turn them into C's order, which
    takes as long as decoding them. Damage is an error; see ``read_voxels``.
    """

    def get_data(self, img: Any) -> tuple[Any, dict[str, Any]]:
        """Voxels as a tensor, whose axes MONAI leaves as they are, and what the header says."""
        voxels, meta = super().get_data(img)
        return torch.from_numpy(voxels), meta

    def _get_array_data(self, img: Any, filename: Any) -> np.ndarray:
        # Not by filename, which comes from a field of this object: several threads share it.
        voxels = read_voxels(img)
        with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite, and is seen
            smaller: np.ndarray = voxels.astype(_working_type(voxels.dtype), copy=False)
        return smaller


def _working_type(stored: np.dtype) -> type:
    return {"u1": np.uint8, "i2": np.int16}.get(stored.str[1:], np.float32)


class SpacedIfNeededd(Spacingd):
    """MONAI's ``Spacingd``, which leaves volumes alone that have the spacing already.

    MONAI does not resample those either, but makes float32 of them. Volumes that share a grid are
    resampled as channels of one: where each voxel comes from is then found once for all.
    """

    def __call__(
        self, data: Mapping[Hashable, torch.Tensor], lazy: bool | None = None
    ) -> dict[Hashable, torch.Tensor]:
        """Space volumes of shape (1, D, H, W)."""
        result = dict(data)
        keys = list(self.key_iterator(result))
        if all(self._is_spaced(result[key]) for key in keys):
            return result
        for (*_, mode), group in self._on_one_grid(result).items():
            # Contiguous: resampling walks along the last axis.
            stacked = torch.cat([result[key].contiguous() for key in group])
            spaced = self.spacing_transform(stacked, mode=mode, lazy=lazy)
            result |= {key: spaced[i : i + 1] for i, key in enumerate(group)}
        return result

    def _on_one_grid(
        self, data: Mapping[Hashable, torch.Tensor]
    ) -> dict[tuple[Any, ...], list[Hashable]]:
        """Shape, affine and mode of interpolation → keys of the volumes that share them."""
        groups: dict[tuple[Any, ...], list[Hashable]] = {}
        for key, mode in self.key_iterator(data, self.mode):
            volume = data[key]
            assert isinstance(volume, MetaTensor)
            grid = tuple(volume.shape), tuple(volume.affine.flatten().tolist()), mode
            groups.setdefault(grid, []).append(key)
        return groups

    def _is_spaced(self, volume: torch.Tensor) -> bool:
        assert isinstance(volume, MetaTensor)
        planned = self.spacing_transform(volume, lazy=True)  # touches no voxel
        assert isinstance(planned, MetaTensor)
        return tuple(planned.peek_pending_shape()) == tuple(volume.shape[1:]) and np.allclose(
            planned.peek_pending_affine(), volume.affine, rtol=0, atol=AFFINE_TOL
        )


def preprocessing(settings: VolumeSettings) -> list[Any]:
    """The deterministic transforms: a record of paths → ``image`` and ``seg`` at ``roi_size``.

    ``image`` is float32 of shape (C, D, H, W), ``seg`` uint8 labels of shape (1, D, H, W).
    """
    volumes, modalities, align_to = settings.keys, settings.modalities, settings.align_to
    seg = [key for key in volumes if key not in modalities]
    modes = dict.fromkeys(modalities, "bilinear") | dict.fromkeys(seg, "nearest")
    spaced = [align_to] if align_to else volumes
    matched = [key for key in volumes if key not in spaced]
    align = []
    if align_to and matched:
        modes_matched = [modes[key] for key in matched]
        align = [ResampleToMatchd(matched, key_dst=align_to, mode=modes_matched)]
    sources = [source for source, _ in settings.label_map]
    targets = [target for _, target in settings.label_map]
    mapped = [MapLabelValued(seg, sources, targets)] if sources and seg else []
    return [
        _load(volumes),
        *mapped,
        EnsureChannelFirstd(volumes),
        # labels=None: take the axes from the affine, where MONAI's default labels warn.
        Orientationd(volumes, axcodes=settings.orientation, labels=None),
        SpacedIfNeededd(spaced, pixdim=settings.spacing, mode=[modes[key] for key in spaced]),
        *align,
        CheckSameGridd(volumes),
        *([CentredOnBrain(volumes)] if settings.crop == CROP_BRAIN else []),
        *settings.intensity(),
        ResizeWithPadOrCropd(volumes, spatial_size=settings.roi_size),  # first: less to concatenate
        ConcatItemsd(modalities, name="image"),
        SelectItemsd(["image", *seg, "id"]),  # the single modalities would double the cache
        CastToTyped(["image", *seg], dtype=[torch.float32, *([torch.uint8] * len(seg))]),
    ]


def plain_pipeline(settings: VolumeSettings) -> Compose:
    """What one would write with MONAI alone for the same samples."""
    volumes, modalities = settings.keys, settings.modalities
    modes = ["bilinear" if key in modalities else "nearest" for key in volumes]
    intensity = [
        NormalizeIntensityd(step.keys, nonzero=step.nonzero, channel_wise=True)
        if isinstance(step, Standardised)
        else step
        for step in settings.intensity()
    ]
    return Compose(
        [
            LoadImaged(volumes, image_only=True),
            EnsureChannelFirstd(volumes),
            Orientationd(volumes, axcodes=settings.orientation, labels=None),
            Spacingd(volumes, pixdim=settings.spacing, mode=modes),
            *([CentredOnBrain(volumes)] if settings.crop == CROP_BRAIN else []),
            *intensity,
            ConcatItemsd(modalities, name="image"),
            ResizeWithPadOrCropd(
                ["image", *volumes[len(modalities) :]], spatial_size=settings.roi_size
            ),
        ]
    )


class RandCropIfLargerd(RandSpatialCropd):
    """MONAI's ``RandSpatialCropd``, which leaves samples alone that have the size already.

    MONAI writes down that it moved nothing, which takes as long as reading a small sample.

    Args:
        keys: of the tensors, all of one size.
        roi_size: (D, H, W) of the crop.
    """

    def __init__(self, keys: Sequence[str], roi_size: Sequence[int]) -> None:
        super().__init__(keys, roi_size=tuple(roi_size), random_size=False)
        self.roi_size = tuple(roi_size)

    def __call__(
        self, data: Mapping[Hashable, torch.Tensor], lazy: bool | None = None
    ) -> dict[Hashable, torch.Tensor]:
        """Crop tensors of shape (C, D, H, W)."""
        if all(tuple(data[key].shape[1:]) == self.roi_size for key in self.keys):
            return dict(data)
        cropped: dict[Hashable, torch.Tensor] = super().__call__(data, lazy)
        return cropped


def train_pipeline(
    deterministic: Sequence[Any], roi_size: Sequence[int], with_seg: bool
) -> Compose:
    """Preprocessing, a random crop of ``roi_size``, tensors.

    The crop equals the padded size and so moves nothing today; it is the place where an
    experiment with larger padding starts to vary.
    """
    keys = _batch_keys(with_seg)
    crop = RandCropIfLargerd(keys, roi_size)
    return Compose([*deterministic, crop, *_to_batch(with_seg)])


def val_pipeline(deterministic: Sequence[Any], with_seg: bool) -> Compose:
    """Preprocessing and tensors; nothing random."""
    return Compose([*deterministic, *_to_batch(with_seg)])


def _load(volumes: Sequence[str]) -> LoadImaged:
    # Where pydicom is installed, MONAI announces a GPU decoder of DICOM that is not there.
    logging.getLogger("monai.data.nvimgcodec_pydicom_plugin").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="NvImgCodecPydicomReader")
        reader: Any = StoredTypeReader()  # MONAI's annotation leaves instances out
        return LoadImaged(volumes, reader=reader, dtype=None, image_only=True)


def _batch_keys(with_seg: bool) -> list[str]:
    return ["image", "seg"] if with_seg else ["image"]


def _to_batch(with_seg: bool) -> list[Any]:
    """Plain tensors. The records of applied transforms that MONAI leaves beside them are dropped:
    they hold objects that a cache entry could not be read back with.
    """
    keys = _batch_keys(with_seg)
    return [ToTensord(keys, track_meta=False), SelectItemsd([*keys, "id"])]


def _size(volume: MetaTensor) -> str:
    return f"shape {tuple(volume.shape[1:])}"


def _position(volume: MetaTensor) -> str:
    ends = torch.tensor([[0, 0, 0, 1], [*(side - 1 for side in volume.shape[1:]), 1]])
    first, last = (ends.to(volume.affine) @ volume.affine.T)[:, :3].tolist()
    origin, end = (", ".join(f"{value:.2f}" for value in corner) for corner in (first, last))
    return f"shape {tuple(volume.shape[1:])} and reaches from ({origin}) to ({end}) mm"


def _same_affine(one: MetaTensor, other: MetaTensor) -> bool:
    """Whether all corners of two equally large grids lie within GRID_TOLERANCE voxels."""
    far = np.array([*one.shape[1:]], dtype=float) - 1
    corners = np.array(np.meshgrid(*[(0.0, end) for end in far])).reshape(3, -1)
    corners = np.vstack([corners, np.ones((1, corners.shape[1]))])
    a, b = np.asarray(one.affine), np.asarray(other.affine)
    distance = np.linalg.norm((a @ corners - b @ corners)[:3], axis=0)
    voxel = np.linalg.norm(a[:3, :3], axis=0).min()
    return bool((distance <= GRID_TOLERANCE * voxel).all())
