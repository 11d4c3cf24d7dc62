"""The CSV log: it survives a resumed run, and reads back as one value per epoch."""

from __future__ import annotations

import errno
import math
import os
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from torch import Tensor, nn
from torch.utils.data import DataLoader

from vaelab.atomic import NoSpaceError
from vaelab.runs.history import read_history, truncate_history
from vaelab.training.history import CSVHistory, LogEpoch

from .conftest import quiet_trainer


def write(path: Path, text: str) -> Path:
    """A CSV file from lines that are indented in the test."""
    lines = [line.strip() for line in text.strip().splitlines()]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def log(folder: Path, step: int, **metrics: float) -> None:
    """A row from a new logger, as in a run that was just started or resumed."""
    logger = CSVHistory(folder)
    logger.log_metrics(metrics, step=step)
    logger.save()


class Steps(L.LightningModule):
    """Logs the current epoch, through ``LogEpoch`` and by Lightning itself."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(1, 1)

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        """Any loss."""
        self.log("train/epoch_seen", float(self.current_epoch), on_step=False, on_epoch=True)
        loss: Tensor = self.layer(batch).square().sum()
        return loss

    def validation_step(self, batch: Tensor, batch_idx: int) -> None:
        """The same."""
        self.log("val/epoch_seen", float(self.current_epoch), logger=False)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Any optimiser."""
        return torch.optim.SGD(self.parameters(), lr=0.0)


# --- reading


def test_the_rows_of_one_epoch_are_merged(tmp_path: Path) -> None:
    path = write(
        tmp_path / "metrics.csv",
        """epoch,step,train/loss,val/loss
           0,3,,20.5
           0,3,10.5,
           1,7,,18
           1,7,9,""",
    )
    assert read_history(path) == {
        "epoch": [0, 1], "step": [3, 7], "train/loss": [10.5, 9], "val/loss": [20.5, 18],
    }  # fmt: skip


def test_a_value_that_is_missing_is_nan(tmp_path: Path) -> None:
    path = write(
        tmp_path / "metrics.csv",
        """epoch,train/loss,val/psnr
           0,10,
           1,9,21""",
    )
    psnr = read_history(path)["val/psnr"]
    assert math.isnan(psnr[0])
    assert psnr[1] == 21


def test_epochs_come_in_order_however_they_were_written(tmp_path: Path) -> None:
    path = write(
        tmp_path / "metrics.csv",
        """epoch,loss
           10,1
           2,3
           9,2""",
    )
    assert read_history(path) == {"epoch": [2, 9, 10], "loss": [3, 2, 1]}


@pytest.mark.parametrize("cut", [1, 4, 9])
def test_a_last_line_that_does_not_end_is_left_out(tmp_path: Path, cut: int) -> None:
    path = write(
        tmp_path / "metrics.csv",
        """epoch,train/loss,val/loss
           0,10,20
           1,9.5,18.5""",
    )
    path.write_bytes(path.read_bytes()[:-cut])
    assert read_history(path) == {"epoch": [0], "train/loss": [10], "val/loss": [20]}
    truncate_history(path, first_epoch=2)
    log(tmp_path, step=3, epoch=1, **{"train/loss": 9.5, "val/loss": 18.5})
    assert read_history(path)["val/loss"] == [20, 18.5]


# --- truncating


def test_only_the_epochs_to_be_written_again_are_dropped(tmp_path: Path) -> None:
    path = write(
        tmp_path / "metrics.csv",
        """epoch,train/loss,val/loss
           0,,4
           0,5,
           1,,3
           1,4,
           2,,2
           10,,1""",
    )
    truncate_history(path, first_epoch=2)
    assert read_history(path) == {"epoch": [0, 1], "train/loss": [5, 4], "val/loss": [4, 3]}
    assert [file.name for file in tmp_path.iterdir()] == ["metrics.csv"]


def test_truncating_past_the_end_changes_nothing(tmp_path: Path) -> None:
    path = write(
        tmp_path / "metrics.csv",
        """epoch,loss
           0,5
           1,4""",
    )
    truncate_history(path, first_epoch=2)
    assert read_history(path) == {"epoch": [0, 1], "loss": [5, 4]}


def test_what_is_kept_is_kept_to_the_letter(tmp_path: Path) -> None:
    for epoch in range(3):
        log(tmp_path, step=epoch, epoch=epoch, loss=0.1 + epoch / 3)
    lines = (tmp_path / "metrics.csv").read_bytes().splitlines(keepends=True)
    truncate_history(tmp_path / "metrics.csv", first_epoch=2)
    assert (tmp_path / "metrics.csv").read_bytes() == b"".join(lines[:-1])


def test_truncating_everything_leaves_nothing_to_be_read(tmp_path: Path) -> None:
    log(tmp_path, step=0, epoch=0, loss=5)
    truncate_history(tmp_path / "metrics.csv", first_epoch=0)
    assert read_history(tmp_path / "metrics.csv") == {}
    log(tmp_path, step=0, epoch=0, loss=4)
    assert read_history(tmp_path / "metrics.csv")["loss"] == [4]


def test_a_run_without_a_log_has_nothing_to_truncate(tmp_path: Path) -> None:
    truncate_history(tmp_path / "metrics.csv", first_epoch=2)
    assert list(tmp_path.iterdir()) == []


# --- the logger


def test_the_file_lies_in_the_folder_itself(tmp_path: Path) -> None:
    log(tmp_path / "logs", step=0, epoch=0, loss=5)
    assert [file.name for file in (tmp_path / "logs").iterdir()] == ["metrics.csv"]


def test_a_second_logger_appends_to_the_first(tmp_path: Path) -> None:
    for epoch in (0, 1):
        log(tmp_path / "logs", step=epoch, epoch=epoch, loss=5 - epoch)
    history = read_history(tmp_path / "logs" / "metrics.csv")
    assert history == {"epoch": [0, 1], "step": [0, 1], "loss": [5, 4]}


def test_the_header_grows_for_a_metric_the_first_run_did_not_know(tmp_path: Path) -> None:
    log(tmp_path / "logs", step=0, epoch=0, loss=5)
    log(tmp_path / "logs", step=1, epoch=1, loss=4, beta=0.5)
    history = read_history(tmp_path / "logs" / "metrics.csv")
    assert history["loss"] == [5, 4]
    assert history["beta"] == [pytest.approx(math.nan, nan_ok=True), 0.5]


def test_a_metric_the_second_run_has_lost_leaves_its_column(tmp_path: Path) -> None:
    log(tmp_path / "logs", step=0, epoch=0, loss=5, beta=0.5)
    log(tmp_path / "logs", step=1, epoch=1, loss=4)
    history = read_history(tmp_path / "logs" / "metrics.csv")
    assert history["loss"] == [5, 4]
    assert history["beta"] == [0.5, pytest.approx(math.nan, nan_ok=True)]


def test_a_write_that_finds_no_room_leaves_the_rows_before_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log(tmp_path, step=0, epoch=0, loss=5)
    before = (tmp_path / "metrics.csv").read_bytes()

    def full(*paths: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(NoSpaceError, match=r"metrics\.csv: no room to write this file"):
        log(tmp_path, step=1, epoch=1, loss=4)
    assert (tmp_path / "metrics.csv").read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["metrics.csv"]


class Seen(Callback):
    """The content of the log whenever a checkpoint is saved."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.epochs: list[dict[str, list[float]]] = []

    def on_save_checkpoint(self, *_: Any) -> None:
        """Read it."""
        self.epochs.append(read_history(self.path))


def test_the_whole_row_of_an_epoch_is_there_before_its_checkpoint(tmp_path: Path) -> None:
    loader: DataLoader[Tensor] = DataLoader(torch.ones(3, 1))  # type: ignore[arg-type]
    seen = Seen(tmp_path / "logs" / "metrics.csv")
    trainer = quiet_trainer(
        ModelCheckpoint(tmp_path, save_on_train_epoch_end=True), LogEpoch(), seen,
        max_epochs=2, logger=CSVHistory(tmp_path / "logs"), enable_checkpointing=True,
    )  # fmt: skip
    trainer.fit(Steps(), loader, loader)
    assert [history["epoch"] for history in seen.epochs] == [[0], [0, 1]]
    assert seen.epochs[1]["train/epoch_seen"] == [0, 1]
    assert seen.epochs[1]["val/epoch_seen"] == [0, 1]
    assert read_history(tmp_path / "logs" / "metrics.csv") == seen.epochs[1]
    assert seen.epochs[1]["step"] == [2, 5]  # the last of three, counted from 0


def test_a_resumed_training_keeps_the_rows_before_it(tmp_path: Path) -> None:
    loader: DataLoader[Tensor] = DataLoader(torch.ones(2, 1))  # type: ignore[arg-type]

    def train(epochs: int, **fit: Any) -> L.Trainer:
        trainer = quiet_trainer(max_epochs=epochs, logger=CSVHistory(tmp_path / "logs"))
        trainer.fit(Steps(), loader, loader, **fit)
        return trainer

    train(2).save_checkpoint(tmp_path / "last.ckpt")
    train(4, ckpt_path=tmp_path / "last.ckpt", weights_only=True)
    history = read_history(tmp_path / "logs" / "metrics.csv")
    assert history["epoch"] == [0, 1, 2, 3]
    assert history["train/epoch_seen"] == [0, 1, 2, 3]


def test_values_that_name_no_epoch_are_in_the_row_of_the_next(tmp_path: Path) -> None:
    logger = CSVHistory(tmp_path)
    for epoch in (0, 1):
        logger.log_metrics({"lr-AdamW": 0.5**epoch}, step=epoch)
        logger.log_metrics({"train/loss": 2.0, "epoch": epoch}, step=epoch)
    logger.save()
    assert read_history(tmp_path / "metrics.csv")["lr-AdamW"] == [1.0, 0.5]
