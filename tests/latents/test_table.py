"""Claims about exported latents as a table."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from vaelab.errors import UserError
from vaelab.latents.table import TABLE, read_latents, time_point_of, to_arrow

from .conftest import Z, latents, written


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
        read_latents(tmp_path)
