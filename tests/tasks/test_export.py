"""A run that leaves vaelab says outside what it says here."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import vaelab.runs
from vaelab.anomaly.exporting import run_onnx
from vaelab.evaluation.judge import judge_of
from vaelab.models.vae import VAE

from ..conftest import CLI, TINY_XRAY

onnxruntime = pytest.importorskip("onnxruntime", reason="pip install 'vaelab[export]'")
pytest.importorskip("onnxscript", reason="pip install 'vaelab[export]'")


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the first test that needs an export leaves it for the others."""
    return tmp_path_factory.mktemp("exported")


@pytest.fixture
def exported(cli: CLI, split_run: Path, places: Path, capfd: pytest.CaptureFixture[str]) -> Path:
    """A judged run on X-rays, exported."""
    run = places / "run"
    if not run.exists():
        shutil.copytree(split_run, run)
        arguments = ["score=central_residual", "score.grid=16", "map_sigma=1.5"]
        assert cli("task=evaluate", f"run_dir={run}", "task.num_resamples=5", *arguments) == 0
        done = cli("task=export", f"run_dir={run}", "task.alpha=0.4", *arguments)
        assert done == 0, capfd.readouterr().out
    return run


def grey_image(shape: tuple[int, int], seed: int = 0) -> np.ndarray:
    return (255 * np.random.default_rng(seed).random(shape)).astype(np.float32)


@pytest.mark.slow
def test_everything_is_there_and_the_file_beside_it_says_what_it_is(exported: Path) -> None:
    folder = exported / "export"
    names = ("encoder", "decoder", "network", "detector")
    graphs = {f"{name}{suffix}" for name in names for suffix in (".onnx", ".pt2")}
    assert {path.name for path in folder.iterdir()} == graphs | {
        "weights.safetensors", "export.json", "run_onnx.py",
    }  # fmt: skip
    about = json.loads((folder / "export.json").read_text())
    assert about["graphs"]["network"]["input"] == {"x": ["batch", 1, 32, 32]}
    assert about["graphs"]["detector"]["input"] == {"image": ["batch", "height", "width"]}
    assert about["graphs"]["detector"]["outputs"] == ["score", "map", "p_value", "flag"]
    assert about["not_exported"] == {}
    assert set(about["versions"]) == {"torch", "onnx", "onnxscript", "onnxruntime"}
    assert len((folder / "run_onnx.py").read_text().splitlines()) <= 13
    weights = load_file(folder / "weights.safetensors")
    model = vaelab.runs.load(exported).model.state_dict()
    assert all(torch.equal(weights[key], model[key]) for key in model)


@pytest.mark.slow
@pytest.mark.parametrize("batch", [1, 5])
def test_a_network_takes_a_batch_of_any_size(exported: Path, batch: int) -> None:
    x = torch.rand(batch, 1, 32, 32, generator=torch.Generator().manual_seed(batch))
    model = vaelab.runs.load(exported).model
    with torch.no_grad():
        expected = model(x)._asdict()
    said = run_onnx(exported / "export" / "network.onnx", x.numpy())
    assert list(said) == ["x_hat", "mu", "logvar"]
    for name, value in said.items():
        assert np.allclose(value, expected[name], atol=1e-5), name


@pytest.mark.slow
def test_a_detector_takes_a_file_of_any_size_to_the_score_of_task_predict(
    exported: Path, cli: CLI, tmp_path: Path
) -> None:
    image = pytest.importorskip("PIL.Image")
    pixels = grey_image((90, 70)).astype(np.uint8)
    image.fromarray(pixels).save(tmp_path / "film.png")
    arguments = ["task.inputs=film.png", "task.output_dir=said", "task.alpha=0.4"]
    same = ["score=central_residual", "score.grid=16", "map_sigma=1.5"]
    assert cli("task=predict", f"run_dir={exported}", *arguments, *same) == 0
    header, row = (tmp_path / "said" / "predictions.csv").read_text().splitlines()
    predicted = dict(zip(header.split(","), row.split(","), strict=True))
    said = run_onnx(exported / "export" / "detector.onnx", pixels[None].astype(np.float32))
    assert said["score"][0] == pytest.approx(float(predicted["score"]), rel=1e-5)
    assert said["p_value"][0] == pytest.approx(float(predicted["p_value"]))
    assert said["flag"][0] == int(predicted["flag"])
    assert said["map"].shape == (1, 90, 70)


@pytest.mark.slow
@pytest.mark.machine
def test_the_script_needs_onnxruntime_alone(exported: Path, tmp_path: Path) -> None:
    environment = tmp_path / "outside"
    subprocess.run([sys.executable, "-m", "venv", environment], check=True)
    python = environment / "bin" / "python"
    installed = subprocess.run(
        [python, "-m", "pip", "install", "--quiet", "onnxruntime"], capture_output=True, text=True
    )
    if installed.returncode:
        pytest.skip(f"no package index: {installed.stderr.strip().splitlines()[-1]}")
    pixels = grey_image((60, 75))
    np.save(tmp_path / "film.npy", pixels)
    outside = Path(shutil.copytree(exported / "export", tmp_path / "folder"))
    shown = subprocess.run(
        [python, "-I", outside / "run_onnx.py", tmp_path / "film.npy"],
        capture_output=True, text=True, check=True, cwd=tmp_path,
    )  # fmt: skip
    said: dict[str, Any] = json.loads(shown.stdout)
    here = run_onnx(exported / "export" / "detector.onnx", pixels[None])
    assert said["score"] == pytest.approx(float(here["score"][0]), rel=1e-5)
    assert said["flag"] == here["flag"][0]
    assert np.allclose(np.load(tmp_path / "film.map.npy"), here["map"][0], atol=1e-5)
    absent = "import importlib.util as i; print([i.find_spec(n) for n in ('torch', 'vaelab')])"
    found = subprocess.run([python, "-I", "-c", absent], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[None, None]"


@pytest.mark.slow
def test_a_volume_goes_from_its_standardised_cube(
    cli: CLI, run_3d: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert cli("task=export", f"run_dir={run_3d}", "score=fused") == 0, capfd.readouterr().out
    about = json.loads((run_3d / "export" / "export.json").read_text())
    assert about["input"] == "standard deviations of each series, 0 its mean"
    assert about["graphs"]["detector"]["input"] == {"image": ["batch", 4, 16, 16, 16]}
    assert about["graphs"]["network"]["outputs"] == ["x_hat", "mu", "logvar"]
    assert about["calibration"] is None
    assert set(about["not_exported"]) == {"preparation"}
    run = vaelab.runs.load(run_3d)
    run.data.setup("test")
    x = run.data.dataset("val")[0]["image"][None]
    with torch.no_grad():
        expected = run.model(x)
    said = run_onnx(run_3d / "export" / "network.onnx", x.numpy())
    assert np.allclose(said["x_hat"], expected.x_hat, atol=1e-4)


@pytest.mark.slow
def test_an_ensemble_with_trimmed_borders_is_exported(
    cli: CLI, phantoms: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    keys = [key.replace("model.", "model.member.") for key in TINY_XRAY]
    ensemble = [key for key in keys if not key.startswith("experiment=")]
    arguments = ["model=conv2d_ensemble", "dataset.trim_border=true", "train.max_epochs=1"]
    assert cli(*ensemble, phantoms, *arguments, "~task.then", "run_dir=run") == 0
    assert cli("task=export", "run_dir=run") == 0, capfd.readouterr().out
    about = json.loads((tmp_path / "run" / "export" / "export.json").read_text())
    assert set(about["graphs"]) == {"encoder", "decoder", "network", "detector"}
    said = run_onnx(tmp_path / "run" / "export" / "detector.onnx", grey_image((50, 64))[None])
    score, heatmap = said["score"], said["map"]
    assert heatmap.shape == (1, 50, 64)
    assert np.isfinite(score).all()


class Wrong(VAE):
    """A network that is another one once it is in a graph."""

    def __init__(self, model: VAE) -> None:
        super().__init__()
        self.model = model
        self.z_dim = model.z_dim

    def encode(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        mu, logvar = self.model.encode(x)
        return mu + 0.01 * torch.compiler.is_exporting(), logvar

    def decode(self, z: torch.Tensor) -> torch.Tensor:
        return self.model.decode(z)

    def load_state_dict(self, *arguments: Any, **options: Any) -> Any:
        return self.model.load_state_dict(*arguments, **options)


def test_an_export_that_differs_from_the_run_is_one_sentence(run_2d: Path) -> None:
    from vaelab.errors import UserError
    from vaelab.tasks.export import Export

    run = vaelab.runs.load(run_2d).run
    wrong = run.replacing(model=Wrong(run.model))
    with pytest.raises(UserError, match=re.escape("encoder.onnx: mu differs from the run's own")):
        Export()(wrong)
    assert not (run_2d / "export" / "export.json").exists()
    assert judge_of(run).model is run.model
