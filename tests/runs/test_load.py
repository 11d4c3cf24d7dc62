"""A run as objects in a notebook, and one that is trained there by hand."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from textwrap import dedent
from typing import Any

import lightning as L
import pytest
import torch

import vaelab
import vaelab.runs
from vaelab.anomaly.detector import AnomalyDetector
from vaelab.anomaly.scores import SquaredError
from vaelab.data.phantoms.xray import PhantomXray
from vaelab.data.xray.chest_xray import ChestXrayDataModule
from vaelab.errors import UserError
from vaelab.models.conv2d import Conv2dVAE
from vaelab.objective.annealing import Linear
from vaelab.objective.elbo import ELBOLoss
from vaelab.training.module import VAELitModule
from vaelab.training.optimizer import AdamW

from ..conftest import CLI


def test_a_loaded_run_has_its_best_weights_its_split_and_its_values(xray_run: Path) -> None:
    run = vaelab.runs.load(xray_run)
    saved = torch.load(xray_run / "checkpoints" / "vae_m4_best.pth", weights_only=True)
    state = run.model.state_dict()
    assert all(torch.equal(state[key], saved[key]) for key in saved)
    assert not run.model.training
    run.data.setup("test")
    with (xray_run / "splits" / "val.csv").open() as file:
        assert len(run.data.splits["val"]) == len(file.readlines()) - 1
    batch = next(iter(run.data.test_dataloader()))
    x_hat, mu, logvar = run.model(batch["image"])
    assert x_hat.shape == batch["image"].shape
    assert mu.shape == logvar.shape == (len(x_hat), run.config["model"]["z_dim"])
    assert run.metrics == {}


def test_a_loaded_run_says_what_it_is(cli: CLI, run_2d: Path, tmp_path: Path) -> None:
    assert repr(vaelab.runs.load(run_2d)).endswith("metrics  none yet; task=evaluate measures them")
    assert cli("task=evaluate", f"run_dir={run_2d}", "task.num_resamples=5") == 0
    run = vaelab.runs.load(run_2d)
    auroc = run.metrics["detection_all"]["auroc"]
    shown = repr(run).splitlines()
    assert shown[0] == f"Run {run_2d} (done)"
    assert shown[1].startswith("  model    Conv2dVAE, z_dim=8, ")
    assert shown[3].endswith(f"AUROC {auroc:.3f} on 12 samples, score SquaredError")


def test_a_run_that_was_moved_is_loaded_from_where_it_is(xray_run: Path, tmp_path: Path) -> None:
    moved = Path(shutil.copytree(xray_run, tmp_path / "elsewhere"))
    run = vaelab.runs.load(moved)
    assert run.folder.path == moved
    assert run.data.splits_dir == moved / "splits"


@pytest.mark.parametrize(
    ("lost", "message"),
    [("config_resolved.yaml", "not a run folder"), ("checkpoints", "has this run been trained")],
)
def test_what_is_no_trained_run_is_refused(run_2d: Path, lost: str, message: str) -> None:
    path = run_2d / lost
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    with pytest.raises(UserError, match=message):
        vaelab.runs.load(run_2d)


def test_the_ten_lines_of_the_package_train_and_judge(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert vaelab.__doc__
    block = re.search(r"like this::\n\n((?:    .*\n)+)", vaelab.__doc__)
    assert block
    code = dedent(block[1])
    assert len(code.splitlines()) == 10
    small = {
        "PhantomXray()": "PhantomXray(num_train=12, num_test=2, image_size=48)",
        "max_epochs=20": "max_epochs=1, accelerator='cpu', logger=False, enable_progress_bar=False",
    }
    for usual, tiny in small.items():
        assert usual in code
        code = code.replace(usual, tiny)
    names: dict[str, Any] = {
        named.__name__: named
        for named in (
            ChestXrayDataModule, PhantomXray, Conv2dVAE, ELBOLoss, Linear, VAELitModule, AdamW,
            AnomalyDetector, SquaredError,
        )
    } | {"L": L}  # fmt: skip
    exec(code, names)
    images = names["data"].dataset("test").images
    expected = (images - names["prediction"].x_hat).square().flatten(1).sum(1)
    assert torch.allclose(names["prediction"].score, expected)
