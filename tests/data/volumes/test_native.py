"""Claims about where an anomaly map lies in the input's own space."""

from __future__ import annotations

from functools import partial
from itertools import permutations, product
from pathlib import Path

import nibabel
import numpy as np
import pytest
from nibabel.orientations import axcodes2ornt, io_orientation, ornt_transform
from scipy import ndimage
from scipy.spatial.transform import Rotation

from vaelab.data.volumes.inputs import read_volume
from vaelab.data.volumes.layouts import series_by_name
from vaelab.data.volumes.native import save_native, to_native
from vaelab.data.volumes.settings import VolumeSettings

ORIENTATIONS = [
    "".join(codes) for axes in permutations(("LR", "PA", "IS")) for codes in product(*axes)
]
OBLIQUE = Rotation.from_euler("xyz", (12, -8, 20), degrees=True).as_matrix()
SIGMA = 4.0  # mm, of the blob that marks a place


def grid(spacing: tuple[float, ...], axes: np.ndarray = OBLIQUE) -> np.ndarray:
    """Affine of a turned grid with voxels of ``spacing`` mm."""
    affine = np.eye(4)
    affine[:3, :3] = axes @ np.diag(spacing)
    affine[:3, 3] = -31, 12, 7.5
    return affine


def world(affine: np.ndarray, index: object) -> np.ndarray:
    return np.asarray(nibabel.affines.apply_affine(affine, index))


def blob(shape: tuple[int, ...], affine: np.ndarray, place: np.ndarray) -> np.ndarray:
    """A Gaussian about a point of the world."""
    points = world(affine, np.moveaxis(np.indices(shape), 0, -1))
    return np.exp(-((points - place) ** 2).sum(-1) / (2 * SIGMA**2)).astype(np.float32)


def written(
    folder: Path,
    volume: np.ndarray,
    affine: np.ndarray,
    orientation: str = "RAS",
    qform: np.ndarray | None = None,
) -> Path:
    """A subject of one series, stored along other axes."""
    folder.mkdir(exist_ok=True)
    image = nibabel.Nifti1Image(volume, affine)
    there = ornt_transform(io_orientation(affine), axcodes2ornt(orientation))
    image = image.as_reoriented(there)
    image.set_sform(image.affine, code="scanner")
    image.set_qform(image.affine if qform is None else qform, code="aligned")
    image.header["cal_max"] = 900
    image.header.extensions.append(nibabel.nifti1.Nifti1Extension("comment", b"of the scan"))
    path = folder / f"{folder.name}-t1c.nii.gz"
    nibabel.save(image, path)
    return path


def there_and_back(
    folder: Path, original: Path, roi_size: int, spacing: float = 1.0, orientation: str = "RAS"
) -> nibabel.Nifti1Image:
    """A subject read as the model sees it; its brightest part, written back as if it were heat."""
    settings = VolumeSettings(("t1c",), (roi_size,) * 3, (spacing,) * 3, orientation)
    find_series = partial(series_by_name, pattern="*-{key}.nii.gz", keys=["t1c"])
    volume = read_volume(original.parent, find_series, settings)
    assert volume.affine is not None
    seen = volume.image[0].numpy()
    heat = np.clip(seen - 0.3 * seen.max(), 0, None)
    save_native(heat, volume.affine, volume.original, folder / "map.nii.gz")
    return nibabel.load(folder / "map.nii.gz")


def centre(image: nibabel.Nifti1Image) -> np.ndarray:
    """Centre of mass in mm of the world."""
    return world(image.affine, ndimage.center_of_mass(image.get_fdata()))


def test_there_are_48_ways_to_store_a_volume() -> None:
    assert len(set(ORIENTATIONS)) == 48


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_a_blob_comes_back_to_its_place_however_it_is_stored(
    tmp_path: Path, orientation: str
) -> None:
    shape, affine = (30, 26, 14), grid((1.1, 0.9, 2.5))  # 33 × 23 × 35 mm
    place = world(affine, [16.4, 11.7, 6.2])
    path = written(tmp_path / "S", blob(shape, affine, place), affine, orientation)
    returned = there_and_back(tmp_path, path, roi_size=28)  # crops two axes, pads the other
    original = nibabel.load(path)
    assert returned.shape == original.shape
    assert np.array_equal(returned.affine, original.affine)
    assert np.linalg.norm(centre(returned) - place) < 0.2  # mm; half a voxel is 0.45


@pytest.mark.parametrize("orientation", ["RAS", "LPS", "SRA"])  # of the network's grid
@pytest.mark.parametrize(
    ("shape", "spacing", "roi_size", "roi_spacing"),
    [
        ((24, 26, 28), (1.0, 1.0, 1.0), 32, 1.0),  # smaller than the roi
        ((44, 46, 49), (1.0, 1.0, 1.0), 32, 1.0),  # larger, even and odd
        ((50, 50, 9), (0.8, 0.8, 5.0), 48, 1.0),  # thick slices
        ((45, 46, 47), (1.0, 1.0, 1.0), 32, 2.0),  # to a coarser grid
        ((24, 24, 24), (2.5, 2.0, 2.2), 64, 1.0),  # to a finer one
    ],
)
def test_a_blob_comes_back_to_its_place_whatever_was_cropped_and_resampled(
    tmp_path: Path,
    shape: tuple[int, ...],
    spacing: tuple[float, ...],
    roi_size: int,
    roi_spacing: float,
    orientation: str,
) -> None:
    affine = grid(spacing)
    place = world(affine, np.array(shape) * 0.48)
    path = written(tmp_path / "S", blob(shape, affine, place), affine)
    returned = there_and_back(tmp_path, path, roi_size, roi_spacing, orientation)
    assert returned.shape == shape
    assert np.linalg.norm(centre(returned) - place) < min(*spacing, roi_spacing) / 2


def test_both_forms_of_the_header_are_kept_though_they_differ(tmp_path: Path) -> None:
    affine, other = grid((1.0, 1.0, 2.0)), grid((1.0, 1.0, 2.0), np.eye(3))
    volume = blob((20, 20, 10), affine, world(affine, [10, 10, 5]))
    path = written(tmp_path / "S", volume, affine, "LPS", qform=other)
    returned, original = there_and_back(tmp_path, path, 16), nibabel.load(path)
    for form in ("get_sform", "get_qform"):
        matrix, code = getattr(returned, form)(coded=True)
        expected, expected_code = getattr(original, form)(coded=True)
        assert np.array_equal(matrix, expected)
        assert code == expected_code
    assert returned.header.get_xyzt_units() == original.header.get_xyzt_units()


def test_what_the_header_says_of_the_scan_is_not_said_of_the_map(tmp_path: Path) -> None:
    affine = grid((1.0, 1.0, 1.0))
    volume = (1000 * blob((20, 20, 20), affine, world(affine, [9, 9, 9]))).astype(np.int16)
    returned = there_and_back(tmp_path, written(tmp_path / "S", volume, affine), 16)
    assert returned.get_data_dtype() == np.float32
    assert (returned.header["cal_max"], len(returned.header.extensions)) == (0, 0)


def test_where_the_network_did_not_look_the_map_is_zero() -> None:
    heat = np.ones((4, 4, 4), np.float32)
    affine = np.eye(4)
    affine[:3, 3] = 3  # voxels 3 to 6 of ten
    native = to_native(heat, affine, (10, 10, 10), np.eye(4))
    expected = np.zeros((10, 10, 10), np.float32)
    expected[3:7, 3:7, 3:7] = 1
    np.testing.assert_array_equal(native, expected)


def test_the_outermost_voxels_keep_their_heat_up_to_their_faces() -> None:
    coarse = np.diag([4.0, 4.0, 4.0, 1.0])
    coarse[:3, 3] = 1.5  # each voxel covers four of the fine grid: 0 to 3, 4 to 7, ...
    heat = np.full((2, 2, 2), 5.0, np.float32)
    native = to_native(heat, coarse, (12, 12, 12), np.eye(4))
    assert (native[:8, :8, :8] == 5).all()
    assert native.sum() == pytest.approx(5 * 8**3)


def test_a_map_on_the_same_grid_is_the_same_map() -> None:
    heat = np.random.default_rng(0).normal(size=(7, 8, 9)).astype(np.float32)
    affine = grid((0.7, 1.3, 3.1))
    np.testing.assert_allclose(to_native(heat, affine, heat.shape, affine), heat, atol=1e-6)
    turned = nibabel.Nifti1Image(heat, affine).as_reoriented(
        ornt_transform(axcodes2ornt("RAS"), axcodes2ornt("SPL"))
    )
    back = to_native(turned.get_fdata(), turned.affine, heat.shape, affine)
    np.testing.assert_allclose(back, heat, atol=1e-6)


def test_equal_maps_are_equal_files(tmp_path: Path) -> None:
    affine = grid((1.0, 1.0, 1.0))
    path = written(tmp_path / "S", blob((8, 8, 8), affine, affine[:3, 3]), affine)
    for name in ("one", "two"):
        save_native(np.ones((8, 8, 8)), affine, path, tmp_path / f"{name}.nii.gz")
    assert (tmp_path / "one.nii.gz").read_bytes() == (tmp_path / "two.nii.gz").read_bytes()
