"""``--help`` names every choice and every key, without Hydra."""

from __future__ import annotations

import re
import subprocess
import sys
from typing import Any

import pytest
from omegaconf import OmegaConf

from vaelab.cli.help import help_text
from vaelab.run import CONF

from ..conftest import CLI


def flat(config: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(config, dict):
        return {prefix[:-1]: config}
    return {k: v for key in config for k, v in flat(config[key], f"{prefix}{key}.").items()}


def test_every_group_and_option_is_listed():
    listed = help_text([CONF], []).split("\nExamples")[0]
    for path in CONF.glob("*/*.yaml"):
        (options,) = re.findall(rf"^  {path.parent.name}: (.*)$", listed, re.MULTILINE)
        assert path.stem in options.split(", ")


@pytest.mark.parametrize("chosen", [[], ["dataset=chest_xray", "model=conv2d_vae"]])
def test_every_key_of_a_run_is_listed_with_its_value(
    chosen: list[str], cli: CLI, capfd: pytest.CaptureFixture[str]
):
    assert cli("--cfg", "job", *chosen) == 0
    composed = OmegaConf.to_container(OmegaConf.create(capfd.readouterr().out), resolve=False)
    shown = help_text([CONF], chosen)
    listed = OmegaConf.to_container(OmegaConf.create(shown[shown.index("\n  name:") :]))
    there = flat(listed)
    for key, value in flat(composed).items():
        if "_target_" not in key and not key.startswith(("choices.", "task.then.")):
            assert there[key] == value, key


def test_help_needs_neither_hydra_nor_torch():
    code = (
        "import sys; from vaelab import run; sys.argv = ['vaelab', '--help']; run.main();"
        "assert not {'hydra', 'omegaconf', 'torch', 'lightning', 'numpy'} & set(sys.modules)"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    for words in (
        "annealing: constant, cyclical, linear",
        "dataset=chest_xray model=conv2d_vae",
        "resume=",
    ):
        assert words in ended.stdout


def test_how_paths_are_written_is_stated():
    shown = help_text([CONF], [])
    for words in (
        "Paths mean what is typed",
        "choice(a,'b (1)')",
        "--config-dir",
        "${oc.env:NAME}",
    ):
        assert words in shown
