"""What a run keeps of its judgement, and when it is out of date."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from vaelab.anomaly.scores import KL, CentralResidual, Fused, SmoothedResidual
from vaelab.evaluation.kept import describe_score

from ..conftest import CLI, TINY_XRAY


@pytest.fixture(scope="module")
def judged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the first test that needs a run leaves it for the others."""
    return tmp_path_factory.mktemp("judged") / "run"


@pytest.fixture
def run_dir(cli: CLI, phantoms: str, judged: Path, tmp_path: Path) -> Path:
    if not judged.exists():
        arguments = ("~task.then", "train.max_epochs=1", "score=central_residual")
        assert cli(*TINY_XRAY, phantoms, *arguments, f"run_dir={judged}") == 0
        assert cli("task=evaluate", f"run_dir={judged}", "task.num_resamples=1") == 0
    return Path(shutil.copytree(judged, tmp_path / "run"))


def content_of(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(path.read_text())
    return content


def test_a_score_is_told_by_its_class_and_all_its_arguments() -> None:
    assert describe_score(CentralResidual(width=0.4))["arguments"] == {
        "grid": 32, "sigma": 1.5, "width": 0.4, "positive": 1.0,
    }  # fmt: skip
    fused = describe_score(Fused({"kl": KL(), "block": SmoothedResidual((4, 8))}))
    assert fused["arguments"]["scores"]["block"] == {
        "score": "SmoothedResidual", "arguments": {"blocks": [4, 8]},
    }  # fmt: skip
    json.dumps(fused, allow_nan=False)


@pytest.mark.parametrize(
    ("override", "reason"),
    [
        ("score=kl", "is of score CentralResidual, not KL"),
        ("score.width=0.3", "is of arguments"),
    ],
)
def test_a_calibration_of_another_score_decides_nothing(
    cli: CLI, run_dir: Path, capfd: pytest.CaptureFixture[str], override: str, reason: str
) -> None:
    images = content_of(run_dir / "calibration.json")
    assert images["count"] == len(images["scores"])
    arguments = ("task=robustness", "run_dir=run", "task.shifts=[blur]")
    assert cli(*arguments) == 0
    assert content_of(run_dir / "robustness.json")["clean"]["false_alarm_rate"] is not None
    assert cli(*arguments, override) == 0
    assert reason in capfd.readouterr().out
    assert content_of(run_dir / "robustness.json")["clean"]["false_alarm_rate"] is None


def test_a_calibration_of_other_weights_decides_nothing(
    cli: CLI, run_dir: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert cli("resume=run", "train.max_epochs=2", "~task.then") == 0
    assert cli("task=robustness", "run_dir=run", "task.shifts=[blur]") == 0
    assert "is of weights_sha256" in capfd.readouterr().out


def test_heat_maps_keep_their_scale_until_weights_or_maps_change(cli: CLI, run_dir: Path) -> None:
    path = run_dir / "heat_scale.json"
    assert cli("task=report_card", "run_dir=run") == 0
    first = content_of(path)
    assert first["scale"] > 0
    path.write_text(json.dumps(first | {"scale": 123.0}))
    assert cli("task=report_card", "run_dir=run") == 0
    assert content_of(path)["scale"] == 123.0
    assert cli("task=report_card", "run_dir=run", "map_sigma=2") == 0
    smoothed = content_of(path)
    assert smoothed["scale"] < first["scale"]  # smoothing takes peaks away
    assert smoothed["quantity"] == "evidence of CentralResidual"
    assert cli("task=report_card", "run_dir=run", "score=kl") == 0
    assert content_of(path)["quantity"] == "|x − x̂|, since KL has no place"
