"""task=search: what it tries, what it keeps, and how it goes on."""

from __future__ import annotations

import csv
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from vaelab.errors import UserError
from vaelab.runs.folder import RunFolder
from vaelab.runs.status import Status, begin, end
from vaelab.tasks import search as module
from vaelab.tasks.search import Search

from ..conftest import CLI, TINY_XRAY

optuna = pytest.importorskip("optuna")

SPACE = {"train.lr": {"low": 1e-4, "high": 1e-2, "log": True}, "annealing": ["linear", "constant"]}


class Trials:
    """Stands in for training: the value of a trial is 1000 times its learning rate."""

    def __init__(self, failing: Sequence[int] = ()) -> None:
        self.failing = failing
        self.arguments: list[list[str]] = []

    def __call__(self, place: Path, arguments: Sequence[str], console: Path) -> Status:
        assert console == place / "console.log"
        self.arguments.append(list(arguments))
        if int(place.name.removeprefix("trial_")) in self.failing:
            return Status("failed", error="out of\nmemory")
        chosen = dict(argument.split("=", 1) for argument in arguments if "=" in argument)
        return Status("done", value=1000 * float(chosen["train.lr"]))


@pytest.fixture
def trials(monkeypatch: pytest.MonkeyPatch) -> Trials:
    stand_in = Trials()
    monkeypatch.setattr(module, "run_apart", stand_in)
    return stand_in


def search(folder: Path, **settings: Any) -> float:
    folder.mkdir(exist_ok=True)
    task = Search(**({"space": SPACE, "trials": 4} | settings))
    run: Any = SimpleNamespace(
        folder=RunFolder(folder),
        train=SimpleNamespace(seed=0),
        logging=SimpleNamespace(progress_bar=False),
    )
    return task(run)


def table(folder: Path) -> list[dict[str, str]]:
    with (folder / "trials.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


# ---------------------------------------------------------------- a search


def test_the_best_trial_is_the_one_with_the_smallest_value(trials: Trials, tmp_path: Path):
    value = search(tmp_path)
    rows = table(tmp_path)
    assert [row["state"] for row in rows] == ["complete"] * 4
    best = min(rows, key=lambda row: float(row["value"]))
    assert value == float(best["value"]) == pytest.approx(1000 * float(best["train.lr"]))
    kept = yaml.safe_load((tmp_path / "best.yaml").read_text())
    assert kept["trial"] == f"trial_{best['trial']}"
    assert kept["parameters"]["train.lr"] == float(best["train.lr"])
    assert f"train.lr={best['train.lr']}" in kept["command"]
    assert (tmp_path / "search.png").read_bytes().startswith(b"\x89PNG")


def test_each_trial_has_a_folder_the_shared_overrides_and_its_own_choice(
    trials: Trials, tmp_path: Path
):
    overrides = {"experiment": "demo", "dataset.root_dir": "/my data/it's", "dataset.roi": [8, 8]}
    search(tmp_path, trials=2, overrides=overrides)
    first, second = trials.arguments
    assert "experiment=demo" in first
    assert r"dataset.root_dir='/my data/it\'s'" in first
    assert "dataset.roi=[8,8]" in first
    assert "~task.then" in first
    assert (first[-1], second[-1]) == (f"run_dir={tmp_path}/trial_0", f"run_dir={tmp_path}/trial_1")
    assert all(any(a.startswith("annealing=") for a in call) for call in trials.arguments)


def test_judged_trials_keep_what_follows_training(trials: Trials, tmp_path: Path):
    search(tmp_path, trials=1, judge=True)
    assert "~task.then" not in trials.arguments[0]


def test_the_same_seed_chooses_the_same_trials(trials: Trials, tmp_path: Path):
    search(tmp_path / "a")
    search(tmp_path / "b")
    assert table(tmp_path / "a") == table(tmp_path / "b")


# ---------------------------------------------------------------- failures


def test_a_failed_trial_is_recorded_and_the_others_go_on(trials: Trials, tmp_path: Path):
    trials.failing = [1]
    search(tmp_path)
    assert [row["state"] for row in table(tmp_path)] == ["complete", "fail", "complete", "complete"]


def test_a_search_in_which_all_fails_at_first_is_given_up(trials: Trials, tmp_path: Path):
    trials.failing = range(20)
    with pytest.raises(UserError, match=r"first 3 trials have failed, trial_2 so: out of memory"):
        search(tmp_path, trials=20)


def test_a_value_that_is_not_finite_is_a_failure(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setattr(module, "run_apart", lambda *_: Status("done", value=None))
    with pytest.raises(UserError, match="it ended done, without a value"):
        search(tmp_path, trials=1)


@pytest.mark.parametrize(
    ("space", "complaint"),
    [
        (None, r"task\.space=None: say what to search"),
        ({"a": []}, r"task\.space\.a=\[\]: choices must be"),
        ({"a": [[1, 2]]}, r"choices must be numbers, words or booleans"),
        ({"a": 3}, r"task\.space\.a=3: must be \[choices\] or"),
        ({"a": {"low": 1}}, r"must be \[choices\] or"),
        ({"a": {"low": 1, "high": 2, "step": 3}}, r"must be \[choices\] or"),
        ({"a": {"low": 2, "high": 1}}, r"low must be below high"),
        ({"a": {"low": 0, "high": 1, "log": True}}, r"above 0 where log is true"),
        ({"a": {"low": "x", "high": 1}}, r"low and high must be numbers"),
    ],
)
def test_spaces_that_cannot_be_searched_are_refused(space: Any, complaint: str):
    with pytest.raises(UserError, match=complaint):
        Search(space)


def test_whole_ends_make_whole_numbers(trials: Trials, tmp_path: Path):
    search(tmp_path, space=SPACE | {"model.z_dim": {"low": 4, "high": 64, "log": True}})
    assert all(4 <= int(row["model.z_dim"]) <= 64 for row in table(tmp_path))


def test_without_optuna_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(UserError, match=r"pip install -e '\.\[search\]'"):
        Search(SPACE)


@pytest.mark.parametrize("monitor", [None, "val/neg_elbo", "val/recon_per_voxel"])
def test_searching_beta_by_what_beta_weighs_is_warned_of(
    trials: Trials, tmp_path: Path, caplog: pytest.LogCaptureFixture, monitor: str | None
):
    overrides = {} if monitor is None else {"train.monitor": monitor}
    space = SPACE | {"train.kl_beta": [0.1, 1.0]}
    search(tmp_path, space=space, trials=1, overrides=overrides)
    assert ("a small beta wins" in caplog.text) == (monitor != "val/recon_per_voxel")


# ---------------------------------------------------------------- going on


def test_the_same_command_goes_on_and_repeats_nothing(trials: Trials, tmp_path: Path):
    search(tmp_path, trials=3)
    before = table(tmp_path)
    search(tmp_path, trials=3)
    assert len(trials.arguments) == 3
    search(tmp_path, trials=5)
    assert len(trials.arguments) == 5
    assert table(tmp_path)[:3] == before
    assert len({row["train.lr"] for row in table(tmp_path)}) == 5  # no point was drawn again


def test_another_question_in_the_same_folder_is_refused(trials: Trials, tmp_path: Path):
    search(tmp_path)
    with pytest.raises(UserError, match=r"holds a search with another task\.overrides"):
        search(tmp_path, overrides={"experiment": "demo"})


def cut_off(trials: Trials, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A search that ended within its second trial; returns the trial's folder."""

    def killed(place: Path, arguments: Sequence[str], console: Path) -> Status:
        if place.name == "trial_1":
            begin(place)
            raise KeyboardInterrupt
        return trials(place, arguments, console)

    monkeypatch.setattr(module, "run_apart", killed)
    with pytest.raises(KeyboardInterrupt):
        search(folder)
    monkeypatch.setattr(module, "run_apart", trials)
    return folder / "trial_1"


def test_a_trial_that_was_cut_off_is_resumed(
    trials: Trials, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    place = cut_off(trials, tmp_path, monkeypatch)
    (place / "checkpoints").mkdir()
    (place / "checkpoints" / "last.ckpt").touch()
    resumed: list[list[str]] = []

    def train(place: Path, arguments: Sequence[str], console: Path) -> Status:
        if arguments[0].startswith("resume="):
            resumed.append(list(arguments))
            return Status("done", value=0.5)
        return trials(place, arguments, console)

    monkeypatch.setattr(module, "run_apart", train)
    search(tmp_path)
    assert resumed == [[f"resume={place}", "logging.progress_bar=false"]]
    assert [row["state"] for row in table(tmp_path)] == ["complete"] * 4
    assert table(tmp_path)[1]["value"] == "0.5"


def test_a_trial_that_was_cut_off_before_its_first_checkpoint_starts_anew(
    trials: Trials, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    place = cut_off(trials, tmp_path, monkeypatch)
    (place / "config_resolved.yaml").touch()
    search(tmp_path)
    assert not (place / "config_resolved.yaml").exists()
    assert trials.arguments[1][-1] == f"run_dir={place}"


def test_a_trial_that_ended_as_the_search_was_cut_off_is_not_trained_again(
    trials: Trials, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    place = cut_off(trials, tmp_path, monkeypatch)
    end(place, "done", 0.25)
    search(tmp_path)
    assert table(tmp_path)[1]["value"] == "0.25"
    assert len(trials.arguments) == 3


def test_a_trial_whose_process_was_killed_goes_on_once_before_it_is_a_failure(
    trials: Trials, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    killed = {"trial_0": 1, "trial_1": 2}

    def train(place: Path, arguments: Sequence[str], console: Path) -> Status:
        killed[place.name] = killed.get(place.name, 0) - 1
        if killed[place.name] >= 0:
            return Status("cut off", error="ended by signal 9")
        return trials(place, arguments, console)

    monkeypatch.setattr(module, "run_apart", train)
    search(tmp_path, trials=3)
    assert [row["state"] for row in table(tmp_path)] == ["complete", "fail", "complete"]


HOLDS = """
import sys, time
from pathlib import Path
from vaelab.runs.status import end, locked
folder = Path(sys.argv[1])
with locked(folder):
    print("locked", flush=True)
    time.sleep(float(sys.argv[2]))
    if len(sys.argv) > 3:
        end(folder, "done", float(sys.argv[3]))
"""


def hold(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    """Another process that holds the lock of a folder."""
    folder.mkdir(exist_ok=True, parents=True)
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDS, str(folder), *arguments], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "locked\n"
    return process


def test_two_searches_do_not_work_on_one_study(trials: Trials, tmp_path: Path):
    with hold(tmp_path / ".study", "60") as other:
        with pytest.raises(UserError, match="another search works on this study"):
            search(tmp_path)
        other.kill()
    search(tmp_path)


def test_a_trial_that_outlived_its_search_is_waited_for(
    trials: Trials, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    place = cut_off(trials, tmp_path, monkeypatch)
    with hold(place, "4", "0.125"):
        search(tmp_path)
    assert table(tmp_path)[1]["value"] == "0.125"


@pytest.mark.slow
def test_a_search_through_the_door_trains_and_goes_on(cli: CLI, phantoms: str, tmp_path: Path):
    keys = dict(argument.split("=", 1) for argument in [*TINY_XRAY, phantoms])
    shared = ", ".join(f"{key}: {value}" for key, value in keys.items())
    command = (
        "task=search", "task.trials=1", f"task.overrides={{{shared}}}",
        "task.space={train.lr: {low: 1e-4, high: 1e-2, log: true}}",
        "logging.progress_bar=false",
    )  # fmt: skip
    assert cli(*command) == 0
    (folder,) = tmp_path.glob("outputs/*_search")
    assert (folder / "trial_0" / "checkpoints" / "vae_m4_best.pth").is_file()
    assert not (folder / "trial_0" / "metrics.json").exists()
    # A second trial that ended just before the search was cut off, which saves a process here.
    shutil.copytree(folder / "trial_0", folder / "trial_1")
    assert cli(*command, "task.trials=2", f"run_dir={folder}") == 0
    assert [row["state"] for row in table(folder)] == ["complete"] * 2
    assert cli("task=compare", f"task.runs={folder}") == 0
    with (folder / "comparison" / "comparison.csv").open() as file:
        assert [row["run"] for row in csv.DictReader(file)] == ["trial_0", "trial_1"]
