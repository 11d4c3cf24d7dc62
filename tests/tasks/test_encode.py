"""Claims about where subjects lie in a trained run's latent space."""

from __future__ import annotations

import csv
import json
import re
import shutil
import weakref
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.numpy import load_file

from vaelab.errors import UserError
from vaelab.latents.pictures import choose_colors, umap_of
from vaelab.latents.sequences import LatentDataset
from vaelab.latents.table import read_latents
from vaelab.metrics.factors import NAMES
from vaelab.models.resnet3d import ResNet3dVAE
from vaelab.tasks import encode as module
from vaelab.tasks.encode import Encode

from ..conftest import CLI

QUICK = ("task.umap=false",)


def encode(cli: CLI, run_dir: Path, *arguments: str) -> int:
    return cli("task=encode", f"run_dir={run_dir}", *QUICK, *arguments)


def test_every_subject_of_a_run_has_a_row_with_its_time_point(cli: CLI, run_3d: Path):
    assert encode(cli, run_3d) == 0
    latents = read_latents(run_3d / "latents")
    rows = list(
        zip(latents.splits, latents.patients, latents.time_points, latents.ids, strict=True)
    )
    rank = {"train": 0, "val": 1}
    assert rows == sorted(rows, key=lambda row: (rank[row[0]], *row[1:]))
    assert sorted(latents.ids) == [
        "BraTS-MEN-00001-000", "BraTS-MEN-00001-001", "BraTS-MEN-00002-000",
        "BraTS-MEN-00003-000", "BraTS-MEN-00004-000",
    ]  # fmt: skip
    assert all(i == f"{p}-{t:03d}" for _, p, t, i in rows)
    assert latents.mu.shape == latents.logvar.shape == (5, 8)
    # 12 mm voxels: a volume is a multiple of 1728 mm³, and every phantom has a tumour.
    volumes = latents.covariates["segmented_mm3"]
    assert (volumes > 0).all()
    np.testing.assert_allclose(volumes / 12**3, np.round(volumes / 12**3), rtol=1e-9)
    assert (run_3d / "figures" / "latent_pca.png").is_file()
    assert (run_3d / "figures" / "latent_trajectories.png").is_file()
    (visits,) = LatentDataset(run_3d / "latents", min_length=2)
    assert visits["ids"] == ["BraTS-MEN-00001-000", "BraTS-MEN-00001-001"]


def test_a_subject_of_two_splits_has_one_row(cli: CLI, run_2d: Path):
    assert encode(cli, run_2d) == 0
    latents = read_latents(run_2d / "latents")
    assert len(set(latents.ids)) == len(latents) == 18 + 2 + 2 * 6  # of test_full all
    assert set(latents.splits) == {"train", "val", "test"}
    assert set(latents.time_points.tolist()) == {0}
    sick = np.array(["PNEUMONIA" in name for name in latents.ids])
    np.testing.assert_array_equal(latents.covariates["label"], sick)
    assert not (run_2d / "figures" / "latent_trajectories.png").exists()


def test_both_files_hold_what_the_network_says_bit_for_bit(cli: CLI, run_3d: Path, monkeypatch):
    said: list[tuple[torch.Tensor, ...]] = []
    forward = ResNet3dVAE.forward

    def forward_and_keep(model, x):
        output = forward(model, x)
        said.append((x.clone(), *(part.clone() for part in output)))
        return output

    monkeypatch.setattr(ResNet3dVAE, "forward", forward_and_keep)
    assert encode(cli, run_3d) == 0
    x, x_hat, mu, logvar = (torch.cat(parts) for parts in zip(*said, strict=True))
    assert len(x) == 5
    recon = (x - x_hat).square().flatten(1).sum(1)
    kl = 0.5 * (mu.square() + logvar.exp() - 1 - logvar).sum(1)
    latents = read_latents(run_3d / "latents")
    assert latents.mu.tobytes() == mu.numpy().tobytes()
    assert latents.logvar.tobytes() == logvar.numpy().tobytes()
    np.testing.assert_allclose(latents.recon, recon, rtol=1e-5)
    np.testing.assert_allclose(latents.kl, kl, rtol=1e-4, atol=1e-5)

    arrays = load_file(run_3d / "latents" / "latents.safetensors")
    assert set(arrays) == {"mu", "logvar", "recon", "kl", "time_point"}
    for name in ("mu", "logvar", "recon", "kl"):
        assert arrays[name].tobytes() == getattr(latents, name).tobytes()
    with safe_open(run_3d / "latents" / "latents.safetensors", "numpy") as file:
        about = json.loads(file.metadata()["vaelab"])
    modes = {path.stat().st_mode for path in (run_3d / "latents").glob("latents.*")}
    assert len(modes) == 1  # whoever may read one may read the other
    assert about["ids"] == latents.ids
    assert about["splits"] == latents.splits
    assert about["model"] == "ResNet3dVAE"
    assert about["weights_sha256"] == latents.about["weights_sha256"]


def test_an_interrupted_run_goes_on_and_ends_with_the_same_bytes(
    cli: CLI, run_2d: Path, monkeypatch: pytest.MonkeyPatch
):
    small = ("task.shard_size=5", "dataset.batch_size=2")
    assert encode(cli, run_2d, *small, f"task.output_dir={run_2d / 'whole'}") == 0

    seen: list[int] = []
    original = module._numbers

    def counting(stop_after: int):
        def numbers(*arguments):
            for place, found in enumerate(original(*arguments)):
                if place == stop_after:
                    raise RuntimeError("the power fails")
                seen.append(place)
                yield found

        return numbers

    monkeypatch.setattr(module, "_numbers", counting(stop_after=13))
    assert encode(cli, run_2d, *small) == 1
    assert not (run_2d / "latents" / "latents.parquet").exists()
    assert len(list((run_2d / "latents" / ".parts").glob("*.parquet"))) == 2  # of 10 subjects
    seen.clear()
    monkeypatch.setattr(module, "_numbers", counting(stop_after=-1))
    assert encode(cli, run_2d, *small) == 0
    assert len(seen) == 32 - 10
    for name in ("latents.parquet", "latents.safetensors"):
        assert (run_2d / "latents" / name).read_bytes() == (run_2d / "whole" / name).read_bytes()

    # Nothing has changed, so nothing is done again; other weights are another matter.
    seen.clear()
    assert encode(cli, run_2d, *small) == 0
    assert seen == []
    weights = next((run_2d / "checkpoints").glob("*.pth"))
    state = torch.load(weights, weights_only=True)
    state["mu_head.bias"] += 1
    torch.save(state, weights)
    before = read_latents(run_2d / "latents").mu
    assert encode(cli, run_2d, *small) == 0
    assert len(seen) == 32
    np.testing.assert_allclose(read_latents(run_2d / "latents").mu, before + 1, atol=1e-5)
    assert len(list((run_2d / "latents" / ".parts").iterdir())) == 7  # the old ones are gone


def test_no_more_than_a_shard_of_latents_and_two_batches_of_images_are_in_memory(
    cli: CLI, run_2d: Path, monkeypatch: pytest.MonkeyPatch
):
    latents: list[weakref.ref[Any]] = []
    images: list[weakref.ref[Any]] = []
    most = {"latents": 0, "images": 0}
    original = module._numbers

    def watched(loader: Iterable[Any]) -> Iterator[Any]:
        for batch in loader:
            images.extend(weakref.ref(sample["image"]) for sample in batch)
            yield batch

    def watching(model, loader, *rest):
        for found in original(model, watched(loader), *rest):
            latents.append(weakref.ref(found.mu))
            for name, references in (("latents", latents), ("images", images)):
                alive = sum(reference() is not None for reference in references)
                most[name] = max(most[name], alive)
            yield found

    monkeypatch.setattr(module, "_numbers", watching)
    assert encode(cli, run_2d, "task.shard_size=6", "dataset.batch_size=2") == 0
    assert len(latents) == len(images) == 32
    assert 6 <= most["latents"] <= 6 + 2
    assert most["images"] <= 2 * 2


def test_a_damaged_shard_is_made_again(cli: CLI, run_2d: Path):
    assert encode(cli, run_2d) == 0
    table = run_2d / "latents" / "latents.parquet"
    before = table.read_bytes()
    (shard,) = (run_2d / "latents" / ".parts").iterdir()
    shard.write_bytes(shard.read_bytes()[:100])
    table.unlink()
    assert encode(cli, run_2d) == 0
    assert table.read_bytes() == before


def test_any_folder_is_encoded_and_what_cannot_be_read_is_told(
    cli: CLI, run_2d: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
):
    folder = tmp_path / "new"
    for part in ("A", "B"):
        (folder / part).mkdir(parents=True)
        pixels = np.random.default_rng(ord(part)).integers(0, 256, (40, 40), np.uint8)
        Image.fromarray(pixels).save(folder / part / "1.png")
        Image.fromarray(pixels[::-1].copy()).save(folder / part / "person7_virus_3.png")
    bad = folder / "A" / "cut.png"
    bad.write_bytes((folder / "A" / "1.png").read_bytes()[:60])

    for _ in range(2):  # a second time it is not done again, but told again
        assert encode(cli, run_2d, f"task.inputs={folder}") == 1
        shown = capfd.readouterr().out
        assert "1 of 5 subjects could not be read" in shown
        assert "A/cut.png" in shown
        assert "Traceback" not in shown
    output = run_2d / "latents_inputs"
    latents = read_latents(output)
    who = dict(zip(latents.ids, latents.patients, strict=True))
    # Of equal names in two folders only those that tell a patient are one patient's.
    assert who == {
        "A/1.png": "A/1.png", "B/1.png": "B/1.png",
        "A/person7_virus_3.png": "person7", "B/person7_virus_3.png": "person7",
    }  # fmt: skip
    assert set(latents.splits) == {"inputs"}
    assert (output / "figures" / "latent_pca.png").is_file()
    assert not (run_2d / "latents").exists()
    assert not (run_2d / "figures" / "latent_pca.png").exists()

    shutil.copy(folder / "A" / "1.png", bad)
    assert encode(cli, run_2d, f"task.inputs={folder}") == 0
    latents = read_latents(output)
    one, other = (latents.mu[latents.ids.index(name)] for name in ("A/1.png", "A/cut.png"))
    np.testing.assert_allclose(one, other, atol=1e-5)


def test_a_folder_of_volumes_needs_no_segmentation(
    cli: CLI, run_3d: Path, phantoms: str, tmp_path: Path
):
    cohort = next(Path(phantoms.split("=", 1)[1]).glob("phantom_mri*4patients-1followups-6.0mm*"))
    folder = tmp_path / "new"
    for time in ("000", "001"):
        name = f"BraTS-MEN-00001-{time}"
        shutil.copytree(cohort / name, folder / name, ignore=shutil.ignore_patterns("*-seg*"))
    (folder / "BraTS-MEN-00001-001" / "BraTS-MEN-00001-001-t1c.nii.gz").write_bytes(b"no")
    assert encode(cli, run_3d) == 0
    assert encode(cli, run_3d, f"task.inputs={folder}") == 1
    own, new = read_latents(run_3d / "latents"), read_latents(run_3d / "latents_inputs")
    assert new.ids == ["BraTS-MEN-00001-000"]
    assert new.patients == ["BraTS-MEN-00001"]
    place = own.ids.index(new.ids[0])
    np.testing.assert_allclose(new.mu[0], own.mu[place], atol=1e-4)


def test_files_are_plain_tables(cli: CLI, run_2d: Path):
    assert encode(cli, run_2d) == 0
    table = pq.read_table(run_2d / "latents" / "latents.parquet")
    units = [f"{part}_{unit}" for part in ("mu", "logvar") for unit in range(8)]
    columns = ["id", "patient", "time_point", "split", *units, "recon", "kl", "label"]
    assert table.column_names == columns
    assert str(table.schema.field("mu_0").type) == "float"


def test_a_run_without_weights_is_refused(cli: CLI, run_2d: Path, capfd):
    shutil.rmtree(run_2d / "checkpoints")
    assert encode(cli, run_2d) == 1
    assert "no such file; name a trained run" in capfd.readouterr().out


def test_impossible_settings_are_refused():
    with pytest.raises(UserError, match=r"task\.shard_size=0"):
        Encode(shard_size=0)
    with pytest.raises(UserError, match=r"task\.color_by: .* age; there are \['size'\]"):
        choose_colors(["age"], ["size"])


def test_pictures_are_coloured_by_the_tumours_volume_unless_told_otherwise():
    assert choose_colors(None, []) == []
    assert choose_colors(None, ["label", "tumour_volume_mm3"]) == ["tumour_volume_mm3"]


def test_factors_of_the_segmentations_and_of_the_table_are_columns_and_a_table_of_their_own(
    cli: CLI, run_3d: Path, tmp_path: Path
):
    assert encode(cli, run_3d, "task.color_by=[depth_mm,label_3_mm3]", "task.shard_size=2") == 0
    latents = read_latents(run_3d / "latents")
    known = latents.covariates
    assert set(NAMES) < set(known)
    assert {"head_size", "whole_volume_mm3", "tumour_x_mm"} < set(known)
    labels = [name for name in known if re.fullmatch(r"label_\d_mm3", name)]
    assert "label_3_mm3" in labels  # of a label that nobody has there is no column
    np.testing.assert_allclose(sum(known[name] for name in labels), known["segmented_mm3"])
    np.testing.assert_allclose(known["segmented_log"], np.log1p(known["segmented_mm3"]))
    with (run_3d / "latents" / "factors.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["id"] for row in rows] == latents.ids
    assert float(rows[0]["depth_mm"]) == pytest.approx(known["depth_mm"][0])


def test_centres_are_the_patients_own_however_a_scan_is_stored(cli: CLI, run_3d: Path):
    assert encode(cli, run_3d) == 0
    latents = read_latents(run_3d / "latents")
    odd = latents.ids.index("BraTS-MEN-00003-000")  # stored LPS, all others RAS
    only_tumour = latents.covariates["label_2_mm3"] == 0
    x, y = latents.covariates["centre_x_mm"], latents.covariates["tumour_x_mm"]
    assert np.sign(x[odd]) == np.sign(y[odd])
    # Without oedema the two centres are of the same region, in grids of 6 and 12 mm about one
    # middle: each is right to a voxel.
    np.testing.assert_allclose(x[only_tumour], y[only_tumour], atol=12)


def test_dates_of_a_table_become_times_of_the_sequences(cli: CLI, run_3d: Path, tmp_path: Path):
    table = tmp_path / "visits.csv"
    table.write_text(
        "id,date,age\nBraTS-MEN-00001-000,2021-01-01,70\nBraTS-MEN-00001-001,2021-04-01,70\n"
    )
    assert encode(cli, run_3d, f"task.covariates={table}", "task.color_by=[age]") == 0
    (visits,) = LatentDataset(run_3d / "latents", min_length=2)
    assert visits["time_days"].tolist() == [0, 90]
    assert encode(cli, run_3d) == 0  # without the table no row is encoded again
    (visits,) = LatentDataset(run_3d / "latents", min_length=2)
    assert visits["time_days"].isnan().all()


def test_a_table_that_cannot_be_read_is_refused_before_anything_is_encoded(
    cli: CLI, run_3d: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
):
    table = tmp_path / "visits.csv"
    table.write_text("id,date\nBraTS-MEN-00001-000,yesterday\n")
    assert encode(cli, run_3d, f"task.covariates={table}") == 1
    shown = capfd.readouterr().out
    assert "visits.csv, row 2, column date: 'yesterday' is no date" in shown
    assert "Traceback" not in shown
    assert not (run_3d / "latents").exists()
    assert encode(cli, run_3d, "task.color_by=[depth]") == 1
    assert "no column of numbers depth" in capfd.readouterr().out
    assert not (run_3d / "latents").exists()


@pytest.mark.slow
def test_umap_is_the_same_on_every_call_and_keeps_groups_apart():
    pytest.importorskip("umap")
    random = np.random.default_rng(0)
    mu = np.concatenate([random.normal(size=(10, 5)), 20 + random.normal(size=(10, 5))])
    one, other = umap_of(mu), umap_of(mu)
    np.testing.assert_array_equal(one.points, other.points)
    groups = one.points.reshape(2, 10, 2)
    apart = np.linalg.norm(groups[0].mean(0) - groups[1].mean(0))
    spread = np.linalg.norm(groups - groups.mean(1, keepdims=True), axis=2).max()
    assert apart > spread
