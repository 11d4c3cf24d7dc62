"""Claims about the sequences that are made of exported latents."""

from __future__ import annotations

import textwrap
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from vaelab.errors import UserError
from vaelab.latents.sequences import LatentDataset, collate
from vaelab.latents.table import TABLE

from .conftest import Z, latents, written


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


def timed(folder: Path, rows: str, **options: object) -> LatentDataset:
    (folder / "visits.csv").write_text("id,days\n" + rows)
    return LatentDataset(written(folder), covariates=folder / "visits.csv", **options)  # type: ignore[arg-type]


def test_times_order_the_visits_where_all_are_known_and_numbers_do_elsewhere(
    tmp_path: Path,
) -> None:
    # A's numbers say 0, 2, 10; the days say that 10 came first. Of C one day is known.
    visits = timed(tmp_path, "A-000,40\nA-002,100\nA-010,-20.5\nC-005,3\n")
    assert visits[0]["ids"] == ["A-010", "A-000", "A-002"]
    assert visits[0]["time_days"].tolist() == [-20.5, 40, 100]
    assert visits[0]["time"].tolist() == [10, 0, 2]
    assert visits[2]["ids"] == ["C-000", "C-005"]
    assert visits[2]["time_days"].isnan().tolist() == [True, False]


def test_times_that_contradict_the_numbers_and_are_too_few_to_order_by_are_refused(
    tmp_path: Path,
) -> None:
    message = r"patient A: A-000 on day 40, A-010 on day 3, against .*; mend the times"
    with pytest.raises(UserError, match=message):
        timed(tmp_path, "A-000,40\nA-010,3\n")


def test_visits_of_one_day_are_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    visits = timed(tmp_path, "A-000,5\nA-002,5\nA-010,5\n")
    assert visits[0]["ids"] == ["A-000", "A-002", "A-010"]


def test_batches_tell_the_time_between_visits_where_it_is_known(tmp_path: Path) -> None:
    visits = timed(tmp_path, "A-000,0\nA-002,31\nA-010,400\nB-001,9\nC-000,7\n")
    (batch,) = DataLoader(visits, batch_size=3, collate_fn=collate)
    # A has three visits, B one, C two, of which the second has no time.
    assert batch["dt"].tolist() == [[31, 369], [0, 0], [0, 0]]
    assert batch["dt_mask"].tolist() == [[True, True], [False, False], [False, False]]
    assert batch["mask"].sum(1).tolist() == [3, 1, 2]
    assert batch["time_days"].isnan().sum(1).tolist() == [0, 2, 2]


def test_without_times_all_are_unknown_and_nothing_else_changes(tmp_path: Path) -> None:
    (batch,) = DataLoader(LatentDataset(written(tmp_path)), batch_size=3, collate_fn=collate)
    assert batch["time_days"].isnan().all()
    assert not batch["dt_mask"].any()
    assert batch["time"].tolist() == [[0, 2, 10], [1, 0, 0], [0, 5, 0]]


def test_the_example_runs_and_costs_nothing_at_the_true_rate(tmp_path: Path) -> None:
    # mu is (patient, number of the visit, 0), and a number a year: dz/dt = (0, 1, 0).
    years = {"A-000": 0, "A-002": 2, "A-010": 10, "C-000": 0, "C-005": 5}
    rows = "".join(f"{name},{365.25 * number}\n" for name, number in years.items())
    (tmp_path / "visits.csv").write_text("id,days\n" + rows)
    assert LatentDataset.__doc__ is not None
    code = textwrap.dedent(LatentDataset.__doc__.split("::\n")[1].split("Args:")[0])
    code = code.replace("outputs/<run>/latents", str(written(tmp_path)))
    code = code.replace("visits.csv", str(tmp_path / "visits.csv"))
    lines = [line for line in code.splitlines() if line.strip()]
    assert len([line for line in lines if "import" not in line]) <= 10
    names: dict[str, Any] = {}
    exec(code, names)
    assert names["loss"].item() > 1
    torch.nn.init.zeros_(names["rate"].weight)
    names["rate"].bias.data = torch.tensor([0.0, 1, 0])
    exec(code[code.index("for batch") :], names)
    assert names["loss"].item() == pytest.approx(0, abs=1e-6)


def test_a_subject_that_is_there_twice_is_refused(tmp_path: Path):
    twice = replace(latents(), ids=["A-000", "A-000", *latents().ids[2:]])
    with pytest.raises(UserError, match="more than once:\n  - A-000"):
        LatentDataset(written(tmp_path, twice))
