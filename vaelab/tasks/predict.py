"""``task=predict``: judge new images, of which nothing is known, with a trained run."""

from __future__ import annotations

import csv
import logging
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from vaelab.anomaly.calibration import check_alpha
from vaelab.assembly import Run, Task
from vaelab.atomic import replacing, write_json
from vaelab.data.index import ENCODING, enumerate_names
from vaelab.data.inputs import HINT
from vaelab.errors import UserError
from vaelab.evaluation.calibrating import calibration_in_use
from vaelab.evaluation.heat_scale import heat_scale, map_name
from vaelab.evaluation.inputs import judge_input, patient_of_input
from vaelab.evaluation.judge import judge_of
from vaelab.evaluation.shift_alarm import Seen, ShiftAlarm
from vaelab.progress import progress
from vaelab.report.card import overlay
from vaelab.runs.paths import PathText

log = logging.getLogger(__name__)

COLUMNS = ("file", "score", "p_value", "flag", "calibration", "p_values_hold", "error")


class Predict(Task):
    """Writes ``predictions.csv``, and maps of what is abnormal where, for each input.

    The columns are ``file`` (below what all inputs have in common), ``score``, ``p_value`` and
    ``flag`` (1 is abnormal at ``alpha``), ``calibration``, which images p-values are by, and
    ``error``, empty but for an input that could not be read. Calibrated is by ``task=calibrate``,
    else by the run's own ``calibration.json``; with neither, three columns are empty.
    ``predictions.json`` has the counts, and what is known of the calibration.

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
        """Judge every input, one at a time; the tables are written once all are.

        Raises:
            UserError: before any work when there is nothing to judge or nothing to judge with; at
                the end, naming all of them, when inputs could not be read.
        """
        output_dir = Path(self.output_dir or run.folder.predictions).expanduser()
        inputs = run.data.find_inputs(self.inputs, output_dir)
        calibrated = calibration_in_use(run)
        warning = calibrated.calibration.warning(self.alpha) if calibrated else None
        if warning:
            log.warning("%s", warning)
        detector = judge_of(run).detector
        paint = partial(overlay, heat_scale=self._heat_scale(run))
        rows: list[dict[str, Any]] = []
        seen: dict[str, Seen] = {}
        maps_show = ""
        for item in progress(inputs, "judging", unit="input", shown=run.logging.progress_bar):
            row: dict[str, Any] = {"file": item.name}
            rows.append(row)
            try:
                judged = judge_input(run.data, detector, item.path)
                if self.save_maps:
                    heat, place = judged.prediction.heatmap[0], output_dir / item.place
                    run.data.save_map(heat, judged.sample, place, paint)
            except UserError as error:
                row["error"] = " ".join(str(error).split())
                log.warning("%s", row["error"])
            else:
                row["score"] = judged.score
                maps_show = map_name(run, judged.prediction.shows_score)
                seen.setdefault(patient_of_input(run.data, item), judged.seen)
                if calibrated:
                    row["p_value"] = float(calibrated.calibration.p_value(judged.score))
                    row["flag"] = int(calibrated.calibration.flag(judged.score, self.alpha))
                    row["calibration"] = calibrated.source
        failed = [row["error"] for row in rows if "error" in row]
        flagged = sum(row.get("flag", 0) for row in rows)
        table = output_dir / "predictions.csv"
        shift: ShiftAlarm | None = None
        summary: dict[str, Any] = {"inputs": len(inputs), "judged": len(inputs) - len(failed)}
        if self.save_maps and maps_show:
            summary["maps_show"] = maps_show
            log.info("maps show %s", maps_show)
        if calibrated:
            summary |= {"alpha": self.alpha, "flagged": flagged}
            summary |= {"calibration": calibrated.to_json()}
            shift = calibrated.shift(Seen.joined(list(seen.values()))) if seen else None
            if shift:
                summary["shift"] = asdict(shift) | {"meaning": shift.sentence()}
                for row in rows:
                    row["p_values_hold"] = "" if "error" in row else shift.verdict
        _write(table, rows)
        write_json(table.with_suffix(".json"), summary)
        log.info(
            "judged %d inputs%s: %s",
            len(inputs) - len(failed),
            f", {flagged} flagged at alpha={self.alpha:g} by {calibrated.source}"
            if calibrated
            else "",
            table,
        )
        if shift:
            log.log(logging.WARNING if shift.alarm else logging.INFO, "%s", shift.sentence())
        if failed:
            raise UserError(
                f"{len(failed)} of {len(inputs)} inputs could not be read:{enumerate_names(failed)}"
            )

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
        log.info("heat maps are brightest from %.3g, the %s", scale.top, scale.source)
        return scale.top


def _write(table: Path, rows: Sequence[dict[str, Any]]) -> None:
    with replacing(table) as unfinished, unfinished.open("w", newline="", **ENCODING) as file:
        writer = csv.DictWriter(file, COLUMNS, restval="")
        writer.writeheader()
        writer.writerows(rows)
