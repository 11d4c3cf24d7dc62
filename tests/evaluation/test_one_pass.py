"""What is judged goes through the network once, however many tasks follow a training."""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from vaelab.assembly import Run, Task
from vaelab.cli.run_config import RunConfig
from vaelab.evaluation.judge import Judge, judge_of
from vaelab.evaluation.results import Evaluation
from vaelab.latents.table import read_latents
from vaelab.models.vae import VAE
from vaelab.tasks.encode import Encode
from vaelab.tasks.evaluate import Evaluate
from vaelab.tasks.report import Report
from vaelab.tasks.report_card import ReportCard

from ..conftest import CLI, TINY_MRI

SHOWN = {"card": 2, "report": 3}
"""Cases that pictures show; these alone may go through the network again."""


class Counting(VAE):
    """A model that counts how often it has seen each image."""

    def __init__(self, model: VAE) -> None:
        super().__init__()
        self.model = model
        self.z_dim = model.z_dim
        self.seen: Counter[bytes] = Counter()
        self.loaded = 0

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        self.seen.update(image.contiguous().numpy().tobytes() for image in x)
        return self.model.encode(x)

    def decode(self, z: Tensor) -> Tensor:
        return self.model.decode(z)

    def load_state_dict(self, *arguments: Any, **options: Any) -> Any:
        self.loaded += 1
        return self.model.load_state_dict(*arguments, **options)


def run_of(folder: Path) -> tuple[Run, Counting]:
    """A trained run whose model counts."""
    config = RunConfig.load(folder)
    config.values.run_dir = str(folder)
    config.values.task = {"_target_": "vaelab.tasks.evaluate.Evaluate"}
    _, run = config.build()
    model = Counting(run.model)
    return run.replacing(model=model), model


def tasks(**evaluate: Any) -> list[Task]:
    """Those that follow a training, with few pictures."""
    return [
        Evaluate(num_resamples=5, importance_samples=2, **evaluate),
        ReportCard(num_cases=SHOWN["card"]),
        Encode(umap=False),
        Report(max_cases=SHOWN["report"]),
    ]


def records_of(run: Run) -> int:
    return len({record["id"] for records in run.data.splits.values() for record in records})


@pytest.mark.parametrize("score", ["squared_error", "fused"])
def test_after_a_training_on_x_rays_each_image_is_judged_once(
    score: str, cli: CLI, run_2d: Path
) -> None:
    run, model = run_of(run_2d)
    if score == "fused":
        from vaelab.anomaly.scores import KL, Fused, SquaredError

        run = run.replacing(score=Fused({"kl": KL(), "error": SquaredError()}))
    for task in tasks():
        task(run)
    records = records_of(run)
    assert records == len(model.seen) == 18 + 2 + 12
    fitted = 2 * 1 if score == "fused" else 0  # the score has to know the held-out images first
    pictures = SHOWN["card"] + SHOWN["report"]
    assert model.seen.total() == records + fitted + pictures
    assert model.seen.total() <= 1.5 * records
    assert model.loaded == 1


def test_after_a_training_on_volumes_each_is_judged_once_probes_and_all(
    cli: CLI, phantoms: str, tmp_path: Path
) -> None:
    cohort = ("dataset.phantoms.num_patients=12", "dataset.phantoms.num_followups=2")
    arguments = (*TINY_MRI, *cohort, phantoms, "~task.then", "train.max_epochs=1")
    assert cli(*arguments, "run_dir=run") == 0
    run, model = run_of(tmp_path / "run")
    for task in tasks(probe_factors=["head_size"]):
        task(run)
    evaluation = Evaluation.read(run.folder.metrics)
    assert evaluation.probes is not None
    assert evaluation.localisation is not None
    assert records_of(run) == len(model.seen) == 14
    assert model.seen.total() == 14 + SHOWN["card"] + SHOWN["report"]
    assert model.loaded == 1


def test_encoding_after_an_evaluation_gives_what_encoding_alone_gives(
    cli: CLI, run_2d: Path, tmp_path: Path
) -> None:
    alone = Path(shutil.copytree(run_2d, tmp_path / "alone"))
    run, _ = run_of(run_2d)
    Evaluate(num_resamples=5)(run)
    Encode(umap=False)(run)
    Encode(umap=False)(run_of(alone)[0])
    one, other = (read_latents(folder / "latents") for folder in (run_2d, alone))
    assert one.ids == other.ids
    for name in ("mu", "logvar", "recon", "kl"):  # batches of other sizes round otherwise
        np.testing.assert_allclose(getattr(one, name), getattr(other, name), rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(one.covariates["label"], other.covariates["label"])


def test_other_weights_have_another_judge(cli: CLI, run_2d: Path) -> None:
    run, model = run_of(run_2d)
    first = judge_of(run)
    assert judge_of(run) is first
    state = torch.load(run.weights, weights_only=True)
    state["mu_head.bias"] += 1
    torch.save(state, run.weights)
    assert judge_of(run) is not first
    assert isinstance(run.shared[Judge], Judge)
    assert model.loaded == 2
