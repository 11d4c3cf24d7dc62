"""A few small pictures, each with the commands that made it."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vaelab.tasks.examples import STEPS, Picture, shrunk

from ..conftest import CLI

SMALL = [
    "train.max_epochs=1", "train.kl_annealing_epochs=0", "model.base_filters=4", "model.z_dim=8",
    "hardware=cpu", "logging.recon_every_n_epochs=1",
]  # fmt: skip


def test_pictures_are_made_smaller_until_all_fit(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    pictures = []
    for name in ("a", "b"):
        noise = rng.integers(0, 255, (300, 400, 3), dtype=np.uint8)
        Image.fromarray(noise).save(tmp_path / f"{name}.png")
        pictures.append(Picture(name, tmp_path / f"{name}.png", ()))
    files = shrunk(pictures, 60_000)
    assert sum(map(len, files)) <= 60_000
    (tmp_path / "small.png").write_bytes(files[0])
    with Image.open(tmp_path / "small.png") as small:
        width, height = small.size
    assert width < 400
    assert width / height == pytest.approx(4 / 3, rel=0.02)


@pytest.mark.slow
@pytest.mark.machine
def test_one_command_makes_them_all(
    cli: CLI, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    further = f"task.further=[{','.join(SMALL)}]"
    quoted = re.sub(r"\[(.*)\]", lambda m: "[" + ",".join(f"'{w}'" for w in SMALL) + "]", further)
    assert cli("task=examples", quoted, "run_dir=work") == 0, capfd.readouterr().out
    folder = tmp_path / "outputs" / "examples"
    pictures = sorted(folder.glob("*.png"))
    assert len(pictures) == sum(len(step.pictures) for step in STEPS)
    assert sum(path.stat().st_size for path in pictures) < 1_000_000
    page = (folder / "README.md").read_text()
    for path in pictures:
        assert f"({path.name})" in page
    assert page.count("python -m vaelab.run experiment=demo") >= 4
