"""Inputs from elsewhere, judged one at a time."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np

from vaelab.anomaly.detector import AnomalyDetector, Prediction
from vaelab.data.contract import InputSample
from vaelab.data.inputs import Input
from vaelab.data.module import SplitDataModule
from vaelab.data.patients import patients_of
from vaelab.errors import UserError
from vaelab.evaluation.shift_alarm import Seen


class JudgedInput(NamedTuple):
    """An input, and what the detector says of it."""

    sample: InputSample
    prediction: Prediction
    """Of a batch of one."""

    @property
    def score(self) -> float:
        """Finite."""
        return float(self.prediction.score[0])

    @property
    def seen(self) -> Seen:
        """What the shift alarm compares."""
        return Seen.of(self.sample.image[None], self.prediction)


def judge_input(data: SplitDataModule, detector: AnomalyDetector, path: Path) -> JudgedInput:
    """Read an input as training reads its own, and judge it.

    Raises:
        UserError: when it cannot be read, or has no score.
    """
    sample = data.read_input(path)
    judged = JudgedInput(sample, detector(sample.image[None]))
    if not np.isfinite(judged.score):
        raise UserError(f"{path}: its score is {judged.score}; it holds NaN or infinity")
    return judged


def patient_of_input(data: SplitDataModule, item: Input) -> str:
    """The patient of an input, as far as ``dataset.patient_pattern`` finds one in its name."""
    return patients_of([item.name], data.patient_pattern)[0]
