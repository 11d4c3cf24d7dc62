"""``task=report_card``: one picture of what the VAE explains and what it does not."""

from __future__ import annotations

import logging
from typing import Any

import torch
from matplotlib.figure import Figure
from torch import Tensor

from vaelab.assembly import Run, Task
from vaelab.errors import UserError
from vaelab.evaluation.judging import examine, healthy_scale, load_detector
from vaelab.report.canvas import save_figure
from vaelab.report.card import report_card, report_card_3d

log = logging.getLogger(__name__)


class ReportCard(Task):
    """Writes ``report_card.png``: sick originals, their reconstructions, heat maps.

    The cases are the first sick ones of the test split, which was drawn by seed, so that nobody
    picked them. Of volumes it shows the axial slice with most tumour, outlined.

    Args:
        num_cases: columns of the card, 1 to 8.

    Raises:
        UserError: when ``num_cases`` is out of range.
    """

    parts = ("dataset", "model", "hardware", "score", "train", "logging")

    def __init__(self, num_cases: int = 5) -> None:
        if not 1 <= num_cases <= 8:
            raise UserError(f"task.num_cases={num_cases}: a card holds 1 to 8 cases; try 5")
        self.num_cases = num_cases

    def __call__(self, run: Run) -> None:
        """Draw the card of a trained run."""
        detector = load_detector(run)
        run.data.setup("test")
        scale, source = healthy_scale(run, detector)
        cases: list[dict[str, Any]] = []
        for batch, finding in examine(detector, run.data.test_dataloader()):
            for index in range(len(batch["id"])):
                if "label" in batch and int(batch["label"][index]) == 0:
                    continue
                seg: Tensor | None = batch["seg"][index, 0] if "seg" in batch else None
                cases.append(
                    {
                        "id": batch["id"][index],
                        "image": batch["image"][index],
                        "x_hat": finding.x_hat[index],
                        "heatmap": finding.heatmap[index],
                        "score": float(finding.score[index]),
                        "seg": seg,
                    }
                )
            if len(cases) >= self.num_cases:
                break
        figure = draw_card(
            cases[: self.num_cases],
            list(run.data.channel_names),
            scale,
            source,
            f"{run.folder.name}  ·  {type(run.score).__name__}",
        )
        path = save_figure(figure, run.folder.report_card)
        log.info("report card in %s", path)


def draw_card(
    cases: list[dict[str, Any]], channel_names: list[str], scale: float, source: str, title: str
) -> Figure:
    """The card of some cases; each holds id, image (C, ...), x_hat, heatmap, score and seg."""
    if not cases:
        raise UserError("the test split has no sick case to show on a report card")
    images = torch.stack([case["image"][0] for case in cases]).numpy()
    x_hats = torch.stack([case["x_hat"][0] for case in cases]).numpy()
    heatmaps = torch.stack([case["heatmap"] for case in cases]).numpy()
    ids = [case["id"].rsplit("/", 1)[-1] for case in cases]
    scores = [case["score"] for case in cases]
    if images.ndim == 3:
        return report_card(images, x_hats, heatmaps, scale, ids, scores, title, source)
    segs = [case["seg"] for case in cases]
    stacked = None if segs[0] is None else torch.stack(segs).numpy()
    return report_card_3d(
        images, x_hats, heatmaps, scale, stacked, ids, scores, channel_names[0], title, source
    )
