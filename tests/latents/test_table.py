"""Claims about exported latents and the sequences made of them."""

from __future__ import annotations

import textwrap
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from torch.utils.data import DataLoader

from vaelab.errors import UserError
from vaelab.latents.table import (
    TABLE,
    LatentDataset,
    Latents,
    collate,
    read_latents,
    time_point_of,
    to_arrow,
)

Z = 3
VISITS = [("A", 0, "train"), ("A", 2, "train"), ("A", 10, "train"), ("B", 1, "val")]
VISITS += [("C", 5, "train"), ("C", 0, "train")]


def latents(order: list[int] | None = None) -> Latents:
    """Six visits of three patients; mu says whose and when: (patient, time point, 0)."""
    rows = [VISITS[i] for i in order or range(len(VISITS))]
    random = np.random.default_rng(0)
    return Latents(
        ids=[f"{patient}-{point:03d}" for patient, point, _ in rows],
        patients=[patient for patient, _, _ in rows],
        time_points=np.array([point for _, point, _ in rows]),
        splits=[split for _, _, split in rows],
        mu=np.array([(ord(patient), point, 0) for patient, point, _ in rows], np.float32),
        logvar=random.normal(size=(len(rows), Z)).astype(np.float32),
        recon=np.arange(len(rows), dtype=np.float32),
        kl=np.arange(len(rows), dtype=np.float32),
        covariates={"size": np.array([1, np.nan, *range(len(rows) - 2)])},
        about={"model": "VAE"},
    )


def written(folder: Path, table: Latents | None = None) -> Path:
    pq.write_table(to_arrow(table or latents()), folder / TABLE, write_page_checksum=True)
    return folder


@pytest.mark.parametrize(
    ("name", "patient", "point"),
    [
        ("BraTS-MEN-00004-001", "BraTS-MEN-00004", 1),
        ("BraTS-MEN-00004-000", "BraTS-MEN-00004", 0),
        ("site/BraTS-MEN-00004-012", "BraTS-MEN-00004", 12),
        ("subject", "subject", 0),
        ("patient7", "patient7", 0),  # the number is of the patient
        ("ab-3_scan-20.v2", "ab", 20),
    ],
)
def test_a_time_point_is_the_last_number_after_the_patient(name: str, patient: str, point: int):
    assert time_point_of(name, patient) == point


def test_a_table_comes_back_bit_for_bit(tmp_path: Path):
    before = latents()
    after = read_latents(written(tmp_path))
    assert (after.ids, after.patients, after.splits) == (before.ids, before.patients, before.splits)
    for name in ("time_points", "mu", "logvar", "recon", "kl"):
        one, other = getattr(before, name), getattr(after, name)
        assert one.dtype == other.dtype
        assert one.tobytes() == other.tobytes(), name
    np.testing.assert_array_equal(after.covariates["size"], before.covariates["size"])
    assert after.about == {"model": "VAE"}


def test_columns_have_the_names_that_are_promised():
    names = to_arrow(latents()).column_names
    units = [f"{part}_{unit}" for part in ("mu", "logvar") for unit in range(Z)]
    assert names == ["id", "patient", "time_point", "split", *units, "recon", "kl", "size"]


def test_names_that_are_no_utf8_are_written_so_that_any_program_reads_them(tmp_path: Path):
    odd = replace(latents(), ids=["caf\udce9", *latents().ids[1:]])
    assert read_latents(written(tmp_path, odd)).ids[0] == "caf\\udce9"


def test_a_sequence_is_one_patient_in_order_of_time(tmp_path: Path):
    # However the rows lie.
    visits = LatentDataset(written(tmp_path, latents([4, 1, 3, 2, 0, 5])))
    assert visits.patients == ["A", "B", "C"]
    assert [visits[i]["time"].tolist() for i in range(3)] == [[0, 2, 10], [1], [0, 5]]
    assert visits[2]["ids"] == ["C-000", "C-005"]
    for i, patient in enumerate("ABC"):
        item = visits[i]
        assert item["patient"] == patient
        assert item["mu"].dtype == torch.float32
        assert item["mu"][:, 0].tolist() == [ord(patient)] * len(item["ids"])  # never mixed
        assert item["mu"][:, 1].tolist() == item["time"].tolist()
        assert item["logvar"].shape == item["mu"].shape == (len(item["ids"]), Z)


def test_patients_are_chosen_by_split_and_number_of_visits(tmp_path: Path):
    folder = written(tmp_path)
    assert LatentDataset(folder, split="val").patients == ["B"]
    assert LatentDataset(folder, split=["train", "val"]).patients == ["A", "B", "C"]
    assert LatentDataset(folder, min_length=2).patients == ["A", "C"]
    assert LatentDataset(folder / TABLE, "train", 3).patients == ["A"]
    with pytest.raises(UserError, match=r"split=test: no such split; there are \['train', 'val'\]"):
        LatentDataset(folder, split="test")
    with pytest.raises(UserError, match=r"min_length=4.*the most is 3"):
        LatentDataset(folder, min_length=4)
    with pytest.raises(UserError, match="min_length=0"):
        LatentDataset(folder, min_length=0)


def test_samples_have_the_posterior_s_mean_and_variance(tmp_path: Path):
    wide = replace(
        latents(),
        mu=np.full((6, 300), 2, np.float32),
        logvar=np.full((6, 300), np.log(0.25), np.float32),
    )
    folder = written(tmp_path, wide)
    draws = [
        LatentDataset(folder, sample=True, generator=torch.Generator().manual_seed(seed))[0]["z"]
        for seed in (0, 0, 1)
    ]
    # 900 draws: standard errors 0.5 / 30 of the mean, 0.25 * sqrt(2 / 900) of the variance.
    assert float(draws[0].mean()) == pytest.approx(2, abs=4 * 0.0167)
    assert float(draws[0].var()) == pytest.approx(0.25, abs=4 * 0.0118)
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])
    assert "z" not in LatentDataset(folder)[0]


def test_batches_are_padded_and_say_where(tmp_path: Path):
    visits = LatentDataset(written(tmp_path), sample=True)
    (batch,) = DataLoader(visits, batch_size=3, collate_fn=collate)
    assert batch["patient"] == ["A", "B", "C"]
    assert batch["mask"].tolist() == [[1, 1, 1], [1, 0, 0], [1, 1, 0]]
    assert batch["time"].tolist() == [[0, 2, 10], [1, 0, 0], [0, 5, 0]]
    for name in ("mu", "logvar", "z"):
        assert batch[name].shape == (3, 3, Z)
        assert (batch[name][~batch["mask"]] == 0).all()
    assert torch.equal(batch["mu"][0], visits[0]["mu"])


def test_the_example_runs(tmp_path: Path):
    assert LatentDataset.__doc__ is not None
    example = LatentDataset.__doc__.split("::\n")[1].split("Args:")[0]
    code = textwrap.dedent(example).replace("outputs/<run>/latents", str(written(tmp_path)))
    names: dict[str, object] = {}
    exec(code, names)
    assert torch.isfinite(names["loss"])  # type: ignore[arg-type]
    lines = [line for line in code.splitlines() if line.strip()]
    assert len([line for line in lines if "import" not in line]) <= 10


@pytest.mark.parametrize("damage", ["missing", "cut", "flipped", "text", "other", "empty"])
def test_a_file_that_cannot_be_used_is_named(tmp_path: Path, damage: str):
    path = written(tmp_path) / TABLE
    content = path.read_bytes()
    if damage == "missing":
        path.unlink()
    elif damage == "cut":
        path.write_bytes(content[: len(content) // 2])
    elif damage == "flipped":  # one bit of the first page of values
        at = content.index(b"A-000") + 1
        path.write_bytes(content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :])
    elif damage == "text":
        path.write_text("id,mu_0\n")
    elif damage == "other":
        pq.write_table(to_arrow(latents()).drop_columns(["mu_1"]), path)
    else:
        path.write_bytes(b"")
    with pytest.raises(UserError, match=r"latents\.parquet"):
        LatentDataset(tmp_path)


def test_a_subject_that_is_there_twice_is_refused(tmp_path: Path):
    twice = replace(latents(), ids=["A-000", "A-000", *latents().ids[2:]])
    with pytest.raises(UserError, match="more than once:\n  - A-000"):
        LatentDataset(written(tmp_path, twice))
