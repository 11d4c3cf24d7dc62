"""Claims about calibrating by normal images of another machine."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ..conftest import CLI


@pytest.fixture
def normals(tmp_path: Path) -> Path:
    """Twenty patients, of whom the first has two images; one image of another size."""
    folder = tmp_path / "normals"
    folder.mkdir()
    draw = np.random.default_rng(0)
    for name in [*(f"person{n}_0" for n in range(1, 21)), "person1_1"]:
        pixels = draw.integers(0, 256, (40, 40), np.uint8)
        Image.fromarray(pixels).save(folder / f"{name}.png")
    return folder


def predicted(run_dir: Path) -> tuple[list[dict[str, str]], dict[str, Any]]:
    with (run_dir / "predictions" / "predictions.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    return rows, json.loads((run_dir / "predictions" / "predictions.json").read_text())


def test_new_images_are_judged_by_the_local_calibration_until_it_is_taken_away(
    cli: CLI, run_2d: Path, normals: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert cli("task=evaluate", f"run_dir={run_2d}", "task.num_resamples=1") == 0
    own = (run_2d / "calibration.json").read_text()
    assert cli("task=calibrate", f"run_dir={run_2d}", f"task.inputs={normals}") == 0
    assert "allows task.alpha from 0.0476 (1/21) on" in capfd.readouterr().out
    assert (run_2d / "calibration.json").read_text() == own
    predict = ("task=predict", f"run_dir={run_2d}", f"task.inputs={normals}")
    assert cli(*predict, "task.save_maps=false") == 0
    rows, summary = predicted(run_2d)
    # One image of each patient calibrates: each of these 20 is one of the k largest, k/21.
    first = [float(row["p_value"]) for row in rows if row["file"] != "person1_1.png"]
    assert sorted(first) == pytest.approx([(1 + rank) / 21 for rank in range(1, 21)])
    assert {row["calibration"] for row in rows} == {f"20 normal images of {normals}"}
    assert summary["calibration"]["source"] == f"20 normal images of {normals}"
    assert summary["calibration"]["smallest_alpha"] == 1 / 21
    # They are those that it was calibrated on, and noise, unlike the run's own radiographs.
    assert {row["p_values_hold"] for row in rows} == {"no difference found"}
    assert summary["shift"]["alarm"] is False
    assert cli("task=calibrate", f"run_dir={run_2d}", "task.remove=true") == 0
    assert cli(*predict, "task.save_maps=false") == 0
    rows, summary = predicted(run_2d)
    assert {row["calibration"] for row in rows} == {summary["calibration"]["source"]}
    assert "the run's own val split" in summary["calibration"]["source"]


def test_a_local_calibration_of_another_score_decides_nothing(
    cli: CLI, run_2d: Path, normals: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert cli("task=evaluate", f"run_dir={run_2d}", "score=kl", "task.num_resamples=1") == 0
    assert cli("task=calibrate", f"run_dir={run_2d}", f"task.inputs={normals}") == 0
    predict = ("task=predict", f"run_dir={run_2d}", f"task.inputs={normals}", "score=kl")
    assert cli(*predict, "task.save_maps=false") == 0
    assert "repeat task=calibrate, or take it away" in capfd.readouterr().out
    rows, summary = predicted(run_2d)
    assert {row["p_value"] for row in rows} == {""}  # the run's own would promise something else
    assert "calibration" not in summary


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "task.inputs is not set"),
        (["task.inputs=few"], "at least 20 patients are needed"),
        (["task.inputs=absent"], "does not exist"),
        (["task.inputs=cut"], "1 of 20 inputs could not be read, and nothing was calibrated"),
        (["task.remove=true"], "task.remove=true: there is no "),
        (["task.remove=true", "task.inputs=few"], "leave task.inputs out"),
    ],
)
def test_what_cannot_calibrate_is_refused_in_a_sentence(
    cli: CLI,
    run_2d: Path,
    normals: Path,
    capfd: pytest.CaptureFixture[str],
    arguments: list[str],
    message: str,
) -> None:
    for name, chosen in (("few", ["person1_0", "person1_1"]), ("cut", range(1, 21))):
        Path(name).mkdir()
        for item in chosen:
            file = f"{item}.png" if name == "few" else f"person{item}_0.png"
            (Path(name) / file).write_bytes((normals / file).read_bytes())
    (Path("cut") / "person7_0.png").write_bytes(b"no image")
    assert cli("task=calibrate", "run_dir=run", *arguments) == 1
    shown = capfd.readouterr().out
    assert message in shown
    assert "Traceback" not in shown
    assert not (run_2d / "calibration_local.json").exists()
