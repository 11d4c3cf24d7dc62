"""vaelab's own parts keep the promises that it asks of others', and a broken one is named.

The parts are found by walking ``conf/``: a new option is checked without an edit here.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from hydra.utils import get_class, instantiate
from omegaconf import OmegaConf
from torch import Tensor, nn

from vaelab.anomaly.scores import SquaredError
from vaelab.assembly import Task
from vaelab.cli.config_files import CONF
from vaelab.data.xray.thorax import SIDE
from vaelab.models.conv2d import Conv2dVAE
from vaelab.models.encoder_decoder import EncoderDecoderVAE
from vaelab.models.vae import VAE, VAEOutput
from vaelab.objective.annealing import Linear
from vaelab.objective.contract import Step
from vaelab.objective.elbo import ELBOLoss
from vaelab.testing import (
    BrokenPromise,
    check_annealing,
    check_model,
    check_objective,
    check_optimizer,
    check_score,
    check_task,
)

from ..test_conf import composed

SMALL = {
    "dataset.image_size": "[32,32]",
    "dataset.roi_size": "[16,16,16]",
    "model.base_filters": "4",
    "model.member.base_filters": "4",
    "model.z_dim": "3",
    "model.member.z_dim": "3",
    "model.channels": "[4,4,4]",
}


def options(group: str) -> list[str]:
    return sorted(path.stem for path in (CONF / group).glob("*.yaml"))


def part(group: str, option: str) -> Any:
    """The option's object, small where it has a size."""
    images = option.startswith("conv2d")
    chosen = ["dataset=phantom_xray" if images else "dataset=phantom_mri", f"{group}={option}"]
    cfg = composed(*chosen)
    sizes = [f"{key}={value}" for key, value in SMALL.items() if OmegaConf.select(cfg, key)]
    return instantiate(composed(*chosen, *sizes)[group], _convert_="all")


def part_of(group: str, option: str, **changes: Any) -> Any:
    """The option's object with some of its arguments changed."""
    model = ["model=conv2d_vae"] if "xray" in option else []
    node = OmegaConf.to_container(composed(f"{group}={option}", *model)[group])
    assert isinstance(node, dict)
    return instantiate({**node, **changes}, _convert_="all")


def images(like: nn.Module) -> Tensor:
    shape = (
        (1, 32, 32) if "conv2d" in type(like).__module__ + str(like).lower() else (4, 16, 16, 16)
    )
    return torch.randn(3, *shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("option", options("model"))
def test_every_model_keeps_its_promises(option: str) -> None:
    torch.manual_seed(0)
    model = part("model", option)
    check_model(model, images(model))


@pytest.mark.parametrize("option", options("objective"))
def test_every_objective_keeps_its_promises(option: str) -> None:
    torch.manual_seed(0)
    model = part("model", "resnet3d_vae")
    x = images(model)
    seg = torch.ones(3, 1, 16, 16, 16).int()
    seg[..., :8] = 0
    batch = {"image": x, "id": ["a", "b", "c"], "seg": seg}
    check_objective(part("objective", option), batch, model(x))


@pytest.mark.parametrize("option", options("annealing"))
def test_every_schedule_keeps_its_promises(option: str) -> None:
    check_annealing(part("annealing", option))


@pytest.mark.parametrize("option", options("optimizer"))
def test_every_optimiser_keeps_its_promises(option: str) -> None:
    check_optimizer(part("optimizer", option))


@pytest.mark.parametrize("option", options("task"))
def test_every_task_keeps_its_promises(option: str) -> None:
    target = OmegaConf.load(CONF / "task" / f"{option}.yaml")["_target_"]
    check_task(get_class(target))


@pytest.mark.parametrize("option", options("score"))
def test_every_score_keeps_its_promises(option: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = Conv2dVAE(1, 2, 2, (32, 32))
    x = torch.rand(12, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    changes = {}
    if option == "by_registration":  # of a run that registers its radiographs
        thorax = {"registered": True, "template": [0.0] * SIDE**2}
        changes["thorax"] = str(tmp_path / "thorax.json")
        (tmp_path / "thorax.json").write_text(json.dumps(thorax))
    check_score(part_of("score", option, **changes), model, x)


# --- a broken promise is named


class Broken(NamedTuple):
    """A part that breaks one promise, and the words that name it."""

    part: Any
    words: str


def linear_vae() -> EncoderDecoderVAE:
    torch.manual_seed(0)
    decoder = nn.Sequential(nn.Linear(2, 16), nn.Unflatten(1, (1, 4, 4)))
    return EncoderDecoderVAE(nn.Flatten(), decoder, features=16, z_dim=2)


def altered(**methods: Callable[..., Any]) -> VAE:
    """A linear VAE with some of its methods replaced."""
    model = linear_vae()
    model.__class__ = type("Altered", (EncoderDecoderVAE,), methods)
    return model


class OfTheBatch(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x - x.mean(0, keepdim=True)


def with_batch_statistics() -> VAE:
    model = linear_vae()
    model.encoder = nn.Sequential(nn.Flatten(), OfTheBatch())
    return model


def with_an_idle_weight() -> VAE:
    model = linear_vae()
    model.idle = nn.Parameter(torch.ones(1))
    return model


BROKEN_MODELS = [
    Broken(altered(forward=lambda self, x: (x, x, x)), "forward returns a NamedTuple"),
    Broken(altered(decode=lambda self, z: z), "x_hat is shaped like x"),
    Broken(altered(reparameterize=lambda self, mu, logvar: mu), "training samples z"),
    Broken(
        altered(reparameterize=lambda self, mu, logvar: mu + torch.randn_like(mu)),
        "evaluation is deterministic",
    ),
    Broken(with_batch_statistics(), "does not depend on the others of its batch"),
    Broken(with_an_idle_weight(), "every weight that is trained has a gradient; seen: idle"),
]


@pytest.mark.parametrize("broken", BROKEN_MODELS, ids=lambda broken: broken.words)
def test_a_model_that_breaks_a_promise_is_refused_by_name(broken: Broken) -> None:
    with pytest.raises(BrokenPromise, match=broken.words):
        check_model(broken.part, torch.randn(3, 1, 4, 4))


def test_the_model_in_the_example_keeps_its_promises() -> None:
    check_model(linear_vae(), torch.randn(3, 1, 4, 4))


def objective(change: Callable[[dict[str, Tensor], Any], dict[str, Tensor]]) -> Any:
    def altered_elbo(batch: Any, output: Any, step: Step) -> dict[str, Tensor]:
        return change(ELBOLoss()(batch, output, step), output)

    return altered_elbo


BROKEN_OBJECTIVES = [
    Broken(objective(lambda sums, o: {"loss": sums["loss"]}), "loss, recon and kl"),
    Broken(
        objective(lambda sums, o: {**sums, "recon": sums["recon"] / len(o.mu)}),
        "recon is a sum over samples, not a mean",
    ),
    Broken(objective(lambda sums, o: {**sums, "loss": sums["loss"].half()}), "loss is float32"),
    Broken(
        objective(lambda sums, o: {**sums, "loss": sums["loss"] + torch.rand(())}),
        "the same batch costs the same",
    ),
    Broken(objective(lambda sums, o: {**sums, "loss": sums["kl"]}), "the loss depends on x_hat"),
]


@pytest.mark.parametrize("broken", BROKEN_OBJECTIVES, ids=lambda broken: broken.words)
def test_an_objective_that_breaks_a_promise_is_refused_by_name(broken: Broken) -> None:
    x, mu = torch.randn(3, 1, 4, 4), torch.randn(3, 2)
    output = VAEOutput(torch.randn_like(x), mu, torch.zeros_like(mu))
    with pytest.raises(BrokenPromise, match=broken.words):
        check_objective(broken.part, {"image": x, "id": ["a", "b", "c"]}, output)


def with_map(evidence: Callable[[Tensor], Tensor]) -> SquaredError:
    score = SquaredError()
    score.map = lambda x, output: evidence(x)  # type: ignore[method-assign]
    return score


BROKEN_SCORES = [
    Broken(lambda x, output: output.mu.sum(), "one number for each sample"),
    Broken(lambda x, output: x.flatten(1).mean(1) - x.mean(), "does not depend on the others"),
    Broken(lambda x, output: torch.rand(len(x)), "a score is deterministic"),
    Broken(with_map(lambda x: x), "a map has the spatial shape of x"),
    Broken(with_map(lambda x: x[:, 0] / 0), "a map is finite"),
]


@pytest.mark.parametrize("broken", BROKEN_SCORES, ids=lambda broken: broken.words)
def test_a_score_that_breaks_a_promise_is_refused_by_name(broken: Broken) -> None:
    with pytest.raises(BrokenPromise, match=broken.words):
        check_score(broken.part, linear_vae(), torch.randn(4, 1, 4, 4))


def test_a_schedule_that_misses_its_target_is_refused() -> None:
    class Late(Linear):
        ramp_epochs = 1

    with pytest.raises(BrokenPromise, match="from ramp_epochs on beta is the target"):
        check_annealing(Late(kl_beta=1.0, kl_annealing_epochs=10))


def test_an_optimiser_that_goes_up_is_refused() -> None:
    from vaelab.training.optimizer import Optimized

    def up(parameters: Any, epochs: int) -> Optimized:
        return Optimized(torch.optim.SGD(parameters, 0.1, maximize=True))

    with pytest.raises(BrokenPromise, match="a step goes down the gradient"):
        check_optimizer(up)


def test_a_task_that_has_impossible_declarations_is_refused() -> None:
    class Odd(Task):
        """Odd."""

        parts = ("train", "weather")

        def __call__(self, run: Any) -> None:
            pass

    with pytest.raises(BrokenPromise, match=r"parts are some of .*; seen: weather"):
        check_task(Odd)

    class Both(Odd):
        """Both."""

        parts = ("train",)
        resumable = True

    with pytest.raises(BrokenPromise, match="needs_trained_run = False"):
        check_task(Both)


def test_the_checks_leave_the_part_as_it_is() -> None:
    model = Conv2dVAE(1, 2, 2, (16, 16))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    check_model(model, torch.rand(3, 1, 16, 16))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
