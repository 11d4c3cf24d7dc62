"""What ``metrics.json`` holds comes back as it was, and a damaged one is refused by name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from vaelab.errors import UserError
from vaelab.evaluation.diagnostics import AggregatePosterior, KLParts, LogLikelihood
from vaelab.evaluation.localisation import Localisation
from vaelab.evaluation.map_tally import MapFigures
from vaelab.evaluation.predictions import ErrorWithin
from vaelab.evaluation.results import (
    Decisions,
    Evaluation,
    LatentUse,
    ObjectiveSums,
    Reconstruction,
)
from vaelab.evaluation.shift_alarm import ShiftAlarm
from vaelab.metrics.bootstrap import Estimate
from vaelab.metrics.detection import Detection
from vaelab.metrics.probes import Probe, Probes

DETECTION = Detection(0.9, 0.8, 0.7, 0.6, {"normal": 4, "sick": 2}, {"normal": {"0.5": 1.0}})
LITTLE = Evaluation(
    weights="vae_best.pth",
    score="KL",
    samples=1,
    reconstruction=Reconstruction(0.5, {"mse": {"t1c": 0.5}, "psnr_db": {"t1c": None}}),
    objective=ObjectiveSums(1.0, 8.0, 2.0, 10.0, {"loss": 10.0, "total_correlation": 3.0}),
    latent=LatentUse(None, 2, 2.0, [0.5, 1.5]),
)
MUCH = Evaluation(
    weights="vae_best.pth",
    score="Fused",
    samples=6,
    reconstruction=LITTLE.reconstruction,
    objective=LITTLE.objective,
    latent=LatentUse(
        1, 2, 2.0, [0.5, 1.5],
        KLParts(1.0, 0.5, 0.5, 1.79, 6),
        AggregatePosterior(0.1, 0.2, 0.3),
        LogLikelihood(-5.0, -6.0, 1.0, -0.5, 8, 10, 0.5),
    ),
    tumour=ErrorWithin(8.0, 2.0, 4.0),
    probes=Probes({"head_size": Probe(*[Estimate(0.5, 0.4, 0.6)] * 6, 6)}, 6, 3, 2, 2, 1),
    detection=DETECTION,
    detection_all=Detection(
        0.9, 0.8, 0.7, 0.6, {"normal": 4, "sick": 2}, {}, {"auroc": (0.8, 1.0)}
    ),
    detection_by_group={"virus": DETECTION},
    decisions=Decisions(0.05, "9 images", 9, None, 0.0, (0.0, 0.0), 0.0, 0.0),
    shift=ShiftAlarm("9 images", 3, 0.01, {"scores": 0.002}, True, True),
    localisation=Localisation(
        "pixel", "half", 3, "the other half", 3, "evidence of Fused", 0.4, (0.39, 0.41), 0.1, 0.3,
        0.35, 2.0, 0.2, 5, 4, 0.8, None, 3, Estimate(0.5, 0.4, 0.6), Estimate(0.3, 0.0, 0.6),
        {"blind": MapFigures(0.1, Estimate(0.1, 0.1, 0.1), Estimate(0.1, 0.1, 0.1), 0.2)},
    ),
)  # fmt: skip


@pytest.mark.parametrize("evaluation", [LITTLE, MUCH], ids=["little", "much"])
def test_a_file_is_read_as_it_was_written(evaluation: Evaluation, tmp_path: Path) -> None:
    path = tmp_path / "metrics.json"
    evaluation.write(path)
    assert Evaluation.read(path) == evaluation


def test_the_keys_of_the_file() -> None:
    content = json.loads(json.dumps(MUCH.to_json()))
    assert list(content) == [
        "weights", "score", "samples", "reconstruction", "objective", "latent", "tumour", "probes",
        "detection", "detection_all", "detection_by_group", "decisions", "shift",
        "localisation",
    ]  # fmt: skip
    assert content["reconstruction"] == {
        "mse": 0.5, "mse_per_channel": {"t1c": 0.5}, "psnr_db_per_channel": {"t1c": None},
    }  # fmt: skip
    assert content["objective"] == {
        "beta": 1.0, "recon_sum": 8.0, "kl_sum_nats": 2.0, "neg_elbo_sum": 10.0,
        "loss_sum": 10.0, "total_correlation_sum": 3.0,
    }  # fmt: skip
    assert content["detection_all"]["intervals_95_percent"] == {"auroc": [0.8, 1.0]}
    assert content["decisions"]["threshold"] is None


def test_what_is_not_known_is_absent_and_what_has_no_value_is_null() -> None:
    content = LITTLE.to_json()
    assert list(content)[-1] == "latent"
    assert list(content["latent"]) == [
        "active_units", "units", "kl_nats_per_sample", "kl_nats_per_unit",
    ]  # fmt: skip
    assert content["latent"]["active_units"] is None
    assert "intervals_95_percent" not in MUCH.to_json()["detection"]


def without_latent(content: dict[str, Any]) -> str:
    return json.dumps({key: value for key, value in content.items() if key != "latent"})


def with_a_word(content: dict[str, Any]) -> str:
    return json.dumps(content | {"samples": "many"})


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (without_latent, "latent: Field required"),
        (with_a_word, "samples: Input should be a valid integer"),
        (lambda content: json.dumps(content)[:50], "evaluate the run anew"),
        (lambda content: "[]", "evaluate the run anew"),
    ],
)
def test_a_damaged_file_is_refused_with_the_place_and_the_cure(
    damage: Any, reason: str, tmp_path: Path
) -> None:
    path = tmp_path / "metrics.json"
    path.write_text(damage(MUCH.to_json()))
    with pytest.raises(UserError, match=r"metrics\.json: not what task=evaluate writes") as told:
        Evaluation.read(path)
    assert reason in str(told.value)


def test_a_run_that_was_not_evaluated_is_told_how() -> None:
    with pytest.raises(UserError, match="evaluate the run first with task=evaluate"):
        Evaluation.read(Path("nowhere/metrics.json"))
