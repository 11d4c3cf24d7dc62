"""``task=calibrate``: p-values that hold on another machine, by normal images of that machine."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from vaelab.assembly import Run, Task
from vaelab.data.index import enumerate_names
from vaelab.data.inputs import HINT, Input
from vaelab.errors import UserError
from vaelab.evaluation.calibrating import Calibrated, write_local
from vaelab.evaluation.inputs import judge_input, patient_of_input
from vaelab.evaluation.judge import judge_of
from vaelab.evaluation.shift_alarm import Seen
from vaelab.progress import progress
from vaelab.runs.paths import PathText

log = logging.getLogger(__name__)

FEWEST = 20
"""Patients; fewer have no p-value up to 0.05, and n patients have none below 1/(n + 1)."""
USUAL_ALPHA = 0.05


class Calibrate(Task):
    """Writes ``calibration_local.json`` beside the run's own ``calibration.json``.

    ``task=predict`` judges by it from then on, and names it. The images must be normal, of the
    machine whose images are to be judged, and not chosen otherwise; of several of one patient the
    first counts. None of them has been seen in training, so all of them calibrate, and the promise
    of ``vaelab.anomaly.calibration`` holds.

    Args:
        inputs: a file or folder, a ``.txt`` or ``.csv`` list of such, or several of these.
        remove: take the calibration away instead: the run's own counts again.

    Raises:
        UserError: without inputs, or with inputs and ``remove``.
    """

    parts = ("dataset", "model", "hardware", "score", "train", "logging")

    def __init__(
        self, inputs: PathText | Sequence[PathText] | None = None, remove: bool = False
    ) -> None:
        if not inputs and not remove:
            raise UserError(
                f"task.inputs is not set: normal images of which machine? {HINT}; or take the "
                "calibration away with task.remove=true"
            )
        if inputs and remove:
            raise UserError("task.remove=true: takes a calibration away, leave task.inputs out")
        self.inputs = inputs
        self.remove = remove

    def __call__(self, run: Run) -> None:
        """Calibrate by all inputs, or by none.

        Raises:
            UserError: when there are fewer than 20 patients, naming all inputs that cannot be
                read, or when there is nothing to take away.
        """
        path = run.folder.local_calibration
        if self.remove:
            if not path.is_file():
                raise UserError(f"task.remove=true: there is no {path}")
            path.unlink()
            log.info("%s is gone; the run's own calibration counts again", path)
            return
        assert self.inputs
        inputs = run.data.find_inputs(self.inputs, run.folder.predictions)
        chosen = {patient_of_input(run.data, item): item for item in reversed(inputs)}
        if len(chosen) < FEWEST:
            raise UserError(
                f"task.inputs: {len(inputs)} inputs of {len(chosen)} patients; at least {FEWEST} "
                f"patients are needed, else no alpha up to {USUAL_ALPHA} is allowed"
            )
        seen = self._seen(run, [item for item in inputs if item in chosen.values()])
        named = self.inputs if isinstance(self.inputs, str) else ", ".join(self.inputs)
        source = f"{len(seen)} normal images of {named}"
        log.info("%s: %s", path, _allowed(write_local(run, seen, source)))

    def _seen(self, run: Run, inputs: Sequence[Input]) -> Seen:
        detector = judge_of(run).detector
        seen: list[Seen] = []
        failed: list[str] = []
        for item in progress(inputs, "judging", unit="input", shown=run.logging.progress_bar):
            try:
                seen.append(judge_input(run.data, detector, item.path).seen)
            except UserError as error:
                failed.append(" ".join(str(error).split()))
        if failed:
            raise UserError(
                f"task.inputs: {len(failed)} of {len(inputs)} inputs could not be read, and "
                f"nothing was calibrated; mend them or leave them out:{enumerate_names(failed)}"
            )
        return Seen.joined(seen)


def _allowed(calibrated: Calibrated) -> str:
    """What a calibration promises, in words."""
    calibration = calibrated.calibration
    low, high = calibration.false_alarm_range(USUAL_ALPHA)
    return (
        f"calibrated by {calibrated.source}; allows task.alpha from "
        f"{calibration.smallest_alpha:.4f} (1/{calibration.count + 1}) on; at alpha={USUAL_ALPHA}, "
        f"{100 * calibration.false_alarm_rate(USUAL_ALPHA):.1f} % of normal images are flagged on "
        f"average, {100 * low:.1f} to {100 * high:.1f} % in 95 % of such calibrations"
    )
