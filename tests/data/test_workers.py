"""Claims about what is said of a machine before worker processes are started on it."""

from __future__ import annotations

import shutil
import tempfile
from collections import namedtuple
from pathlib import Path

import pytest
import torch

from vaelab.data.cache import cached_dataset, memory_of_sample
from vaelab.data.workers import check_shared_memory, check_workers
from vaelab.errors import UserError

from ..conftest import CLI, TINY_MRI

Usage = namedtuple("Usage", "total used free")


@pytest.mark.parametrize(("length", "fits"), [(75, True), (76, False)])
def test_a_long_folder_of_temporary_files_is_named(
    monkeypatch: pytest.MonkeyPatch, length: int, fits: bool
) -> None:
    """107 bytes of a socket's path, of which /pymp-12345678/listener-12345678 takes 32."""
    monkeypatch.setattr(tempfile, "tempdir", "/" + "t" * (length - 1))
    check_workers(0)
    if fits:
        check_workers(1)
        return
    with pytest.raises(UserError, match=r"^dataset\.num_workers=1: .*set TMPDIR=/tmp, or"):
        check_workers(1)


def test_it_is_said_before_training(
    cli: CLI, phantoms: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    long = tmp_path / ("t" * 90)
    long.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(long))
    assert cli(*TINY_MRI, phantoms, "dataset.num_workers=1", "run_dir=run") == 1
    assert "set TMPDIR=/tmp" in "".join(capfd.readouterr())
    assert not Path("run/checkpoints").exists()


def test_batches_need_room_in_shared_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(64e6, 0, 64e6))
    check_shared_memory(4, 8_000_000, tmp_path)  # 4 workers with 2 batches each
    check_shared_memory(0, 10**12, tmp_path)
    check_shared_memory(4, 10**12, tmp_path / "absent")
    with pytest.raises(UserError, match=r"need 72 MB .* has 64 MB free; .*--shm-size=1g .*=0$"):
        check_shared_memory(4, 9_000_000, tmp_path)


def test_a_sample_takes_float32_in_memory_whatever_its_cache(tmp_path: Path) -> None:
    records = [{"id": "a"}, {"id": "b"}]
    for dtype, rate in (("float32", 1.0), ("float16", 1.0), ("bfloat16", 0.5)):
        data = cached_dataset(records, dict, {}, tmp_path, rate, dtype, values=100)
        assert memory_of_sample(data) == 400
    assert memory_of_sample(torch.utils.data.TensorDataset(torch.zeros(1))) == 0
