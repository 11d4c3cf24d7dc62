"""What grows is measured; nothing here depends on how fast anything is."""

from __future__ import annotations

import json
import mmap
from pathlib import Path

import pytest
from PIL import Image

from vaelab.errors import UserError
from vaelab.tasks.growth import Growth, resident_mib

from ..conftest import CLI, TINY_MRI, TINY_XRAY


@pytest.mark.slow
def test_all_that_grows_is_measured_and_drawn(cli: CLI, phantoms: str, tmp_path: Path):
    asked = (
        "task.cases=[1,3]", "task.roi_sizes=[16,32]", "task.workers=[0]", "task.epochs=5",
        "task.base_filters=4",
    )  # fmt: skip
    assert cli(*TINY_MRI, phantoms, "task=growth", *asked, "hydra.run.dir=run") == 0
    result = json.loads((tmp_path / "run" / "growth.json").read_text())
    assert result["cases"].keys() == {"1", "3"}
    assert result["roi_sizes"].keys() == {"16", "32"}
    assert result["workers"].keys() == {"0"}
    for kind in ("cases", "roi_sizes", "workers"):
        assert all(seconds > 0 for seconds in result[kind].values())
    assert len(result["memory_mib"]) == 6  # the first of all epochs too
    assert min(result["memory_mib"]) > 50  # PyTorch alone is more
    with Image.open(tmp_path / "run" / "growth.png") as picture:
        assert picture.width > 1000
    assert not (tmp_path / "run" / "growth").exists()


def test_only_phantoms_can_be_made_as_large_as_asked(
    cli: CLI, phantoms: str, capfd: pytest.CaptureFixture[str]
):
    assert cli(*TINY_XRAY, phantoms, "task=growth") == 1
    assert "a ChestXrayDataModule cannot be made as large as asked" in capfd.readouterr().out


@pytest.mark.parametrize(
    ("key", "value"),
    [("cases", []), ("cases", [0]), ("roi_sizes", [20]), ("workers", [-1]), ("epochs", 3)],
)
def test_impossible_values_are_refused_by_name(key: str, value: object):
    with pytest.raises(UserError, match=rf"task\.{key}="):
        Growth(**{key: value})


def test_memory_is_seen_to_grow():
    before = resident_mib()
    # Straight from the system: an allocator may hand out what is resident already.
    with mmap.mmap(-1, 256 * 2**20) as held:
        for start in range(0, len(held), 4096):
            held[start] = 1  # touched, and so resident
        assert resident_mib() - before > 128
