"""What task=stability says of runs that are copies, of two seeds, and of one that collapsed."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch

from vaelab.assembly import Run
from vaelab.cli.run_config import RunConfig
from vaelab.errors import UserError
from vaelab.evaluation.rescan import Rescan
from vaelab.latents import seed_runs
from vaelab.latents.seed_runs import train_seeds
from vaelab.latents.sources import Source
from vaelab.latents.spaces import first_scans, names_of
from vaelab.runs.history import read_history
from vaelab.runs.status import Status, read_status
from vaelab.tasks.stability import Stability, Thresholds
from vaelab.training.module import VAELitModule

from ..conftest import CLI, TINY_MRI

COHORT = ("dataset.phantoms.num_patients=12", "dataset.phantoms.num_followups=2")
ARGUMENTS = ("~task.then", "train.max_epochs=1", "train.kl_annealing_epochs=1")
QUICK = ("task=stability", "task.num_resamples=50", "task.neighbours=3")
BETWEEN = ("aligned_r2", "linear_cka", "distance_rank_correlation", "neighbour_agreement")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the first test that needs a run leaves it for the others."""
    return tmp_path_factory.mktemp("trained") / "run"


@pytest.fixture
def run_dir(cli: CLI, phantoms: str, trained: Path, tmp_path: Path) -> Path:
    if not trained.exists():
        assert cli(*TINY_MRI, *COHORT, phantoms, *ARGUMENTS, f"run_dir={trained}") == 0
    return Path(shutil.copytree(trained, tmp_path / "run"))


def run_of(run_dir: Path) -> Run:
    config = RunConfig.load(run_dir)
    config.values.run_dir = str(run_dir)
    config.values.task = {"_target_": "vaelab.tasks.stability.Stability"}
    return config.build()[1]


def result_of(run_dir: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((run_dir / "stability.json").read_text())
    return content


def weights_of(run: Path) -> dict[str, torch.Tensor]:
    state: dict[str, torch.Tensor] = torch.load(run / "checkpoints" / "vae_best.pth")
    return state


def test_a_run_and_its_copy_have_one_space(
    cli: CLI, run_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    shutil.copytree(run_dir, tmp_path / "copy")
    spacings: list[list[float]] = []
    original = Rescan.__call__

    def listening(self: Rescan, x: Any, generator: Any, spacing: Any) -> Any:
        spacings.append(spacing)
        return original(self, x, generator, spacing)

    monkeypatch.setattr(Rescan, "__call__", listening)
    assert cli(*QUICK, f"run_dir={run_dir}", f"task.runs=[{tmp_path / 'copy'}]") == 0
    result = result_of(run_dir)
    for name in BETWEEN:
        measure = result["measures"][name]
        assert measure["estimate"]["value"] == pytest.approx(1)
        assert measure["estimate"]["low"] == pytest.approx(1)
        assert measure["verdict"] == "stable"
        assert list(measure["each"]) == ["run – copy"]
    assert json.loads((run_dir / "status.json").read_text())["state"] == "done"
    # A rescan's shift is in mm, of these voxels.
    assert spacings
    assert all(list(spacing) == [12, 12, 12] for spacing in spacings)
    assert result["rescan"] == asdict(Rescan()) | {"unit": "mm", "repeats": 2}
    assert "standard deviation of 1 mm along each axis" in (run_dir / "stability.md").read_text()


def test_runs_of_two_seeds_are_compared_in_a_table_and_a_picture(
    cli: CLI, run_dir: Path, phantoms: str, tmp_path: Path
):
    other = ("train.seed=7", "run_dir=sweep/other")
    assert cli(*TINY_MRI, *COHORT, phantoms, *ARGUMENTS, *other) == 0
    assert cli(*QUICK, f"run_dir={run_dir}", "task.runs=[sweep]") == 0
    result = result_of(run_dir)
    assert (result["scans"], result["patients"]) == (14, 12)
    assert [run["name"] for run in result["runs"]] == ["run", "other"]
    for name, measure in result["measures"].items():
        found = measure["estimate"]
        assert found["low"] <= found["high"] <= 1
        expected = "stable" if found["low"] >= measure["threshold"] else "not stable"
        if not found["low"] < measure["threshold"] <= found["high"]:
            assert measure["verdict"] == expected
        assert f"{found['value']:.2f}" in (run_dir / "stability.md").read_text(), name
    assert result["measures"]["aligned_r2"]["estimate"]["value"] < 0.99  # not the same network
    assert f"# The latent space is {result['verdict']}" in (run_dir / "stability.md").read_text()
    assert (run_dir / "figures" / "stability.png").stat().st_size > 10_000


def test_a_collapsed_run_is_named_and_nothing_is_stable(cli: CLI, run_dir: Path, tmp_path: Path):
    flat = shutil.copytree(run_dir, tmp_path / "flat")
    state = weights_of(flat)
    state["mu_head.weight"].zero_()
    torch.save(state, flat / "checkpoints" / "vae_best.pth")
    assert cli(*QUICK, f"run_dir={run_dir}", f"task.runs=[{flat}]") == 0
    result = result_of(run_dir)
    assert result["verdict"] == "not stable"
    assert "flat" in result["collapsed"]
    assert result["measures"]["aligned_r2"]["estimate"]["value"] == pytest.approx(0)


def test_the_validation_split_alone_can_be_asked_for(cli: CLI, run_dir: Path, tmp_path: Path):
    shutil.copytree(run_dir, tmp_path / "copy")
    arguments = (*QUICK, f"run_dir={run_dir}", f"task.runs=[{tmp_path / 'copy'}]")
    # 5 of 12 patients: too few to fit and score an alignment.
    assert cli(*arguments, "task.subjects=val", "task.neighbours=1") == 1
    assert not (run_dir / "stability.json").exists()


class PowerFailureError(Exception):
    pass


@pytest.fixture
def started(cli: CLI, monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """What seeds were started with; they are trained in this process, which costs no import."""
    calls: list[list[str]] = []

    def here(folder: Path, arguments: list[str]) -> Status:
        calls.append(list(arguments))
        assert cli(*arguments) in (0, 1)
        return read_status(folder) or Status("failed")

    monkeypatch.setattr(seed_runs, "run_apart", here)
    return calls


def test_a_seed_is_trained_once_on_the_split_of_the_run(
    cli: CLI, started: list[list[str]], run_dir: Path
):
    child = run_dir / "seeds" / "seed_5"
    assert train_seeds(run_of(run_dir), [5]) == [child]
    first = (child / "checkpoints" / "vae_best.pth").stat().st_mtime_ns
    assert not (child / "splits").exists()  # the run's own is used
    assert not torch.equal(
        weights_of(child)["mu_head.weight"], weights_of(run_dir)["mu_head.weight"]
    )
    assert cli(*QUICK, f"run_dir={run_dir}", "task.seeds=[5]") == 0
    assert [run["name"] for run in result_of(run_dir)["runs"]] == ["run", "seed_5"]
    assert (child / "checkpoints" / "vae_best.pth").stat().st_mtime_ns == first
    assert len(started) == 1


def test_a_seed_that_was_cut_off_goes_on_with_the_same_command(
    started: list[list[str]], run_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    config = run_dir / "config_resolved.yaml"
    config.write_text(config.read_text().replace("max_epochs: 1\n", "max_epochs: 3\n"))
    undisturbed = run_of(shutil.copytree(run_dir, tmp_path / "undisturbed"))
    (whole,) = train_seeds(undisturbed, [5])

    validate, validated = VAELitModule.on_validation_epoch_end, 0

    def failing(self: VAELitModule) -> None:
        nonlocal validated
        validated += 1
        if validated == 2:
            raise PowerFailureError
        validate(self)

    monkeypatch.setattr(VAELitModule, "on_validation_epoch_end", failing)
    with pytest.raises(UserError, match=r"training of seed 5 failed: .*the same command goes on"):
        train_seeds(run_of(run_dir), [5])
    child = run_dir / "seeds" / "seed_5"
    assert len(read_history(child / "logs" / "metrics.csv")["train/loss"]) == 1
    monkeypatch.setattr(VAELitModule, "on_validation_epoch_end", validate)
    assert train_seeds(run_of(run_dir), [5]) == [child]
    assert started[-1] == [f"resume={child}"]
    metrics = [(seed / "logs" / "metrics.csv").read_bytes() for seed in (whole, child)]
    assert metrics[0] == metrics[1]
    assert torch.equal(weights_of(whole)["mu_head.weight"], weights_of(child)["mu_head.weight"])

    assert train_seeds(run_of(run_dir), [5]) == [child]
    assert len(started) == 3  # what is done is not done again


def test_a_seed_that_was_cut_off_before_its_first_checkpoint_starts_anew(
    run_dir: Path, monkeypatch: pytest.MonkeyPatch
):
    left = run_dir / "seeds" / "seed_5" / "config_resolved.yaml"  # a new run would be refused
    left.parent.mkdir(parents=True)
    left.touch()
    begun: list[str] = []

    def begin(folder: Path, arguments: list[str]) -> Status:
        assert not left.exists()
        begun.extend(arguments)
        return Status("done")

    monkeypatch.setattr(seed_runs, "run_apart", begin)
    train_seeds(run_of(run_dir), [5])
    assert begun[-1] == f"run_dir={left.parent}"


def test_one_run_is_not_enough(cli: CLI, run_dir: Path, capfd: pytest.CaptureFixture[str]):
    assert cli(*QUICK, f"run_dir={run_dir}") == 1
    assert "at least two runs are needed, found 1" in capfd.readouterr().out


def test_a_folder_without_runs_is_refused(
    cli: CLI, run_dir: Path, capfd: pytest.CaptureFixture[str]
):
    assert cli(*QUICK, f"run_dir={run_dir}", "task.runs=[nowhere]") == 1
    assert "task.runs=nowhere: there is no such folder" in capfd.readouterr().out


def test_more_neighbours_than_patients_allow_are_refused(
    cli: CLI, run_dir: Path, capfd: pytest.CaptureFixture[str]
):
    assert cli(*QUICK, f"run_dir={run_dir}", "task.neighbours=6") == 1
    assert "task.neighbours=6: 12 patients are too few; at least 14" in capfd.readouterr().out


def scan(patient: str, time_point: int) -> Source:
    return Source(f"{patient}-{time_point}", patient, time_point, "train", {})


def test_each_patient_counts_with_the_first_time_point():
    scans = [scan("a", 1), scan("b", 0), scan("a", 0), scan("b", 1)]
    assert sorted(first_scans(scans)) == [1, 2]


def test_runs_of_one_name_are_told_apart_by_the_folder_above():
    paths = [Path("x/1"), Path("y/1"), Path("x/2")]
    assert names_of(paths) == ["x/1", "y/1", "2"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"subjects": "test"}, r"task\.subjects=test: one of all, val"),
        ({"rescans": 1}, r"task\.rescans=1: at least 2"),
        ({"neighbours": 0}, r"task\.neighbours=0"),
        ({"num_resamples": 0}, r"task\.num_resamples=0"),
        ({"seeds": [1, 1]}, r"task\.seeds=\[1, 1\]"),
        ({"seeds": [-1]}, r"task\.seeds=\[-1\]"),
    ],
)
def test_what_cannot_work_is_refused(arguments: dict[str, Any], message: str):
    with pytest.raises(UserError, match=message):
        Stability(**arguments)


def test_a_threshold_that_chance_would_pass_is_refused():
    with pytest.raises(UserError, match=r"task\.thresholds\.same_patient_auroc=0\.5"):
        Thresholds(same_patient_auroc=0.5)
    with pytest.raises(UserError, match=r"task\.thresholds\.rescan_icc=1\.1"):
        Thresholds(rescan_icc=1.1)


def test_the_defaults_of_the_class_are_those_of_the_config():
    assert Stability().rescan == Rescan()
    assert Stability().thresholds == Thresholds()
