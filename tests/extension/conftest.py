"""A package from outside, found as its author would have it found."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from ..conftest import CLI, TINY_MRI

HERE = Path(__file__).parent
CONFIG_DIR = ("--config-dir", str(HERE / "conf"))
# Four patients, three of them seen twice: dynamics needs visits. Models have sizes of their own.
COHORT = (
    *(key for key in TINY_MRI if not key.startswith("model.")),
    "dataset.phantoms.num_followups=3",
)

Lab = Callable[..., int]


sys.path.insert(0, str(HERE))  # as if it were installed


@pytest.fixture(autouse=True)
def _allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its author has set the variable, and processes that are started find the package too."""
    monkeypatch.setenv("VAELAB_ALLOWED_TARGETS", "growthlab")
    monkeypatch.setenv("PYTHONPATH", str(HERE), prepend=os.pathsep)


@pytest.fixture
def lab(cli: CLI, phantoms: str) -> Lab:
    """The command line with the package's configs, on a small cohort."""

    def call(*arguments: str) -> int:
        return cli(*CONFIG_DIR, *COHORT, phantoms, *arguments)

    return call
