"""task=compare: which runs are found, what is said of them, and when it refuses to compare."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from matplotlib.figure import Figure
from PIL import Image

from vaelab.errors import UserError
from vaelab.evaluation.comparison import Comparison
from vaelab.evaluation.results import Evaluation, LatentUse, ObjectiveSums, Reconstruction
from vaelab.metrics.detection import Detection
from vaelab.runs.differences import config_differences, data_differences
from vaelab.runs.folder import RunFolder
from vaelab.runs.reading import read_runs
from vaelab.tasks.compare import Compare

from ..conftest import CLI, TINY_XRAY

PAGE_PARTS = {
    "annealing.png", "comparison.csv", "comparison.html", "comparison.md", "learning_curves.png",
    "rate_distortion.png",
}  # fmt: skip


@pytest.fixture
def real_figures() -> None:
    """For the tests that look at pictures; the others are spared the drawing."""


@pytest.fixture(autouse=True)
def blank_figures(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    def blank(figure: Figure, path: Path) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 3), "white").save(path)
        return path

    if "real_figures" not in request.fixturenames:
        monkeypatch.setattr("vaelab.tasks.compare.save_figure", blank)


def config(run_dir: Path, **changes: Any) -> dict[str, Any]:
    """What a run's config_resolved.yaml holds, as far as a comparison reads it."""
    flat: dict[str, Any] = {
        "run_dir": str(run_dir),
        "name": "tiny",
        "task._target_": "vaelab.tasks.train.Train",
        "choices.dataset": "phantom_xray",
        "choices.annealing": "linear",
        "dataset.splits_dir": f"{run_dir}/splits",
        "dataset.image_size": [32, 32],
        "dataset.batch_size": 2,
        "annealing._target_": "vaelab.objective.annealing.Linear",
        "annealing.kl_beta": 1.0,
        "train.kl_beta": 1.0,
        "train.max_epochs": 5,
        "train.monitor": "val/neg_elbo",
        "train.seed": 42,
    } | changes
    nested: dict[str, Any] = {}
    for key, value in flat.items():
        node = nested
        *parents, leaf = key.split(".")
        for parent in parents:
            node = node.setdefault(parent, {})
        node[leaf] = value
    return nested


# Two validation samples. Of neg_elbo the smallest is at epoch 1, of recon it is at epoch 2.
HISTORY = {
    "val/recon": (80.0, 40.0, 38.0),
    "val/kl": (2.0, 6.0, 12.0),
    "val/neg_elbo": (82.0, 46.0, 50.0),
    "val/recon_per_voxel": (0.8, 0.4, 0.38),
    "val/active_units": (0.0, 3.0, 4.0),
    "train/beta": (0.0, 0.5, 1.0),
}


def write_run(
    folder: Path,
    state: str | None = "done",
    history: dict[str, tuple[float, ...]] | None = None,
    metrics: dict[str, Any] | None = None,
    ids: tuple[str, ...] = ("a", "b"),
    error: str = "",
    **changes: Any,
) -> Path:
    history = HISTORY if history is None else history
    (folder / "logs").mkdir(parents=True)
    (folder / "splits").mkdir()
    (folder / "config_resolved.yaml").write_text(yaml.safe_dump(config(folder, **changes)))
    if state is not None:
        status = {"state": state, "value": None, "error": error}
        (folder / "status.json").write_text(json.dumps(status))
    if history:
        with (folder / "logs" / "metrics.csv").open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["epoch", *history])
            for epoch, values in enumerate(zip(*history.values(), strict=True)):
                writer.writerow([epoch, *values])
    if metrics is not None:
        (folder / "metrics.json").write_text(json.dumps(metrics))
    (folder / "splits" / "val.csv").write_text("id\n" + "".join(f"{id}\n" for id in ids))
    return folder


def detected(auroc: float, average_precision: float) -> dict[str, Any]:
    """What ``metrics.json`` holds of a run with these."""
    found = Detection(auroc, average_precision, 0.0, 0.0, {}, {})
    reconstruction, objective = Reconstruction(0.0, {}), ObjectiveSums(1.0, 0.0, 0.0, 0.0, {})
    latent = LatentUse(None, 0, 0.0, [])
    return Evaluation(
        "vae_best.pth", "KL", 2, reconstruction, objective, latent, detection=found
    ).to_json()


def better(factor: float) -> dict[str, tuple[float, ...]]:
    """The same history with all distortions and ELBOs scaled."""
    scaled = ("val/recon", "val/neg_elbo", "val/recon_per_voxel")
    return {k: tuple(factor * x for x in v) if k in scaled else v for k, v in HISTORY.items()}


def compare(*runs: Path | str, out: Path | None = None, own: Path | None = None) -> None:
    output_dir = None if out is None else str(out)
    task = Compare([str(run) for run in runs] if len(runs) > 1 else str(runs[0]), output_dir)
    task(SimpleNamespace(folder=RunFolder(own)))  # type: ignore[arg-type]  # the only part it may use


def table(folder: Path) -> dict[str, dict[str, str]]:
    with (folder / "comparison.csv").open(newline="", encoding="utf-8") as file:
        return {row["run"]: row for row in csv.DictReader(file)}


# ---------------------------------------------------------------- what is compared


def test_a_sweep_is_compared_in_its_own_folder_run_by_run(tmp_path: Path):
    for name in ("2", "10"):
        write_run(tmp_path / "sweep" / name)
    compare(tmp_path / "sweep", own=tmp_path / "own")
    assert {path.name for path in (tmp_path / "sweep" / "comparison").iterdir()} == PAGE_PARTS
    assert list(table(tmp_path / "sweep" / "comparison")) == ["2", "10"]  # as people count
    assert not (tmp_path / "own").exists()
    compare(tmp_path / "sweep", own=tmp_path / "own")  # its own results are no run
    assert len(table(tmp_path / "sweep" / "comparison")) == 2


def test_listed_runs_and_sweeps_are_compared_in_the_tasks_own_folder(tmp_path: Path):
    write_run(tmp_path / "sweep" / "0")
    write_run(tmp_path / "sweep" / "1")
    alone = write_run(tmp_path / "alone")
    compare(tmp_path / "sweep", alone, tmp_path / "sweep" / "1", own=tmp_path / "own")
    assert list(table(tmp_path / "own")) == ["sweep/0", "sweep/1", "alone"]


def test_output_dir_is_where_results_go(tmp_path: Path):
    compare(write_run(tmp_path / "run"), out=tmp_path / "there")
    assert {path.name for path in (tmp_path / "there").iterdir()} == PAGE_PARTS


def test_other_tasks_folders_are_no_runs(tmp_path: Path):
    write_run(tmp_path / "all" / "trained")
    write_run(tmp_path / "all" / "compared", **{"task._target_": "vaelab.tasks.compare.Compare"})
    assert [run.path.name for run in read_runs([str(tmp_path / "all")])] == ["trained"]


def test_folders_without_runs_are_refused_by_name(tmp_path: Path):
    (tmp_path / "empty" / "inner").mkdir(parents=True)
    with pytest.raises(UserError, match=r"task\.runs=.*empty: neither"):
        compare(tmp_path / "empty")
    with pytest.raises(UserError, match=r"task\.runs=.*nowhere: there is no such folder"):
        compare(tmp_path / "nowhere")
    with pytest.raises(UserError, match=r"task\.runs=None: name what to compare"):
        Compare(None)


# ---------------------------------------------------------------- numbers


def test_a_run_stands_where_it_was_at_its_best_epoch(tmp_path: Path):
    compare(write_run(tmp_path / "run"), out=tmp_path)
    row = table(tmp_path)["run"]
    # Epoch 1 by neg_elbo: recon 40 and KL 6 over two samples.
    assert (row["epochs"], row["max_epochs"]) == ("3", "5")
    assert (row["best_epoch"], row["monitored"], row["neg_elbo"]) == ("1", "46", "46")
    assert (row["recon"], row["kl"], row["neg_elbo_at_1"]) == ("20", "3", "23")
    assert (row["recon_per_voxel"], row["active_units"]) == ("0.4", "3")
    assert row["auroc"] == ""


def test_the_best_epoch_follows_the_runs_own_monitor(tmp_path: Path):
    compare(write_run(tmp_path / "run", **{"train.monitor": "val/recon"}), out=tmp_path)
    row = table(tmp_path)["run"]
    assert (row["best_epoch"], row["monitored"], row["recon"]) == ("2", "38", "19")


def test_detection_comes_from_metrics_json(tmp_path: Path):
    compare(write_run(tmp_path / "run", metrics=detected(0.75, 0.5)), out=tmp_path)
    row = table(tmp_path)["run"]
    assert (row["auroc"], row["average_precision"]) == ("0.75", "0.5")


def test_a_damaged_metrics_json_costs_detection_and_nothing_else(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    compare(write_run(tmp_path / "run", metrics={"detection": {"auroc": 0.75}}), out=tmp_path)
    row = table(tmp_path)["run"]
    assert (row["auroc"], row["best_epoch"]) == ("", "1")
    assert "evaluate the run anew" in caplog.text


def test_each_criterion_names_its_best_run(tmp_path: Path):
    few = HISTORY | {"val/active_units": (0.0, 1.0, 1.0)}
    write_run(tmp_path / "s" / "good", history=better(0.5))
    write_run(tmp_path / "s" / "sharp", history=few, metrics=detected(0.9, 0.9))
    winners = {
        w.criterion: w.run for w in Comparison.of(read_runs([str(tmp_path / "s")])).winners()
    }
    assert winners == {
        "lowest val/neg_elbo": "good",
        "lowest −ELBO at β = 1 (per sample)": "good",
        "lowest distortion (per sample)": "good",
        "lowest distortion (per voxel)": "good",
        "most active units": "good",
        "highest AUROC": "sharp",
        "highest average precision": "sharp",
    }


def test_runs_of_different_beta_are_not_ranked_by_an_objective_that_beta_sets(tmp_path: Path):
    write_run(tmp_path / "s" / "a", history=better(0.5))
    write_run(tmp_path / "s" / "b", **{"train.kl_beta": 4.0, "annealing.kl_beta": 4.0})
    criteria = [w.criterion for w in Comparison.of(read_runs([str(tmp_path / "s")])).winners()]
    assert "lowest val/neg_elbo" not in criteria
    assert "lowest −ELBO at β = 1 (per sample)" in criteria


def test_nobody_wins_where_all_are_alike(tmp_path: Path):
    for name in "ab":
        write_run(tmp_path / "s" / name)
    assert Comparison.of(read_runs([str(tmp_path / "s")])).winners() == []


# ---------------------------------------------------------------- runs that cannot be compared


@pytest.mark.parametrize(
    ("broken", "reason"),
    [
        ({"state": "failed", "error": "train.lr=-1: must be\nabove 0"}, "failed: train.lr=-1: mu"),
        ({"state": "interrupted"}, "interrupted"),
        ({"state": "running"}, "running"),
        ({"state": None}, "unfinished"),
        ({"history": {}}, "logs/metrics.csv is missing, empty or damaged"),
        (
            {"history": HISTORY | {"val/neg_elbo": (float("nan"),) * 3}},
            "no finite val/neg_elbo in logs/metrics.csv",
        ),
    ],
)
def test_a_run_that_did_not_end_well_is_in_the_table_only(
    tmp_path: Path, broken: dict[str, Any], reason: str
):
    write_run(tmp_path / "s" / "good")
    write_run(tmp_path / "s" / "broken", **broken)
    comparison = Comparison.of(read_runs([str(tmp_path / "s")]))
    assert list(comparison.left_out) == ["broken"]
    assert comparison.left_out["broken"].startswith(reason)
    assert [standing.name for _, standing, _ in comparison.drawn()] == ["good"]
    compare(tmp_path / "s")
    assert set(table(tmp_path / "s" / "comparison")) == {"good", "broken"}
    assert reason in (tmp_path / "s" / "comparison" / "comparison.md").read_text(encoding="utf-8")


def test_half_a_row_at_the_end_of_a_killed_runs_log_stops_nothing(tmp_path: Path):
    write_run(tmp_path / "s" / "good")
    killed = write_run(tmp_path / "s" / "killed", state="running")
    with (killed / "logs" / "metrics.csv").open("a") as file:
        file.write("3,1e")
    compare(tmp_path / "s")
    assert table(tmp_path / "s" / "comparison")["killed"]["state"] == "running"


def test_a_job_that_failed_before_it_had_a_config_is_listed(tmp_path: Path):
    write_run(tmp_path / "s" / "good")
    (tmp_path / "s" / "bad").mkdir()
    (tmp_path / "s" / "bad" / "status.json").write_text('{"state": "failed", "error": "no key"}')
    compare(tmp_path / "s")
    assert table(tmp_path / "s" / "comparison")["bad"]["state"] == "failed"


def test_when_all_have_failed_there_is_a_table_and_no_figure(tmp_path: Path):
    write_run(tmp_path / "s" / "a", state="failed")
    compare(tmp_path / "s")
    written = {path.name for path in (tmp_path / "s" / "comparison").iterdir()}
    assert written == {"comparison.csv", "comparison.html", "comparison.md"}


@pytest.mark.parametrize(
    ("changes", "warning"),
    [
        ({"dataset.image_size": [64, 64]}, "different data (dataset.image_size differ)"),
        ({"choices.dataset": "chest_xray"}, "different data (dataset differ)"),
        ({"ids": ("a", "c")}, "validated on different samples"),
    ],
)
def test_runs_on_other_data_are_not_ranked_and_the_page_says_so(
    tmp_path: Path, changes: dict[str, Any], warning: str
):
    write_run(tmp_path / "s" / "a", history=better(0.5))
    write_run(tmp_path / "s" / "b", **changes)
    comparison = Comparison.of(read_runs([str(tmp_path / "s")]))
    assert comparison.winners() == []
    compare(tmp_path / "s")
    assert warning in (tmp_path / "s" / "comparison" / "comparison.html").read_text("utf-8")
    assert warning in (tmp_path / "s" / "comparison" / "comparison.md").read_text("utf-8")


# ---------------------------------------------------------------- differences of configs


def test_only_what_tells_the_runs_apart_is_a_difference(tmp_path: Path):
    cyclical = {
        "choices.annealing": "cyclical",
        "annealing._target_": "vaelab.objective.annealing.Cyclical",
        "annealing.cycles": 4,
        "annealing.kl_beta": 0.5,
        "train.kl_beta": 0.5,
        "name": "another",
        "task.then": None,
    }
    found = config_differences([config(tmp_path / "a"), config(tmp_path / "b", **cyclical)])
    assert found == {"annealing": ["linear", "cyclical"], "train.kl_beta": [1.0, 0.5]}


def test_an_options_own_key_is_a_difference_where_two_runs_set_it_apart(tmp_path: Path):
    chosen = {"choices.annealing": "cyclical", "annealing.cycles": 4}
    configs = [
        config(tmp_path / "a"),
        config(tmp_path / "b", **chosen),
        config(tmp_path / "c", **chosen | {"annealing.cycles": 2}),
    ]
    assert config_differences(configs)["annealing.cycles"] == [None, 4, 2]


def test_loading_is_no_difference_of_the_data_but_preparation_is():
    keys = ["dataset.batch_size", "dataset.phantoms.seed", "dataset.image_size", "train.lr"]
    differences: dict[str, list[Any]] = {key: [1, 2] for key in keys}
    assert data_differences(differences) == ["dataset.phantoms.seed", "dataset.image_size"]


def test_legends_name_runs_by_what_differs_and_by_folder_where_that_is_ambiguous(tmp_path: Path):
    write_run(tmp_path / "s" / "0")
    write_run(tmp_path / "s" / "1", **{"train.kl_beta": 4.0, "choices.annealing": "constant"})
    write_run(tmp_path / "s" / "2", **{"train.kl_beta": 4.0, "choices.annealing": "constant"})
    labels = [label for _, _, label in Comparison.of(read_runs([str(tmp_path / "s")])).drawn()]
    assert labels == ["linear, kl_beta 1", "1", "2"]


# ---------------------------------------------------------------- by the command line


def test_a_trained_run_is_compared_without_any_data(
    cli: CLI,
    phantoms: str,
    tmp_path: Path,
    real_figures: None,
    capfd: pytest.CaptureFixture[str],
):
    run = tmp_path / "sweep" / "annealing=linear,train.kl_beta=0.5"
    settings = ("train.kl_beta=0.5", "train.max_epochs=2", "~task.then")
    assert cli(*TINY_XRAY, phantoms, *settings, f"hydra.run.dir='{run}'") == 0
    assert cli("task=compare", f"task.runs={tmp_path / 'sweep'}") == 0
    assert not (tmp_path / "outputs" / "phantoms").exists()
    found = tmp_path / "sweep" / "comparison"
    assert {path.name for path in found.iterdir()} == PAGE_PARTS
    (own,) = (tmp_path / "outputs").iterdir()
    assert own.name.endswith("_compare")  # and not after a dataset, which it does not look at
    row = table(found)[run.name]
    assert (row["state"], row["epochs"], row["max_epochs"]) == ("done", "2", "2")
    assert float(row["neg_elbo_at_1"]) > float(row["recon"]) > 0
    assert cli("task=compare") == 1
    assert "task.runs=None" in capfd.readouterr().out
