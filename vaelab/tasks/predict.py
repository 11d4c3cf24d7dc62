"""``task=predict``: judge new images, of which nothing is known, with a trained run."""

from __future__ import annotations

import csv
import logging
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from vaelab.anomaly.calibration import check_alpha
from vaelab.anomaly.detector import AnomalyDetector
from vaelab.assembly import Run, Task
from vaelab.atomic import replacing
from vaelab.data.contract import Paint
from vaelab.data.index import ENCODING, enumerate_names
from vaelab.data.inputs import HINT, Input
from vaelab.data.module import SplitDataModule
from vaelab.errors import UserError
from vaelab.evaluation.calibrating import heat_scale, load_calibration
from vaelab.evaluation.judge import judge_of
from vaelab.progress import progress
from vaelab.report.card import overlay
from vaelab.runs.paths import PathText

log = logging.getLogger(__name__)

COLUMNS = ("file", "score", "p_value", "flag", "error")


class Predict(Task):
    """Writes ``predictions.csv``, and maps of what is abnormal where, for each input.

    The columns are ``file`` (below what all inputs have in common), ``score``, ``p_value`` and
    ``flag`` (1 is abnormal at ``alpha``; both empty without the run's ``calibration.json``), and
    ``error``, empty but for an input that could not be read.

    Maps are in a tree of folders like that of the inputs. A 2D image gets ``<stem>_heatmap.png``,
    the heat over the original at its size, brightest from a quantile of healthy images. A volume
    gets ``<id>/<id>_anomaly.nii.gz``, on the grid of the volume's own files and 0 where the network
    did not look. Maps are the score's own: what each voxel adds to it. A score that has no place is
    shown with |x - x_hat| averaged over modalities, in the unit of the network's input.

    Args:
        inputs: a file or folder, a ``.txt`` or ``.csv`` list of such, or several of these.
        output_dir: where to write; None is ``predictions`` in the run folder.
        alpha: tolerated share of healthy images flagged, in (0, 1).
        save_maps: whether to write maps.

    Raises:
        UserError: without inputs, or for an ``alpha`` out of range.
    """

    parts = ("dataset", "model", "hardware", "score", "train", "logging")

    def __init__(
        self,
        inputs: PathText | Sequence[PathText] | None = None,
        output_dir: PathText | None = None,
        alpha: float = 0.05,
        save_maps: bool = True,
    ) -> None:
        if not inputs:
            raise UserError(f"task.inputs is not set: what is to be judged? {HINT}")
        check_alpha(alpha)
        self.inputs = inputs
        self.output_dir = output_dir
        self.alpha = alpha
        self.save_maps = save_maps

    def __call__(self, run: Run) -> None:
        """Judge every input, one at a time, and write down each as it is done.

        Raises:
            UserError: before any work when there is nothing to judge or nothing to judge with; at
                the end, naming all of them, when inputs could not be read.
        """
        output_dir = Path(self.output_dir or run.folder.predictions).expanduser()
        inputs = run.data.find_inputs(self.inputs, output_dir)
        calibration = load_calibration(run)
        warning = calibration.warning(self.alpha) if calibration else None
        if warning:
            log.warning("%s", warning)
        detector = judge_of(run).detector
        paint = partial(overlay, heat_scale=self._heat_scale(run))
        table = output_dir / "predictions.csv"
        failed: list[str] = []
        flagged = 0
        with replacing(table) as unfinished, unfinished.open("w", newline="", **ENCODING) as file:
            writer = csv.DictWriter(file, COLUMNS, restval="")
            writer.writeheader()
            bar = progress(
                inputs, "judging", unit="input",
                shown=run.logging.progress_bar,
            )  # fmt: skip
            for one in bar:
                row: dict[str, Any] = {"file": one.name}
                try:
                    row["score"] = score = self._judge(one, run.data, detector, output_dir, paint)
                except UserError as error:
                    row["error"] = " ".join(str(error).split())
                    log.warning("%s", row["error"])
                    failed.append(row["error"])
                else:
                    if calibration:
                        row["p_value"] = float(calibration.p_value(score))
                        row["flag"] = int(calibration.flag(score, self.alpha))
                        flagged += row["flag"]
                writer.writerow(row)
        log.info(
            "judged %d inputs%s: %s",
            len(inputs) - len(failed),
            f", {flagged} flagged at alpha={self.alpha:g}" if calibration else "",
            table,
        )
        if failed:
            raise UserError(
                f"{len(failed)} of {len(inputs)} inputs could not be read:{enumerate_names(failed)}"
            )

    def _judge(
        self,
        one: Input,
        data: SplitDataModule,
        detector: AnomalyDetector,
        output_dir: Path,
        paint: Paint,
    ) -> float:
        """The score of one input, whose map is written if asked for."""
        sample = data.read_input(one.path)
        prediction = detector(sample.image[None])
        score = float(prediction.score[0])
        if not np.isfinite(score):
            raise UserError(f"{one.path}: its score is {score}; it holds NaN or infinity")
        if self.save_maps:
            data.save_map(prediction.heatmap[0], sample, output_dir / one.place, paint)
        return score

    def _heat_scale(self, run: Run) -> float:
        """Top of the colours; 1 where maps have none."""
        if not (self.save_maps and run.data.paints_maps):
            return 1.0
        try:
            scale = heat_scale(run)
        except UserError as error:
            raise UserError(
                f"{error}. The heat maps' colour scale is measured on the run's healthy images, "
                "by task=report_card or here: make them available, or do without maps by "
                "task.save_maps=false"
            ) from error
        log.info(
            "heat maps show %s, brightest from %.3g, the %s",
            *(scale.quantity, scale.top, scale.source),
        )
        return scale.top
