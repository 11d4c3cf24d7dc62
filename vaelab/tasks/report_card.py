"""``task=report_card``: one picture of what the VAE explains and what it does not."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import NamedTuple

import torch
from matplotlib.figure import Figure
from torch import Tensor

from vaelab.assembly import Run, Task
from vaelab.data.module import SplitDataModule
from vaelab.errors import UserError
from vaelab.evaluation.heat_scale import HeatScale, heat_scale
from vaelab.evaluation.judge import judge_of
from vaelab.evaluation.map_tally import mask_of
from vaelab.report.canvas import save_figure
from vaelab.report.card import report_card, report_card_3d

log = logging.getLogger(__name__)


class ReportCard(Task):
    """Writes ``report_card.png``: sick originals, reconstructions, heat maps, lesions outlined.

    The cases are the first sick ones of the test split, which was drawn by seed, so that nobody
    picked them. Of volumes it shows the axial slice with most tumour.

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
        run.data.setup("test")
        judge = judge_of(run)
        scale = heat_scale(run)
        split = "test" if "test" in run.data.splits else "val"
        places = list(islice(_sick_places(run.data, split), self.num_cases))
        if not places:
            raise UserError("the test split has no sick case to show on a report card")
        columns: list[Column] = []
        for batch, prediction in judge.examine(split, places):
            masks = mask_of(batch)
            columns += [
                Column(
                    batch["id"][place],
                    batch["image"][place],
                    prediction.x_hat[place],
                    prediction.heatmap[place],
                    float(prediction.score[place]),
                    None if masks is None else masks[place, 0],
                )
                for place in range(len(batch["id"]))
            ]
        title = f"{run.folder.name}  ·  {type(run.score).__name__}"
        figure = draw_card(columns, list(run.data.channel_names), scale, title)
        path = save_figure(figure, run.folder.report_card)
        log.info("report card in %s", path)


class Column(NamedTuple):
    """One case of a card."""

    id: str
    image: Tensor
    """(C, ...)."""
    x_hat: Tensor
    heatmap: Tensor
    """(...)."""
    score: float
    mask: Tensor | None
    """Lesion where non-zero, (...); None where nobody has drawn it."""


def _sick_places(data: SplitDataModule, split: str) -> Iterator[int]:
    """Places of the sick records of a split; all where nobody has labelled them."""
    data.preprocess(split)
    samples = data.dataset(split)
    for place in range(len(data.splits[split])):
        if int(samples[place].get("label", 1)) == 1:
            yield place


def draw_card(
    columns: Sequence[Column], channel_names: Sequence[str], scale: HeatScale, title: str
) -> Figure:
    """The card of some cases, one or more, by their first channel."""
    images = torch.stack([column.image[0] for column in columns]).numpy()
    x_hats = torch.stack([column.x_hat[0] for column in columns]).numpy()
    heatmaps = torch.stack([column.heatmap for column in columns]).numpy()
    ids = [column.id.rsplit("/", 1)[-1] for column in columns]
    scores = [column.score for column in columns]
    known = [column.mask for column in columns if column.mask is not None]
    masks = torch.stack(known).numpy() if known else None
    if images.ndim == 3:
        return report_card(
            images,
            x_hats,
            heatmaps,
            scale.top,
            masks,
            ids,
            scores,
            title,
            scale.source,
            scale.quantity,
        )
    return report_card_3d(
        images, x_hats, heatmaps, scale.top, masks, ids, scores, channel_names[0], title,
        scale.source, scale.quantity,
    )  # fmt: skip
