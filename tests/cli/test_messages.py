"""Errors of the command line are a sentence with the cure and the most similar name."""

from __future__ import annotations

import pytest

from vaelab.cli.messages import nearest

from ..conftest import CLI, TINY_MRI


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("+experiment=demo", "it is there already; leave out the +: experiment=demo"),
        ("model.zdim=64", "there is no key model.zdim; did you mean model.z_dim?"),
        ("trian.lr=1", "there is no key trian; did you mean train.lr?"),
        ("kl_beta=4", "kl_beta=4: there is no key kl_beta; did you mean train.kl_beta?"),
        ("--precision=16", "--precision=16: there is no such flag; keys and groups have no dashes"),
        ("model=resnet4d", "model=resnet4d: there is no such option; did you mean"),
        ("hardware.precision=16", "one of auto, 32-true, 16-mixed, bf16-mixed; did you mean 16-mi"),
        ("train.seed=-1", "train.seed=-1: from 0 to 4294967295; try 42"),
        ("train.seed=123456789012", "train.seed=123456789012: from 0 to 4294967295"),
        ("hydra.run.dir=/dev/null/x", "/dev/null/x: Not a directory; choose another folder"),
        ("dataset.root_dir=${HOME}/data", "${oc.env:HOME}"),
    ],
)
def test_a_typing_mistake_is_answered_with_the_right_name(
    argument: str, message: str, cli: CLI, capfd: pytest.CaptureFixture[str]
) -> None:
    assert cli(*TINY_MRI, argument, "run_dir=run") == 1
    shown = "".join(capfd.readouterr())
    assert message in shown
    assert "Traceback" not in shown


def test_a_nested_logger_is_used(
    cli: CLI, phantoms: str, capfd: pytest.CaptureFixture[str]
) -> None:
    once = (*TINY_MRI, phantoms, "train.max_epochs=1", "~task.then", "run_dir=run")
    assert cli(*once, "+logger@logger.more=tensorboard") == 0, "".join(capfd.readouterr())


def test_the_nearest_name_begins_alike_or_is_spelled_alike() -> None:
    assert nearest("16", ["32-true", "16-mixed"]) == "16-mixed"
    assert nearest("zdim", ["depth", "z_dim"]) == "z_dim"
    assert nearest("weather", ["depth", "z_dim"]) is None
