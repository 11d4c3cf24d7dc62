"""Claims about the sequences that are made of exported latents."""

from __future__ import annotations

import textwrap
from dataclasses import replace
from pathlib import Path

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


def test_the_example_runs(tmp_path: Path):
    assert LatentDataset.__doc__ is not None
    example = LatentDataset.__doc__.split("::\n")[1].split("Args:")[0]
    code = textwrap.dedent(example).replace("outputs/<run>/latents", str(written(tmp_path)))
    names: dict[str, object] = {}
    exec(code, names)
    assert torch.isfinite(names["loss"])  # type: ignore[arg-type]
    lines = [line for line in code.splitlines() if line.strip()]
    assert len([line for line in lines if "import" not in line]) <= 10


def test_a_subject_that_is_there_twice_is_refused(tmp_path: Path):
    twice = replace(latents(), ids=["A-000", "A-000", *latents().ids[2:]])
    with pytest.raises(UserError, match="more than once:\n  - A-000"):
        LatentDataset(written(tmp_path, twice))
