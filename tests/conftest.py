"""Small data and the command line, for all tests."""

from __future__ import annotations

import logging
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from hydra.core.global_hydra import GlobalHydra
from hypothesis import settings

from vaelab import run

# Processes that tests start elsewhere find this checkout too, installed or not.
os.environ["PYTHONPATH"] = os.pathsep.join(
    filter(None, [str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH")])
)

# Threads that spin while they wait take the cores from other workers and processes; PyTorch reads
# this when it is loaded, so it counts for processes that tests start.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

# The same examples every time, however busy the machine is.
settings.register_profile("vaelab", deadline=None, derandomize=True, database=None)
settings.load_profile("vaelab")

# Networks this small gain nothing from a second thread and lose much on a busy machine.
torch.set_num_threads(1)

# Two epochs on a handful of phantoms at the smallest size that can be halved four times.
TINY_MRI = (
    "dataset=phantom_mri",
    "dataset.phantoms.num_patients=4",
    "dataset.phantoms.num_followups=1",
    "dataset.phantoms.voxel_size=6.0",
    "dataset.roi_size=[16,16,16]",
    "dataset.spacing=[12,12,12]",
    "dataset.val_split=0.4",
    "model.base_filters=4",
    "model.z_dim=8",
    "train.max_epochs=2",
    "train.kl_annealing_epochs=1",
    "train.lr=1e-3",
    "logging.num_recon_samples=1",
    "logging.progress_bar=false",
    "hardware=cpu",
)
TINY_XRAY = (
    "experiment=med_anomaly",
    "dataset=phantom_xray",
    "dataset.phantoms.num_train=12",
    "dataset.phantoms.num_test=6",
    "dataset.phantoms.image_size=48",
    "dataset.image_size=[32,32]",
    "model.base_filters=4",
    "model.z_dim=8",
    "train.max_epochs=2",
    "train.kl_annealing_epochs=1",
    "logging.progress_bar=false",
    "hardware=cpu",
)

MACHINE = ("browser", "faults", "launcher", "processes", "processors", "readme", "slurm")
"""Markers of tests that need a program or disturb a machine: ``python -m pytest -m machine``."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let one marker stand for all of ``MACHINE``; who asks for a browser needs one."""
    for item in items:
        if "browser" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.browser)
        if any(item.get_closest_marker(name) for name in MACHINE):
            item.add_marker(pytest.mark.machine)


CLI = Callable[..., int]


@pytest.fixture(scope="session")
def phantoms(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Override that makes all tests of a session share written phantoms."""
    return f"dataset.root_dir={tmp_path_factory.mktemp('phantoms')}"


@contextmanager
def logging_kept() -> Iterator[None]:
    """Undo what Hydra does to logging; it replaces pytest's."""
    root = logging.getLogger()
    handlers = list(root.handlers)
    try:
        yield
    finally:
        for handler in [handler for handler in root.handlers if handler not in handlers]:
            root.removeHandler(handler)
            handler.close()
        root.handlers[:] = handlers


@pytest.fixture
def cli(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[CLI]:
    """``python -m vaelab.run`` from an empty folder, in this process; returns the exit status."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments: str) -> int:
        GlobalHydra.instance().clear()
        monkeypatch.setattr(sys, "argv", ["vaelab", *arguments])
        try:
            run.main()
        except SystemExit as stop:
            if isinstance(stop.code, str):
                sys.stderr.write(stop.code)
                return 1
            return int(stop.code or 0)
        return 0

    with logging_kept():
        yield call


def _trained(folder: Path, *arguments: str) -> Path:
    with logging_kept(), pytest.MonkeyPatch.context() as patch:
        GlobalHydra.instance().clear()
        patch.setattr(sys, "argv", ["vaelab", *arguments, f"run_dir={folder}"])
        run.main()
    return folder


@pytest.fixture(scope="session")
def xray_run(tmp_path_factory: pytest.TempPathFactory, phantoms: str) -> Path:
    """A run on X-rays, trained for one epoch and not judged; not to be written to."""
    folder = tmp_path_factory.mktemp("xray") / "run"
    return _trained(folder, *TINY_XRAY, phantoms, "train.max_epochs=1", "~task.then")


@pytest.fixture(scope="session")
def split_run(tmp_path_factory: pytest.TempPathFactory, phantoms: str) -> Path:
    """As ``xray_run``, with patients to calibrate on, and 8 of the 12 test images balanced."""
    folder = tmp_path_factory.mktemp("split") / "run"
    split = ("dataset.test_per_class=4", "dataset.calibration_split=0.3")
    return _trained(folder, *TINY_XRAY, phantoms, *split, "train.max_epochs=1", "~task.then")


@pytest.fixture(scope="session")
def mri_run(tmp_path_factory: pytest.TempPathFactory, phantoms: str) -> Path:
    """A run on MRI, trained for one epoch and not judged; not to be written to."""
    folder = tmp_path_factory.mktemp("mri") / "run"
    return _trained(folder, *TINY_MRI, phantoms, "train.max_epochs=1", "~task.then")


@pytest.fixture
def run_2d(xray_run: Path, tmp_path: Path) -> Path:
    """A copy of ``xray_run`` to work in."""
    return Path(shutil.copytree(xray_run, tmp_path / "run"))


@pytest.fixture
def run_3d(mri_run: Path, tmp_path: Path) -> Path:
    """A copy of ``mri_run`` to work in."""
    return Path(shutil.copytree(mri_run, tmp_path / "run"))
