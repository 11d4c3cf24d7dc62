"""SIGTERM, by which a batch system takes a machine back: stop in order, be resumed later."""

from __future__ import annotations

import os
import signal
import threading
from types import FrameType, TracebackType
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Callback

from vaelab.errors import Interrupted
from vaelab.runs.processes import this_process


class Preemption(Callback):
    """Within this context SIGTERM raises ``Interrupted``; during training it defers to Lightning.

    In the training loop of one process Lightning's own handler works: it lets the batch end and
    then raises ``SIGTERMException``. Of several processes it asks the others from inside the
    handler, and waits for ever where they wait for a gradient: there this one stays.

    Nothing is saved at that moment. The last epoch's checkpoint is there, and from it a run goes on
    as if it had never stopped; one from the middle of an epoch would have to bring back the sums of
    the log and the place in the data too.
    """

    def __init__(self) -> None:
        self.received = False
        """Whether the signal has come."""
        self._training = False
        self._before: Any = None
        self._process = os.getpid()

    def __enter__(self) -> Preemption:
        if threading.current_thread() is threading.main_thread():  # no other can set handlers
            self._before = signal.signal(signal.SIGTERM, self._handle)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._before is not None:
            signal.signal(signal.SIGTERM, self._before)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._process:  # a worker has inherited this handler
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            os.kill(os.getpid(), signal.SIGTERM)
            return
        if this_process().launcher == "vaelab":
            # To the process that waits for this one and its like, and stops them all.
            os.kill(os.getppid(), signal.SIGTERM)
        self.received = True
        if not self._training:
            raise Interrupted("stopped by SIGTERM")

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """From here on Lightning looks for the signal after every batch of a process alone."""
        self._training = trainer.world_size == 1
        if not self._training and self._before is not None:
            signal.signal(signal.SIGTERM, self._handle)  # Lightning has put its own before it

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Lightning looks no more."""
        self._training = False

    def on_exception(
        self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException
    ) -> None:
        """Lightning looks no more."""
        self._training = False
