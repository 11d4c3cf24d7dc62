"""``task=predict``: judge new images, of which nothing is known, with a trained run."""

from __future__ import annotations

import csv
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from vaelab.anomaly.calibration import check_alpha
from vaelab.anomaly.detector import AnomalyDetector
from vaelab.assembly import Run, Task
from vaelab.atomic import replacing
from vaelab.data.index import ENCODING, enumerate_names
from vaelab.data.inputs import (
    HINT,
    Input,
    Radiograph,
    Volume,
    find_radiographs,
    find_subjects,
    read_full_size,
    read_radiograph,
    read_subject,
)
from vaelab.data.module import SplitDataModule
from vaelab.data.mri.brats import BraTSDataModule
from vaelab.data.volumes.native import save_native
from vaelab.data.xray.chest_xray import ChestXrayDataModule
from vaelab.data.xray.grey_image import LoadGreyImage
from vaelab.errors import UserError
from vaelab.evaluation.judging import healthy_scale, load_calibration, load_detector
from vaelab.report.card import overlay
from vaelab.runs.paths import PathText

log = logging.getLogger(__name__)

COLUMNS = ("file", "score", "p_value", "flag", "error")
ROWS_AT_ONCE = 256  # of an overlay, whose colours take 100 times the bytes of a grey image


class Predict(Task):
    """Writes ``predictions.csv``, and maps of what is abnormal where, for each input.

    The columns are ``file`` (below what all inputs have in common), ``score``, ``p_value`` and
    ``flag`` (1 is abnormal at ``alpha``; both empty without the run's ``calibration.json``), and
    ``error``, empty but for an input that could not be read.

    Maps are in a tree of folders like that of the inputs. A 2D image gets ``<stem>_heatmap.png``,
    the heat over the original at its size, brightest from a quantile of healthy images. A subject
    gets ``<id>/<id>_anomaly.nii.gz``: |x - x_hat| averaged over modalities, in standard deviations
    of a series, on the grid of the subject's own files and 0 where the network did not look.

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
        kind = _kind_of(run.data)
        inputs = kind.find(self.inputs, output_dir)
        calibration = load_calibration(run)
        warning = calibration.warning(self.alpha) if calibration else None
        if warning:
            log.warning("%s", warning)
        detector = load_detector(run)
        if self.save_maps:
            kind.prepare_maps(run, detector)
        table = output_dir / "predictions.csv"
        failed: list[str] = []
        flagged = 0
        with replacing(table) as unfinished, unfinished.open("w", newline="", **ENCODING) as file:
            writer = csv.DictWriter(file, COLUMNS, restval="")
            writer.writeheader()
            progress = tqdm(
                inputs, "judging", unit="input", leave=False,
                disable=not run.logging.progress_bar,
            )  # fmt: skip
            for one in progress:
                row: dict[str, Any] = {"file": one.name}
                try:
                    row["score"] = score = self._judge(one, kind, detector, output_dir)
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

    def _judge(self, one: Input, kind: _Kind, detector: AnomalyDetector, output_dir: Path) -> float:
        """The score of one input, whose map is written if asked for."""
        sample = kind.read(one.path)
        finding = detector(sample.image[None])
        score = float(finding.score[0])
        if not np.isfinite(score):
            raise UserError(f"{one.path}: its score is {score}; it holds NaN or infinity")
        if self.save_maps:
            kind.save_map(finding.heatmap[0], sample, one, output_dir)
        return score


class _Kind(Protocol):
    """What differs between images and volumes."""

    def find(self, inputs: str | Sequence[str], output_dir: Path) -> list[Input]: ...

    def prepare_maps(self, run: Run, detector: AnomalyDetector) -> None: ...

    def read(self, path: Path) -> Any:
        """A sample with ``image``, (C, ...)."""
        ...

    def save_map(self, heatmap: Tensor, sample: Any, one: Input, output_dir: Path) -> None: ...


class _Radiographs:
    """JPEG, PNG and DICOM files, and overlays as PNG."""

    def __init__(self, data: ChestXrayDataModule) -> None:
        self.loader = LoadGreyImage(**data.settings)
        self.scale = 0.0

    def find(self, inputs: str | Sequence[str], output_dir: Path) -> list[Input]:
        return find_radiographs(inputs, output_dir)

    def prepare_maps(self, run: Run, detector: AnomalyDetector) -> None:
        try:
            self.scale, source = healthy_scale(run, detector)
        except UserError as error:
            raise UserError(
                f"{error}. The heat maps' colour scale is measured on the run's healthy images, "
                "by task=report_card or here: make them available, or do without maps by "
                "task.save_maps=false"
            ) from error
        log.info("heat maps are brightest from %.3g, the %s", self.scale, source)

    def read(self, path: Path) -> Radiograph:
        return read_radiograph(path, self.loader)

    def save_map(self, heatmap: Tensor, sample: Radiograph, one: Input, output_dir: Path) -> None:
        original = read_full_size(one.path, self.loader.max_pixels)
        heat = at_full_size(heatmap.numpy(), sample.box, original.shape)
        picture = Image.new("RGB", original.shape[::-1])
        for top in range(0, len(original), ROWS_AT_ONCE):
            rows = slice(top, top + ROWS_AT_ONCE)
            part = overlay(original[rows], heat[rows], self.scale)
            picture.paste(Image.fromarray(part), (0, top))
        with replacing(output_dir / f"{one.place}_heatmap.png") as unfinished:
            # Level 6 takes four times as long to save a tenth.
            picture.save(unfinished, format="PNG", compress_level=1)


class _Volumes:
    """Subject folders in BraTS naming, and anomaly maps as NIfTI."""

    def __init__(self, data: BraTSDataModule) -> None:
        self.settings = data.settings

    def find(self, inputs: str | Sequence[str], output_dir: Path) -> list[Input]:
        return find_subjects(inputs, self.settings["modalities"], output_dir)

    def prepare_maps(self, run: Run, detector: AnomalyDetector) -> None:
        """Nothing: the maps hold residuals, not colours."""

    def read(self, path: Path) -> Volume:
        return read_subject(path, self.settings)

    def save_map(self, heatmap: Tensor, sample: Volume, one: Input, output_dir: Path) -> None:
        path = output_dir / one.place / f"{one.path.name}_anomaly.nii.gz"
        save_native(heatmap.numpy(), sample.affine, sample.original, path)


def at_full_size(
    heatmap: np.ndarray, box: tuple[float, float, float, float], shape: tuple[int, ...]
) -> np.ndarray:
    """A heat map over the part of an image that it is about, 0 elsewhere.

    Args:
        heatmap: (h, w).
        box: left, top, right and bottom of that part, as shares of the image's width and height.
        shape: (H, W) of the image.

    Returns:
        float32 (H, W).
    """
    height, width = shape
    left, right = round(box[0] * width), round(box[2] * width)
    top, bottom = round(box[1] * height), round(box[3] * height)
    full = np.zeros((height, width), np.float32)
    part = Image.fromarray(heatmap.astype(np.float32)).resize(
        (right - left, bottom - top), Image.Resampling.BILINEAR
    )
    full[top:bottom, left:right] = np.asarray(part)
    return full


def _kind_of(data: SplitDataModule) -> _Kind:
    if isinstance(data, ChestXrayDataModule):
        return _Radiographs(data)
    if isinstance(data, BraTSDataModule):
        return _Volumes(data)
    raise UserError(f"task=predict: cannot read new inputs for a {type(data).__name__}")
