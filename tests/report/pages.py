"""Cases for a report, and a parser of the page that is written."""

from __future__ import annotations

import dataclasses
import datetime as dt
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np

from vaelab.report.cases import Case, VolumeCase
from vaelab.report.report_page import Headline, MetricRow, write_report

HOSTILE = "<script>window.hacked = 1</script>\"'><img src=x onerror='window.hacked=1'>&amp;{{7*7}}"


def make_case(name: str = "a.png", score: float = 1.0, truth: str = "sick", **changes: Any) -> Case:
    image, reconstruction, heatmap = np.random.default_rng(0).random((3, 32, 32))
    case = Case(name, truth, score, 0.04, True, "virus", image, reconstruction, heatmap)
    return dataclasses.replace(case, **changes)


def make_volume_case(shape: tuple[int, int, int] = (8, 10, 12), **changes: Any) -> VolumeCase:
    rng = np.random.default_rng(0)
    t1c, flair, heatmap = rng.random((3, *shape))
    seg = np.zeros(shape, np.int16)
    seg[2:4, 5:8, 6:9] = 3
    case = VolumeCase(
        id="BraTS-MEN-00001-000",
        truth="sick",
        score=2.0,
        p_value=None,
        flagged=None,
        group="",
        modalities={"t1c": t1c, "t2f": flair},
        reconstructions={"t1c": t1c / 2, "t2f": flair / 2},
        heatmap=heatmap,
        seg=seg,
    )
    return dataclasses.replace(case, **changes)


def write(folder: Path, cases: list[Any], **changes: Any) -> Path:
    arguments: dict[str, Any] = {
        "title": "conv2d_vae on chest_xray",
        "headline": Headline("SquaredError", 624, 0.0123, units=64),
        "summary": {"Model": "conv2d_vae", "Score": "SquaredError"},
        "metrics": [MetricRow("AUROC", 0.8, 0.75, 0.85, "bootstrap"), MetricRow("Samples", 624)],
        "figures": {},
        "cases": cases,
        "heat_scale": 0.8,
        "scale_source": "99.5th percentile of healthy images",
        "config_yaml": "train:\n  lr: 1e-3\n",
        "versions": {"torch": "2.8"},
        "splits": {"train": 1208, "val": 134},
        "date": dt.date(2025, 1, 2),
    }
    return write_report(folder / "report.html", **(arguments | changes))


class Page(HTMLParser):
    """Elements of a page, in order, with the text directly after each start tag."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.feed(path.read_text(encoding="utf-8"))
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]

    def addresses(self) -> list[str]:
        """Everything that the page could load."""
        keys = ("src", "href", "srcset", "action", "poster", "data")
        pairs = [pair for _, attributes in self.elements for pair in attributes.items()]
        return [str(value) for key, value in pairs if key in keys]

    def rows(self) -> list[dict[str, str | None]]:
        return [row for row in self.all("tr") if "data-id" in row]
