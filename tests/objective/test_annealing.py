"""Beta of every epoch, for each schedule."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from hydra.utils import instantiate
from omegaconf import OmegaConf

from vaelab.cli.help import help_text
from vaelab.errors import UserError
from vaelab.objective.annealing import Annealing, Constant, Cyclical, Linear
from vaelab.run import CONF

SCHEDULES: dict[str, Annealing] = {
    "constant": Constant(kl_beta=0.3),
    "linear": Linear(kl_beta=4.0, kl_annealing_epochs=40),
    "linear without a ramp": Linear(kl_beta=1.0, kl_annealing_epochs=0),
    "cyclical": Cyclical(kl_beta=2.0, kl_annealing_epochs=10),
    "cyclical without a ramp": Cyclical(kl_beta=2.0, kl_annealing_epochs=0),
    "cyclical without a rest": Cyclical(kl_beta=2.0, kl_annealing_epochs=7, ratio=1.0),
    "cyclical of uneven length": Cyclical(1.0, kl_annealing_epochs=7, cycles=3, ratio=0.3),
    "one cycle": Cyclical(1.0, kl_annealing_epochs=8, cycles=1),
}
every_schedule = pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES.keys())


@every_schedule
def test_beta_stays_between_nothing_and_its_target(schedule: Annealing) -> None:
    assert all(0 <= schedule(epoch) <= schedule.target for epoch in range(500))


@every_schedule
def test_ramp_epochs_is_the_first_epoch_from_which_beta_stays(schedule: Annealing) -> None:
    below = [epoch for epoch in range(500) if schedule(epoch) != schedule.target]
    assert schedule.ramp_epochs == (below[-1] + 1 if below else 0)


# --- linear


def test_linear_starts_at_0_is_half_way_at_half_and_stays_at_its_target() -> None:
    schedule = Linear(kl_beta=4.0, kl_annealing_epochs=40)
    assert [schedule(epoch) for epoch in (0, 10, 20, 40, 41, 10_000)] == [0, 1, 2, 4, 4, 4]


def test_linear_rises_by_the_same_step_every_epoch() -> None:
    schedule = Linear(kl_beta=1.0, kl_annealing_epochs=8)  # eighths are exact in binary
    assert [schedule(epoch + 1) - schedule(epoch) for epoch in range(8)] == [1 / 8] * 8


def test_a_ramp_of_length_0_is_at_its_target_from_the_first_epoch() -> None:
    assert Linear(kl_beta=0.5, kl_annealing_epochs=0)(0) == 0.5


def test_a_target_of_0_stays_at_0() -> None:
    schedule = Linear(kl_beta=0.0, kl_annealing_epochs=10)
    assert {schedule(epoch) for epoch in range(500)} == {0.0}


# --- constant


def test_constant_never_moves() -> None:
    schedule = Constant(kl_beta=0.3)
    assert {schedule(epoch) for epoch in range(500)} == {0.3}
    assert (schedule.target, schedule.ramp_epochs) == (0.3, 0)


# --- cyclical


def test_one_cycle_is_a_linear_ramp() -> None:
    cyclical, linear = Cyclical(1.0, 8, cycles=1), Linear(1.0, 8)
    assert [cyclical(epoch) for epoch in range(50)] == [linear(epoch) for epoch in range(50)]


@pytest.mark.parametrize(("ramp", "ratio", "cycles"), [(10, 0.5, 4), (4, 0.25, 3), (5, 1.0, 2)])
def test_cyclical_is_equations_6_and_7_of_fu_2019(ramp: int, ratio: float, cycles: int) -> None:
    total = int(cycles * ramp / ratio)  # T epochs in M cycles: the whole of training
    schedule = Cyclical(kl_beta=1.0, kl_annealing_epochs=ramp, cycles=cycles, ratio=ratio)

    def paper(t: int) -> float:  # t counts from 1
        tau = ((t - 1) % math.ceil(total / cycles)) / (total / cycles)
        return tau / ratio if tau <= ratio else 1.0  # f(tau) linear, from 0 to 1 at R

    beta = [schedule(epoch) for epoch in range(total)]
    assert beta == pytest.approx([paper(epoch + 1) for epoch in range(total)])


# --- the plots in config files and in the help

LEVELS = "▁▂▃▄▅▆▇█"
BARS = re.compile(f"[{LEVELS}]{{5,}}")


def plot(schedule: Annealing, epochs: int) -> str:
    """A bar for each epoch, the highest at the target."""
    shares = [schedule(epoch) / schedule.target for epoch in range(epochs)]
    return "".join(LEVELS[round(7 * share)] for share in shares)


@pytest.mark.parametrize("path", sorted((CONF / "annealing").glob("*.yaml")), ids=lambda p: p.stem)
def test_each_config_file_shows_the_schedule_that_it_builds(path: Path) -> None:
    (shown,) = BARS.findall(path.read_text(encoding="utf-8"))
    assert shown == plot(_built(path), len(shown))


def test_the_help_shows_the_schedules_as_they_are() -> None:
    text = help_text([CONF], [])
    shown = dict(re.findall(r"annealing=(\w+) +([▁-█]+)", text))
    for name, bars in shown.items():
        assert bars == plot(_built(CONF / "annealing" / f"{name}.yaml"), len(bars))
    assert len(shown) == len(BARS.findall(text)), "a plot in the help names no schedule"


def _built(path: Path) -> Annealing:
    """The schedule of a config file at the values that its plot is drawn with."""
    train = {"kl_beta": 1.0, "kl_annealing_epochs": 5}
    cfg = OmegaConf.create({"train": train, "annealing": OmegaConf.load(path)})
    schedule: Annealing = instantiate(cfg.annealing)
    return schedule


# --- refusals


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Constant(-1.0), r"train\.kl_beta=-1\.0: .*try 1\.0"),
        (lambda: Linear(math.nan, 10), r"train\.kl_beta=nan: .*try 1\.0"),
        (lambda: Cyclical(math.inf, 10), r"train\.kl_beta=inf: .*try 1\.0"),
        (lambda: Linear(1.0, -1), r"train\.kl_annealing_epochs=-1: .*0 means no ramp"),
        (lambda: Cyclical(1.0, -1), r"train\.kl_annealing_epochs=-1: .*0 means no ramp"),
        (lambda: Cyclical(1.0, 10, cycles=0), r"annealing\.cycles=0: .*try 4"),
        (lambda: Cyclical(1.0, 10, ratio=0.0), r"annealing\.ratio=0\.0: .*try 0\.5"),
        (lambda: Cyclical(1.0, 10, ratio=1.01), r"annealing\.ratio=1\.01: .*try 0\.5"),
        (lambda: Cyclical(1.0, 10, ratio=math.nan), r"annealing\.ratio=nan: .*try 0\.5"),
    ],
)
def test_an_impossible_value_is_refused(build: Callable[[], Annealing], message: str) -> None:
    with pytest.raises(UserError, match=message):
        build()
