"""A config may only name targets of vaelab and those that the user allows."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from omegaconf import OmegaConf

from vaelab.cli import job as job_module
from vaelab.cli.targets import check_targets, parameters, type_hints
from vaelab.errors import UserError

from ..conftest import CLI, TINY_MRI


@pytest.mark.parametrize(
    "target",
    [
        "os.system",
        "builtins.eval",
        "torch.load",
        "vaelabel.models.Mine",  # another package whose name begins alike
        "vaelab.atomic.os.system",  # imported there, not defined
        "vaelab.atomic.shutil.rmtree",
        "lightning.pytorch.loggers.CSVLogger",  # where there is no logger
        42,
        "",
    ],
)
def test_another_target_is_refused_anywhere_in_a_config(target: Any):
    config = {"task": {"then": [{"a": {"_target_": target, "command": "touch hacked"}}]}}
    with pytest.raises(UserError, match=r"^task\.then\.0\.a\._target_=.*VAELAB_ALLOWED_TARGETS"):
        check_targets(config)


def test_a_refused_target_is_not_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "trap.py").write_text("open('sprung', 'w')")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(UserError, match=r"trap\.Thing"):
        check_targets({"model": {"_target_": "trap.Thing"}})
    assert "trap" not in sys.modules
    assert not Path("sprung").exists()


def test_targets_of_vaelab_and_lightnings_loggers_are_accepted():
    check_targets({"model": {"_target_": "vaelab.models.conv2d.Conv2dVAE"}})
    check_targets({"logger": {"a": {"_target_": "lightning.pytorch.loggers.MLFlowLogger"}}})


def test_a_user_allows_more_in_the_environment_and_not_in_the_config(
    monkeypatch: pytest.MonkeyPatch,
):
    config = {"model": {"_target_": "collections.Counter"}, "allowed_targets": ["collections"]}
    with pytest.raises(UserError, match="VAELAB_ALLOWED_TARGETS=collections "):
        check_targets(config)
    monkeypatch.setenv("VAELAB_ALLOWED_TARGETS", "other, collections")
    check_targets(config)
    with pytest.raises(UserError):
        check_targets({"model": {"_target_": "collectionsplus.Counter"}})


def test_a_typing_mistake_in_a_target_is_an_error_of_one_sentence():
    with pytest.raises(UserError, match=r"model\._target_=vaelab\.models\.conv3d\.Conv3dVAE"):
        check_targets({"model": {"_target_": "vaelab.models.conv3d.Conv3dVAE"}})


def module_of(text: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """Name of a module of that text."""
    module = ModuleType("half_annotated")
    exec(text, vars(module))
    monkeypatch.setitem(sys.modules, module.__name__, module)
    return module.__name__


def test_a_class_is_checked_as_far_as_its_annotations_can_be_evaluated(
    monkeypatch: pytest.MonkeyPatch,
):
    text = """
from __future__ import annotations
class Half:
    def __init__(self, folder: str, run: "Unknown | None" = None, **more: Unknown) -> None: ...
"""
    name = module_of(text, monkeypatch)
    assert type_hints(f"{name}.Half") == {"folder": str, "return": type(None)}
    assert parameters(f"{name}.Half") is None  # any key is taken


def test_a_manipulated_saved_config_runs_no_program(
    cli: CLI,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
):
    with monkeypatch.context() as without_training:
        without_training.setattr(job_module, "carry_out", lambda config: 0.0)
        assert cli(*TINY_MRI, "run_dir=theirs") == 0
    saved = tmp_path / "theirs" / "config_resolved.yaml"
    config = OmegaConf.load(saved)
    config.score = {"_target_": "os.system", "command": "touch hacked"}
    OmegaConf.save(config, saved)
    for task in ("task=evaluate", "task=report_card"):
        assert cli(task, "run_dir=theirs") == 1
    assert cli("resume=theirs") == 1
    shown = capfd.readouterr().out
    assert shown.count("score._target_=os.system") == 3
    assert "Traceback" not in shown
    assert not Path("hacked").exists()
