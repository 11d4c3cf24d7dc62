"""``task=robustness``: would the run still tell sick from normal on another machine's images?"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from itertools import islice
from typing import Any, TypeVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from vaelab.anomaly.calibration import check_alpha
from vaelab.anomaly.detector import AnomalyDetector
from vaelab.atomic import replacing, write_json
from vaelab.data.chest_xray import ChestXrayDataModule, LoadGreyImage, decode_grey
from vaelab.data.index import Record
from vaelab.data.shifts import SHIFTS, eight_bit, shifted
from vaelab.errors import UserError
from vaelab.metrics.detection import detection_metrics
from vaelab.tasks.experiment import Experiment
from vaelab.tasks.judging import examine, judged_split, load_calibration, load_detector

log = logging.getLogger(__name__)

T = TypeVar("T")


@dataclass(frozen=True)
class Judgement:
    """How the score does on the test images of one machine, normal and sick ones alike."""

    auroc: float
    sensitivity_at_specificity_95: float
    """At a threshold found anew on these images: what a recalibrated machine could reach."""
    false_alarm_rate: float | None
    """Share of normal images flagged by the run's own calibration, which knows nothing of this
    machine; None without ``calibration.json``."""


class Robustness:
    """Writes ``robustness.json`` and ``robustness.md``: detection under simulated shifts.

    All test images, normal and sick alike, are decoded, shifted (``vaelab.data.shifts``) and
    then prepared as the run prepares its own. ``clean`` are the images as they are, exactly as
    ``task=evaluate`` judges them.

    Args:
        seed: of what the shifts draw for each image.
        shifts: names to judge, in this order; None takes all.
        alpha: share of false alarms that the run's calibration is asked for, in (0, 1).

    Raises:
        UserError: for a value that cannot work.
    """

    def __init__(
        self, seed: int = 0, shifts: Sequence[str] | None = None, alpha: float = 0.05
    ) -> None:
        if seed < 0:
            raise UserError(f"task.seed={seed}: a seed cannot be negative; try 0")
        names = list(SHIFTS) if shifts is None else list(dict.fromkeys(shifts))
        unknown = [name for name in names if name not in SHIFTS]
        if unknown or not names:
            raise UserError(
                f"task.shifts={names}: {', '.join(unknown) or 'none'} is not among the known "
                f"shifts; take some of {', '.join(SHIFTS)}, or null for all"
            )
        check_alpha(alpha)
        self.seed = seed
        self.shifts = names
        self.alpha = alpha

    def __call__(self, experiment: Experiment) -> float:
        """Judge on all test images.

        Returns:
            AUROC, averaged over the shifts.

        Raises:
            UserError: for a run that did not learn from X-rays, or is not trained.
        """
        data = experiment.data
        if not isinstance(data, ChestXrayDataModule):
            raise UserError(
                f"task=robustness: shifts are of X-ray images, and this run reads its data with "
                f"{type(data).__name__}; name a run on chest_xray or phantom_xray with run_dir"
            )
        detector = load_detector(experiment)
        data.setup("test")
        split = judged_split(data)
        records = data.splits[split]
        labels = np.array([int(record["label"]) for record in records])
        calibration = load_calibration(experiment)

        def judge(scores: np.ndarray) -> Judgement:
            found = detection_metrics(scores, labels)
            flags = calibration.flag(scores[labels == 0], self.alpha) if calibration else None
            return Judgement(
                found.auroc,
                found.sensitivity_at_specificity_95,
                None if flags is None else float(flags.mean()),
            )

        batches = examine(detector, data.loader(split))
        clean = judge(torch.cat([finding.score for _, finding in batches]).numpy())
        prepare = LoadGreyImage(**data.settings)
        machines = _Machines(records, prepare, self.seed, experiment.logging.progress_bar)
        found = {
            name: judge(_scores(detector, machines.images(name), data.batch_size))
            for name in self.shifts
        }
        result = _summary(clean, found) | {
            "score": type(experiment.score).__name__,
            "split": split,
            "counts": {"normal": int((labels == 0).sum()), "sick": int((labels == 1).sum())},
            "seed": self.seed,
            "alpha": self.alpha,
        }
        table = _table(result)
        write_json(experiment.run_dir / "robustness.json", result)
        with replacing(experiment.run_dir / "robustness.md") as file:
            file.write_text(_markdown(result, table), "utf-8")
        log.info("robustness on %d images of %s:\n%s", len(labels), split, table)
        mean: float = result["mean"]["auroc"]
        return mean


class _Machines:
    """The images of a split, each decoded once, as any machine would give them."""

    def __init__(
        self, records: Sequence[Record], prepare: LoadGreyImage, seed: int, progress_bar: bool
    ) -> None:
        self.ids = [record["id"] for record in records]
        self.prepare = prepare
        self.seed = seed
        self.progress_bar = progress_bar
        paths = [record["path"] for record in records]
        self.greys = list(self._each("decoding", self._decode, paths))

    def images(self, name: str) -> Iterator[Tensor]:
        """What the network sees of each image, (1, H, W), in the order of the records."""
        return self._each(name, partial(self._prepared, name), self.ids, self.greys)

    def _each(self, desc: str, work: Callable[..., T], *inputs: Sequence[Any]) -> Iterator[T]:
        """Results in order, with a progress bar; images let go of the interpreter's lock."""
        with ThreadPoolExecutor() as pool:
            yield from tqdm(
                pool.map(work, *inputs),
                desc=desc,
                total=len(self.ids),
                unit="image",
                leave=False,
                disable=not self.progress_bar,
            )

    def _decode(self, path: str) -> Image.Image:
        # Twice what training decodes: shifts such as JPEG blocks then stay finer than a pixel of
        # the network's, as they are in a file of full size.
        enough = (4 * self.prepare.width, 4 * self.prepare.height)
        return eight_bit(decode_grey(path, enough), enough)

    def _prepared(self, name: str, image_id: str, grey: Image.Image) -> Tensor:
        pixels, _ = self.prepare.fit(shifted(grey, name, self.seed, image_id))
        return torch.from_numpy(pixels)[None]


def _scores(detector: AnomalyDetector, images: Iterator[Tensor], batch_size: int) -> np.ndarray:
    """Score of each image, (N,)."""
    scores: list[Tensor] = []
    while batch := list(islice(images, batch_size)):
        scores.append(detector(torch.stack(batch)).score)
    result: np.ndarray = torch.cat(scores).numpy()
    return result


def _summary(clean: Judgement, found: Mapping[str, Judgement]) -> dict[str, Any]:
    """All judgements, with the mean over shifts and the worst of each number."""
    columns = {
        key: [getattr(judgement, key) for judgement in found.values()] for key in asdict(clean)
    }
    counted = clean.false_alarm_rate is not None
    worst = {key: min(values) for key, values in columns.items() if key != "false_alarm_rate"}
    return {
        "clean": asdict(clean),
        "shifts": {name: asdict(judgement) for name, judgement in found.items()},
        "mean": {
            key: float(np.mean(values)) if counted or key != "false_alarm_rate" else None
            for key, values in columns.items()
        },
        "worst": worst
        | {"false_alarm_rate": max(columns["false_alarm_rate"]) if counted else None},
        "worst_shift": min(found, key=lambda name: found[name].auroc),
    }


def _table(result: Mapping[str, Any]) -> str:
    """A Markdown table, aligned for reading as text too."""
    alpha = f"{100 * result['alpha']:g} %"
    header = ("images", "AUROC", "sensitivity at 95 %", f"false alarms at {alpha}")
    rows = {"clean": result["clean"], **result["shifts"]}
    rows |= {"mean of shifts": result["mean"], "worst of shifts": result["worst"]}
    lines = [
        f"| {header[0]:<15} | {header[1]} | {header[2]} | {header[3]} |",
        f"|{'-' * 17}|{'-' * 6}:|{'-' * (len(header[2]) + 1)}:|{'-' * (len(header[3]) + 1)}:|",
    ]
    for name, row in rows.items():
        alarms = row["false_alarm_rate"]
        cells = (
            f"{row['auroc']:.3f}",
            f"{row['sensitivity_at_specificity_95']:.3f}".rjust(len(header[2])),
            ("–" if alarms is None else f"{alarms:.3f}").rjust(len(header[3])),
        )
        lines.append(f"| {name:<15} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _markdown(result: Mapping[str, Any], table: str) -> str:
    counts = result["counts"]
    return (
        f"# Robustness to simulated shifts\n\n"
        f"Score {result['score']} on {counts['normal']} normal and {counts['sick']} sick images "
        f"of `{result['split']}`, all of them shifted alike (seed {result['seed']}). The threshold "
        f"of the sensitivity is chosen anew for each shift, at 95 % specificity; false alarms are "
        f"normal images flagged by the run's own calibration. Worst of shifts is of each column; "
        f"by AUROC it is `{result['worst_shift']}`.\n\n{table}\n\n"
        f"Shifts are simulated: images of a hospital of its own are the better test.\n"
    )
