"""What the MRI phantoms promise, on coarse (4 mm) and few ones."""

from __future__ import annotations

import csv
import sys
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage

from vaelab.data.phantoms import head
from vaelab.data.phantoms import mri as phantom_mri
from vaelab.data.phantoms.mri import PhantomMRI
from vaelab.data.phantoms.scan import draw_phantom
from vaelab.errors import UserError

SUFFIXES = ("seg", "t1c", "t1n", "t2f", "t2w")
CONTRASTS = SUFFIXES[1:]
SUBJECTS = (
    "BraTS-MEN-00001-000",
    "BraTS-MEN-00001-001",
    "BraTS-MEN-00002-000",
    "BraTS-MEN-00003-000",
)
ODD = "BraTS-MEN-00003-000"  # patients 3, 8, 13, ... are stored unlike the rest
COHORT = PhantomMRI(num_patients=3, num_followups=1, voxel_size=4.0, seed=0)


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return COHORT.prepare(tmp_path_factory.mktemp("data"))


def load(cohort: Path, subject: str, suffix: str) -> nib.Nifti1Image:
    image = nib.load(cohort / subject / f"{subject}-{suffix}.nii.gz")
    assert isinstance(image, nib.Nifti1Image)
    return image


def voxels(image: nib.Nifti1Image) -> NDArray[Any]:
    return np.asarray(image.dataobj)


def dice(a: NDArray[np.bool_], b: NDArray[np.bool_]) -> float:
    return float(2 * (a & b).sum() / (a.sum() + b.sum()))


def nonzero_on(
    affine: NDArray[Any], shape: tuple[int, ...], image: nib.Nifti1Image
) -> NDArray[np.bool_]:
    """Where ``image`` is not zero, carried to another grid by the two affines alone."""
    world = nib.affines.apply_affine(affine, np.argwhere(np.ones(shape)))
    stored = nib.affines.apply_affine(np.linalg.inv(image.affine), world).T
    there = (voxels(image) > 0).astype(np.float32)
    return np.asarray(ndimage.map_coordinates(there, stored, order=1) > 0.5).reshape(shape)


def factors(cohort: Path) -> dict[str, dict[str, str]]:
    with (cohort / "factors.csv").open(encoding="utf-8") as file:
        return {row["id"]: row for row in csv.DictReader(file)}


def contents(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


# --- the tree


def test_the_tree_is_named_like_brats_men(cohort: Path) -> None:
    expected = {f"{s}/{s}-{suffix}.nii.gz" for s in SUBJECTS for suffix in SUFFIXES}
    assert set(contents(cohort)) == expected | {"factors.csv"}


def test_images_are_int16_and_segmentations_uint8(cohort: Path) -> None:
    for subject in SUBJECTS:
        assert load(cohort, subject, "seg").get_data_dtype() == np.uint8
        for contrast in CONTRASTS:
            assert load(cohort, subject, contrast).get_data_dtype() == np.int16


def test_the_five_files_of_a_subject_share_one_grid(cohort: Path) -> None:
    for subject in SUBJECTS:
        grids = [load(cohort, subject, suffix) for suffix in SUFFIXES]
        assert len({image.shape for image in grids}) == 1
        for image in grids:
            np.testing.assert_array_equal(image.affine, grids[0].affine)
            np.testing.assert_allclose(image.get_qform(), image.get_sform(), atol=1e-4)


# --- the images


def test_background_is_exactly_zero_and_the_same_in_every_contrast(cohort: Path) -> None:
    for subject in SUBJECTS:
        brains = [voxels(load(cohort, subject, contrast)) > 0 for contrast in CONTRASTS]
        assert all(np.array_equal(brain, brains[0]) for brain in brains)
        assert 0.1 < brains[0].mean() < 0.4  # a brain of 1 to 2.5 litres in 8.3 litres of view


def test_no_head_is_cut_off_by_the_field_of_view(cohort: Path) -> None:
    for subject in SUBJECTS:
        brain = voxels(load(cohort, subject, "t1n")) > 0
        assert brain.sum() == brain[1:-1, 1:-1, 1:-1].sum()


def test_fluid_is_dark_on_t1_and_flair_and_bright_on_t2(cohort: Path) -> None:
    """The brightest twentieth of T2 outside the tumour is fluid."""
    t1n, t2f, t2w, seg = (
        voxels(load(cohort, "BraTS-MEN-00002-000", s)) for s in ("t1n", "t2f", "t2w", "seg")
    )
    healthy = (t1n > 0) & (seg == 0)
    fluid = healthy & (t2w > np.percentile(t2w[healthy], 95))
    for series in (t1n, t2f):
        assert np.median(series[fluid]) < 0.8 * np.median(series[healthy])


# --- the tumour


def test_labels_are_those_of_brats_and_every_tumour_enhances(cohort: Path) -> None:
    for subject in SUBJECTS:
        labels = set(np.unique(voxels(load(cohort, subject, "seg"))).tolist())
        assert {0, 3} <= labels <= {0, 1, 2, 3}


def test_oedema_and_core_both_occur_in_the_cohort(cohort: Path) -> None:
    seen = {label for s in SUBJECTS for label in np.unique(voxels(load(cohort, s, "seg")))}
    assert seen == {0, 1, 2, 3}


def test_a_tumour_lies_in_the_brain_and_touches_its_border(cohort: Path) -> None:
    for subject in SUBJECTS:
        brain = voxels(load(cohort, subject, "t1n")) > 0
        tumour = np.isin(voxels(load(cohort, subject, "seg")), (1, 3))
        border = brain & ~ndimage.binary_erosion(brain)
        assert not (tumour & ~brain).any()
        assert (tumour & border).any()


def test_a_tumour_is_one_piece(cohort: Path) -> None:
    for subject in SUBJECTS:
        _, pieces = ndimage.label(np.isin(voxels(load(cohort, subject, "seg")), (1, 3)))
        assert pieces == 1


def test_contrast_agent_lights_up_the_enhancing_part_alone(cohort: Path) -> None:
    for subject in SUBJECTS:
        t1n, t1c, seg = (voxels(load(cohort, subject, s)) for s in ("t1n", "t1c", "seg"))
        healthy = (seg == 0) & (t1n > 0)
        in_tumour = np.median(t1c[seg == 3] / t1n[seg == 3])
        assert in_tumour > 1.5 * np.median(t1c[healthy] / t1n[healthy])


def test_a_followup_shows_the_same_head_with_a_larger_tumour(cohort: Path) -> None:
    before, after = "BraTS-MEN-00001-000", "BraTS-MEN-00001-001"
    then, now = (voxels(load(cohort, s, "seg")) for s in (before, after))
    assert np.isin(now, (1, 3)).sum() > 1.2 * np.isin(then, (1, 3)).sum()
    t1_then, t1_now = (voxels(load(cohort, s, "t1n")) for s in (before, after))
    np.testing.assert_array_equal(t1_then > 0, t1_now > 0)
    healthy = (t1_then > 0) & (then == 0) & (now == 0)
    assert not np.array_equal(t1_then[healthy], t1_now[healthy])  # another day, another noise

    t1_other = voxels(load(cohort, "BraTS-MEN-00002-000", "t1n"))
    same_head = np.corrcoef(t1_then[healthy], t1_now[healthy])[0, 1]
    other_head = np.corrcoef(t1_then[healthy], t1_other[healthy])[0, 1]
    assert same_head > 0.8 > 1.5 * other_head  # at 4 mm, all brains are a little alike


# --- odd subjects


def test_the_third_patient_is_stored_unlike_the_others(cohort: Path) -> None:
    storage = {
        s: (
            "".join(nib.aff2axcodes(load(cohort, s, "seg").affine)),
            tuple(float(step) for step in load(cohort, s, "seg").header.get_zooms()),
        )
        for s in SUBJECTS
    }
    odd = storage.pop(ODD)
    assert odd == ("LPS", (3.0, 3.0, 8.0))
    assert set(storage.values()) == {("RAS", (4.0, 4.0, 4.0))}


@pytest.mark.parametrize("number", [3, 8, 13])
def test_an_odd_file_shows_the_head_and_tumour_of_a_usual_one(tmp_path: Path, number: int) -> None:
    """One patient on both grids, compared in world mm: the whole affine is held, sides included."""
    average = head.load_average_brain()
    usual_grid = head.grid_of(1, voxel_size=4.0)
    usual = draw_phantom(average, usual_grid, seed=0, number=number, time_point=0)
    odd_grid = head.grid_of(number, voxel_size=4.0)
    odd = draw_phantom(average, odd_grid, seed=0, number=number, time_point=0)
    phantom_mri._write_subject(tmp_path / "odd", odd, odd_grid)
    assert odd_grid.orientation != usual_grid.orientation

    def on_usual_grid(suffix: str) -> NDArray[np.bool_]:
        image = load(tmp_path, "odd", suffix)
        return nonzero_on(usual_grid.affine, usual.seg.shape, image)

    assert dice(on_usual_grid("t1n"), usual.series["t1n"] > 0) > 0.95
    assert dice(on_usual_grid("seg"), usual.seg > 0) > 0.7  # a few voxels wide: not more
    assert dice(on_usual_grid("seg")[::-1], usual.seg > 0) < 0.5  # left is left


def test_an_odd_brain_overlaps_its_neighbours_and_is_upright(cohort: Path) -> None:
    odd = load(cohort, ODD, "t1n")
    for subject in set(SUBJECTS) - {ODD}:
        neighbour = load(cohort, subject, "t1n")
        brain = voxels(neighbour) > 0
        odd_brain = nonzero_on(neighbour.affine, neighbour.shape, odd)
        assert dice(odd_brain, brain) > 0.8  # heads differ by up to a fifth in size
        assert dice(odd_brain, brain) > dice(odd_brain[:, :, ::-1], brain) + 0.05  # not on its head
        assert dice(odd_brain, brain) > dice(odd_brain[:, ::-1], brain) + 0.05  # not back to front


# --- factors.csv


def test_factors_tell_the_truth_about_volume_centre_and_storage(cohort: Path) -> None:
    rows = factors(cohort)
    assert tuple(rows) == SUBJECTS
    for subject, row in rows.items():
        image = load(cohort, subject, "seg")
        tumour = np.isin(voxels(image), (1, 3))
        voxel_volume = abs(np.linalg.det(image.affine[:3, :3]))
        centre = nib.affines.apply_affine(image.affine, np.argwhere(tumour).mean(axis=0))
        assert float(row["tumour_volume_mm3"]) == pytest.approx(tumour.sum() * voxel_volume, 1e-4)
        assert [float(row[f"tumour_{axis}_mm"]) for axis in "xyz"] == pytest.approx(centre, abs=0.1)
        assert row["orientation"] == "".join(nib.aff2axcodes(image.affine))
        assert [float(s) for s in row["spacing_mm"].split("x")] == pytest.approx(
            [float(s) for s in image.header.get_zooms()]
        )


# --- determinism


def test_the_same_seed_writes_the_same_bytes(
    cohort: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("time.time", lambda: 1e9)  # another day, for whoever stamps files
    assert contents(COHORT.prepare(tmp_path)) == contents(cohort)


def test_another_seed_draws_other_patients(cohort: Path, tmp_path: Path) -> None:
    other = PhantomMRI(num_patients=2, num_followups=0, voxel_size=4.0, seed=1).prepare(tmp_path)
    name = "BraTS-MEN-00002-000/BraTS-MEN-00002-000-t1n.nii.gz"
    assert contents(other)[name] != contents(cohort)[name]


def test_a_patient_does_not_depend_on_the_size_of_the_cohort(cohort: Path, tmp_path: Path) -> None:
    smaller = PhantomMRI(num_patients=2, num_followups=0, voxel_size=4.0, seed=0)
    drawn = contents(smaller.prepare(tmp_path))
    del drawn["factors.csv"]
    assert drawn.items() <= contents(cohort).items()


def test_every_parameter_is_in_the_name_of_the_folder(cohort: Path) -> None:
    version = phantom_mri.GENERATOR_VERSION
    assert cohort.name == f"phantom_mri-v{version}-3patients-1followups-4.0mm-seed0"


# --- writing once, whole


def test_a_second_call_returns_without_writing(
    cohort: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(phantom_mri, "_write_cohort")
    assert COHORT.prepare(cohort.parent) == cohort


def test_an_interrupted_write_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(folder: Path, *_: object) -> None:
        (folder / "BraTS-MEN-00001-000").mkdir()
        raise KeyboardInterrupt

    monkeypatch.setattr(phantom_mri, "_write_cohort", interrupted)
    with pytest.raises(KeyboardInterrupt):
        COHORT.prepare(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_process_left_is_not_mistaken_for_a_cohort(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A killed process cannot clean up: its folder stays, under a name nobody asks for."""
    monkeypatch.setattr("shutil.rmtree", lambda *_args, **_kwargs: None)
    monkeypatch.setattr(phantom_mri, "_write_cohort", lambda *_: sys.exit(1))
    with pytest.raises(SystemExit):
        COHORT.prepare(tmp_path)
    assert len(list(tmp_path.iterdir())) == 1
    monkeypatch.setattr(phantom_mri, "_write_cohort", lambda folder, *_: (folder / "ok").touch())
    assert (COHORT.prepare(tmp_path) / "ok").is_file()


def test_the_slower_of_two_processes_keeps_the_copy_of_the_faster(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def overtaken(folder: Path, *arguments: Any) -> None:
        (folder / "slow").touch()
        monkeypatch.setattr(
            phantom_mri, "_write_cohort", lambda folder, *_: (folder / "fast").touch()
        )
        COHORT.prepare(tmp_path)

    monkeypatch.setattr(phantom_mri, "_write_cohort", overtaken)
    folder = COHORT.prepare(tmp_path)
    assert [path.name for path in folder.iterdir()] == ["fast"]
    assert list(tmp_path.iterdir()) == [folder]


# --- parameters


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"num_patients": 0}, "num_patients=0: at least 2 are needed; try 20"),
        ({"num_followups": -1}, "num_followups=-1: must lie between 0 and num_patients=20"),
        ({"num_patients": 3}, "num_followups=4: must lie between 0 and num_patients=3"),
        ({"voxel_size": 0.0}, "voxel_size=0.0: must lie between 0.5 and 6 mm"),
        ({"voxel_size": float("nan")}, "voxel_size=nan: must lie between 0.5 and 6 mm"),
        ({"seed": -1}, "seed=-1: must not be negative"),
    ],
)
def test_a_bad_parameter_is_named_with_its_cure(parameters: dict[str, float], message: str) -> None:
    with pytest.raises(UserError) as refusal:
        PhantomMRI(**parameters)  # type: ignore[arg-type]
    assert str(refusal.value).startswith(f"dataset.phantoms.{message}")
    assert "; try " in str(refusal.value)


def test_a_tumour_finds_its_seat_between_the_thickest_slices_too():
    # The first patient of seed 0 whose ray to the dura met no voxel within 4 mm.
    grid = head.grid_of(1163, 6.0)
    average = head.load_average_brain().seen_by(grid)
    phantom = draw_phantom(average, grid, 0, 1163, 0)
    assert (phantom.seg == head.ENHANCING).any()


def test_an_isointense_lesion_looks_like_grey_matter_and_only_where_asked():
    grid = head.grid_of(1, 4.0)
    average = head.load_average_brain().seen_by(grid)
    usual, hidden = (draw_phantom(average, grid, 0, 1, 0, names) for names in ((), ("t2f",)))
    np.testing.assert_array_equal(hidden.seg, usual.seg)
    for name in ("t1c", "t1n", "t2w"):
        np.testing.assert_array_equal(hidden.series[name], usual.series[name])
    lesion = usual.seg > 0
    np.testing.assert_array_equal(
        hidden.series["t2f"][~dilated(lesion)], usual.series["t2f"][~dilated(lesion)]
    )
    brain = hidden.series["t2f"][(hidden.series["t2f"] > 0) & ~dilated(lesion)]
    # From white (580) to grey matter (720) and beyond by bias and detail: within the brain's range.
    assert np.quantile(brain, 0.25) < np.median(hidden.series["t2f"][lesion]) < brain.max()
    assert np.median(usual.series["t2f"][lesion]) > np.quantile(brain, 0.95)


def dilated(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """With all voxels within three of it: edges are partial volumes."""
    grown: NDArray[np.bool_] = ndimage.binary_dilation(mask, iterations=3)
    return grown


def test_a_hidden_series_has_a_name_and_a_cohort_of_its_own(tmp_path: Path):
    with pytest.raises(UserError, match=r"dataset\.phantoms\.isointense=\['t3'\]: series are t1c"):
        PhantomMRI(isointense=["t3"])
