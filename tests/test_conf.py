"""Every file under conf/ composes, resolves and names something that exists."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from hydra.utils import get_object
from omegaconf import DictConfig, OmegaConf

from vaelab.cli import resolvers  # noqa: F401  # registers them
from vaelab.cli.targets import check_targets
from vaelab.run import CONF

from .conftest import CLI

OPTIONS = sorted(
    (path.parent.name, path.stem) for path in CONF.glob("*/*.yaml") if path.parent.name != "hydra"
)


def composed(*overrides: str) -> DictConfig:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = compose("config", list(overrides), return_hydra_config=True)
        HydraConfig.instance().set_config(cfg)  # so that ${hydra:...} resolves
        OmegaConf.set_readonly(cfg.hydra, False)
        values = OmegaConf.masked_copy(cfg, [key for key in cfg if key != "hydra"])
        resolved = OmegaConf.create(OmegaConf.to_container(values, resolve=True))
        assert isinstance(resolved, DictConfig)
        return resolved


def targets(node: Any, path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    if isinstance(node, dict):
        if "_target_" in node:
            yield path, node
        for key, value in node.items():
            yield from targets(value, f"{path}.{key}")


@pytest.mark.parametrize(("group", "option"), OPTIONS)
def test_every_option_composes_and_its_keys_are_arguments_of_its_target(group: str, option: str):
    model = ["model=conv2d_vae"] if option in ("chest_xray", "phantom_xray") else []
    dataset = ["dataset=phantom_xray"] if option.startswith("conv2d") else []
    cfg = composed(f"{group}={option}", *model, *dataset)
    check_targets(cfg)
    for path, node in targets(OmegaConf.to_container(cfg)):
        target = get_object(node["_target_"])
        accepted = inspect.signature(target).parameters
        assert {key for key in node if not key.startswith("_")} <= set(accepted), path


def test_every_config_file_says_how_it_is_used():
    for path in CONF.rglob("*.yaml"):
        lines = path.read_text().splitlines()
        first = next(line for line in lines if "@package" not in line)
        assert first.startswith("# "), path


EXP1 = (["dataset=brats_men", "model=resnet3d_vae"], ["experiment=exp1_baseline_vae"])
MED_ANOMALY = (["dataset=chest_xray", "model=conv2d_vae"], ["experiment=med_anomaly"])


@pytest.mark.parametrize("command", EXP1, ids=["groups", "recipe"])
def test_exp1_has_its_specified_values(command: list[str]):
    cfg = composed(*command)
    assert cfg.choices.dataset == "brats_men"
    assert cfg.choices.model == "resnet3d_vae"
    assert cfg.choices.annealing == "linear"
    dataset = {key: cfg.dataset[key] for key in ("roi_size", "spacing", "orientation")}
    assert dataset == {"roi_size": [128] * 3, "spacing": [1.0] * 3, "orientation": "RAS"}
    loading = ("batch_size", "num_workers", "cache_rate", "val_split")
    assert [cfg.dataset[key] for key in loading] == [2, 4, 1.0, 0.1]
    assert cfg.dataset.modalities == ["t1c", "t1n", "t2f", "t2w"]
    network = ("z_dim", "base_filters", "input_channels", "norm")
    assert [cfg.model[key] for key in network] == [128, 32, 4, "GROUP"]
    training = ("seed", "max_epochs", "lr", "kl_beta", "kl_annealing_epochs", "monitor")
    assert [cfg.train[key] for key in training] == [42, 200, 1e-4, 1.0, 40, "val/loss"]
    assert cfg.hardware.precision in ("auto", "16-mixed")  # auto is 16-mixed where there is CUDA
    assert (cfg.choices.objective, cfg.choices.optimizer) == ("elbo", "adamw")
    assert cfg.logging.recon_every_n_epochs == 5
    assert cfg.logging.num_recon_samples == 2


@pytest.mark.parametrize("command", MED_ANOMALY, ids=["groups", "recipe"])
def test_med_anomaly_has_its_specified_values(command: list[str]):
    cfg = composed(*command)
    assert cfg.choices.dataset == "chest_xray"
    assert cfg.dataset.image_size == [128, 128]
    assert cfg.model.z_dim == 256
    assert cfg.train.max_epochs == 20
    assert cfg.train.weights_name == "vae_m4_best.pth"


def test_the_command_line_has_the_last_word_over_a_recipe():
    cfg = composed("experiment=exp1_baseline_vae", "dataset=phantom_mri", "train.max_epochs=3")
    assert cfg.choices.dataset == "phantom_mri"
    assert cfg.train.max_epochs == 3
    assert cfg.dataset.roi_size == [128] * 3  # the recipe's, on the data set that was asked for


@pytest.mark.parametrize("launcher", ["joblib", "submitit_local", "submitit_slurm"])
def test_a_launcher_is_one_override(launcher: str):
    with initialize_config_dir(str(CONF), version_base="1.3"):
        overrides = [f"hydra/launcher={launcher}", "hydra.sweep.dir=there"]
        cfg = compose("config", overrides, return_hydra_config=True)
        HydraConfig.instance().set_config(cfg)
        parameters = OmegaConf.to_container(cfg.hydra.launcher, resolve=True)
    assert isinstance(parameters, dict)
    target = get_object(parameters.pop("_target_"))
    assert target(**parameters)
    if launcher != "joblib":
        assert parameters["submitit_folder"] == "there/.submitit/%j"
        assert parameters["name"] == "vaelab"


def test_conf_travels_with_the_package():
    assert (CONF / "config.yaml").is_file()
    assert Path(CONF).is_absolute()


def test_a_model_that_does_not_fit_the_data_is_told(
    cli: CLI, capfd: pytest.CaptureFixture[str]
) -> None:
    assert cli("dataset=phantom_xray", "dataset.root_dir=x", "run_dir=run") == 1
    shown = capfd.readouterr().out
    assert "model=resnet3d_vae and dataset=phantom_xray do not fit together" in shown
    assert "Traceback" not in shown


@pytest.mark.parametrize("model", ["resnet3d_vae", "monai_vae"])
def test_a_model_of_volumes_has_as_many_channels_as_the_dataset_has_series(model: str):
    assert composed(f"model={model}").model.input_channels == 4
    one = composed(f"model={model}", "dataset.modalities=[t1c]")
    assert one.model.input_channels == 1
