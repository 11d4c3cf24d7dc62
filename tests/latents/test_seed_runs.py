"""The arguments that train a saved config anew."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from vaelab.errors import UserError
from vaelab.latents.seed_runs import arguments_of_seed, is_done, trained_runs

CONFIG: dict[str, Any] = {
    "run_dir": "/runs/a",
    "choices": {"dataset": "phantom_mri", "hardware": "cpu"},
    "dataset": {
        "_target_": "vaelab.data.mri.brats.BraTSDataModule",
        "root_dir": "/data/it's, [all] here",
        "roi_size": [16, 16, 16],
        "align_to": None,
        "with_seg": True,
        "patient_pattern": r"^(.+)-\d+$",
        "seed": 3,
        "splits_dir": "/runs/a/splits",
        "cache_dir": "/runs/a/cache",
        "phantoms": {"voxel_size": 6.0},
    },
    "model": {"z_dim": 8},
    "annealing": {},
    "hardware": {"devices": 1},
    "score": {},
    "logger": {"csv": {"folder": "/runs/a/logs"}},
    "train": {"seed": 3, "lr": 1e-05, "monitor": "val/neg_elbo"},
    "logging": {"progress_bar": False},
}


def parsed(arguments: list[str]) -> dict[str, Any]:
    """What Hydra makes of the arguments, the last one of a key having the last word."""
    found = OverridesParser.create().parse_overrides([a for a in arguments if a[0] != "~"])
    return {override.key_or_group: override.value() for override in found}


def test_every_value_arrives_at_the_door_as_it_was_saved() -> None:
    found = parsed(arguments_of_seed(CONFIG, Path("/runs/a"), Path("/runs/a/seeds/seed_5"), 5))
    for key in ("root_dir", "roi_size", "align_to", "with_seg", "patient_pattern"):
        assert found[f"dataset.{key}"] == CONFIG["dataset"][key]
    assert found["dataset.phantoms.voxel_size"] == 6.0
    assert found["train.lr"] == 1e-05
    assert found["logging.progress_bar"] is False
    assert found["dataset"] == "phantom_mri"


def test_the_seed_and_the_folder_change_and_the_split_and_the_cache_do_not() -> None:
    arguments = arguments_of_seed(CONFIG, Path("/runs/a"), Path("/runs/a/seeds/seed_5"), 5)
    found = parsed(arguments)
    assert found["train.seed"] == found["dataset.seed"] == 5
    assert found["run_dir"] == "/runs/a/seeds/seed_5"
    assert found["logger.csv.folder"] == "/runs/a/seeds/seed_5/logs"
    assert found["dataset.splits_dir"] == "/runs/a/splits"
    assert found["dataset.cache_dir"] == "/runs/a/cache"
    assert "~task.then" in arguments


def trained(folder: Path) -> Path:
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "checkpoints" / "vae_best.pth").touch()
    return folder


def test_runs_are_named_alone_or_by_the_folder_that_holds_them(tmp_path: Path) -> None:
    one, two = trained(tmp_path / "sweep" / "1"), trained(tmp_path / "sweep" / "2")
    (tmp_path / "sweep" / "cache").mkdir()
    assert trained_runs([str(tmp_path / "sweep")], "vae_best.pth") == [one, two]
    assert trained_runs([str(two)], "vae_best.pth") == [two]
    trained(two / "seeds" / "seed_5")
    assert trained_runs([str(two)], "vae_best.pth") == [
        two
    ]  # what a run holds is not taken with it


def test_a_run_without_the_weights_is_refused(tmp_path: Path) -> None:
    trained(tmp_path / "run")
    with pytest.raises(UserError, match=r"task\.runs=.*with checkpoints/other\.pth"):
        trained_runs([str(tmp_path / "run")], "other.pth")


@pytest.mark.parametrize(("state", "done"), [("done", True), ("failed", False), (None, False)])
def test_a_run_is_done_when_it_says_so(tmp_path: Path, state: str | None, done: bool) -> None:
    if state:
        (tmp_path / "status.json").write_text(json.dumps({"state": state}))
    assert is_done(tmp_path) is done
