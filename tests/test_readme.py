"""Every command and snippet of the README runs, at sizes that the test puts in."""

from __future__ import annotations

import re
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from vaelab.cli.config_files import CONF
from vaelab.cli.reference import read_reference, with_tables

from .conftest import CLI, TINY_MRI, TINY_XRAY

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text("utf-8")
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", README, re.DOTALL)

TESTED_ELSEWHERE = {
    "python3 -m venv": "CI builds an environment from nothing",
    "torchrun": "tests/faults/test_processes.py",
    "--config-dir mypackage": "tests/extension",
    "hydra/launcher=submitit_slurm": "tests/faults/test_slurm.py",
}
SIZES_OF_MRI = [key for key in TINY_MRI if not key.startswith("dataset=")]
SIZES_OF_XRAY = [key for key in TINY_XRAY if not key.startswith(("dataset=", "experiment="))]
TRIAL = [key.replace("=", ": ") for key in TINY_MRI if "z_dim" not in key and "lr=" not in key]
SMALLER = {
    "train.max_epochs=400": "train.max_epochs=2", "task.trials=20": "task.trials=1",
    "{experiment: demo}": f"{{{', '.join(TRIAL)}}}",
}  # fmt: skip
TASKS_WITHOUT_SIZES = ("task=check_data", "task=check_install", "task=compare", "task=search")


def commands() -> Iterator[str]:
    """Command lines of the shell blocks, comments and continuations taken out."""
    for language, block in BLOCKS:
        if language == "bash":
            for line in block.replace("\\\n", " ").splitlines():
                command = " ".join(shlex.split(line, comments=True, posix=False))
                if command:
                    yield command


RUN = [
    command
    for command in commands()
    if command.startswith("python -m vaelab.run")
    and not any(mark in command for mark in TESTED_ELSEWHERE)
]


@pytest.fixture(scope="session")
def trees(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The folders that the README calls ``/data/…``, written by the phantoms."""
    from vaelab.data.phantoms.mri import PhantomMRI
    from vaelab.data.phantoms.xray import PhantomXray

    root = tmp_path_factory.mktemp("data")
    mri = PhantomMRI(num_patients=4, num_followups=2, voxel_size=6.0).prepare(root)
    xray = PhantomXray(num_train=30, num_test=6, image_size=48).prepare(root)
    new = root / "new"
    shutil.copytree(xray / "test" / "PNEUMONIA", new)
    return {
        "/data/BraTS-MEN-Train": mri, "/data/chest_xray": xray,
        "/data/normals": xray / "train" / "NORMAL", "/data/new": new,
        "/data/image.jpeg": next(new.iterdir()),
    }  # fmt: skip


@pytest.fixture
def fill(trees: dict[str, Path], run_2d: Path) -> dict[str, str]:
    """What stands for the README's folders; the run is a trained one that was not judged."""
    names = {"outputs/<run>": run_2d, "multirun_sweeps/<sweep>": run_2d, **trees}
    return {name: str(path) for name, path in names.items()}


def sized(command: str) -> list[str]:
    """Arguments that make a command small; those it has itself come later and win."""
    if "run_dir=" in command or any(name in command for name in TASKS_WITHOUT_SIZES):
        return []
    if "resume=" in command:
        return ["logging.progress_bar=false"]
    xray = any(name in command for name in ("xray", "med_anomaly"))
    sizes = [*(SIZES_OF_XRAY if xray else SIZES_OF_MRI), "dataset.num_workers=0"]
    written = "/data/" not in command  # by the phantoms of the run itself
    return [size for size in sizes if written or not size.startswith("dataset.phantoms.")]


@pytest.mark.readme
@pytest.mark.parametrize("command", RUN)
def test_a_command_of_the_readme_runs(command: str, cli: CLI, fill: dict[str, str]) -> None:
    filled = command
    for name, path in {**fill, **SMALLER}.items():
        filled = filled.replace(name, path)
    arguments = shlex.split(filled)[3:]
    given = {argument.partition("=")[0] for argument in arguments}
    small = [a for a in sized(command) if a.partition("=")[0] not in given]
    if "task=model_card" in arguments:  # which says what was measured
        assert cli("task=evaluate", arguments[-1], "task.num_resamples=1") == 0
    assert cli(*arguments, *small) == 0


@pytest.mark.readme
@pytest.mark.parametrize("code", [block for language, block in BLOCKS if language == "python"])
def test_a_snippet_of_the_readme_runs(
    code: str, cli: CLI, fill: dict[str, str], phantoms: str, tmp_path: Path
) -> None:
    if "LatentDataset" in code:  # of patients who were seen twice
        visits = ("dataset.phantoms.num_followups=4", "task.then.encode.umap=false")
        assert cli(*TINY_MRI, phantoms, *visits, f"run_dir={tmp_path / 'visits'}") == 0
        fill["outputs/<run>"] = str(tmp_path / "visits")
    for name, path in fill.items():
        code = code.replace(name, path)
    exec(compile(code, "README.md", "exec"), {"__name__": "readme"})


def test_what_is_not_run_here_is_run_elsewhere() -> None:
    rest = [command for command in commands() if command not in RUN]
    assert [c for c in rest if not any(mark in c for mark in (*TESTED_ELSEWHERE, "export "))] == []


def test_every_file_that_the_readme_names_is_there() -> None:
    named = set(re.findall(r"`((?:conf|tests|vaelab)/[\w/.]+)`", README))
    named |= {f"vaelab/{name}" for name in re.findall(r"`((?:\w+/)+\w+\.py)`", README) if not
              name.startswith(("tests/", "vaelab/"))}  # fmt: skip
    assert len(named) > 10
    assert {name for name in named if not (ROOT / name).exists()} == set()


def test_every_picture_of_the_readme_opens() -> None:
    pictures = re.findall(r"!\[[^]]+\]\(([^)]+)\)", README)
    assert len(pictures) >= 2
    for name in pictures:
        with Image.open(ROOT / name) as picture:
            picture.verify()


def test_the_readme_is_read_in_one_sitting() -> None:
    assert len(README.splitlines()) < 300


def test_its_tables_are_those_of_the_config_files() -> None:
    written = with_tables(README, read_reference([CONF]))
    assert written == README, "python -m vaelab.cli.reference README.md"
