"""Figures of diagnostics show their numbers and fit on the page."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure

from vaelab.report.diagnostic_figures import (
    StabilityRow,
    decomposition_figure,
    probe_figure,
    stability_figure,
)


def texts(figure: Figure) -> str:
    axes = figure.axes[0]
    labels = [label.get_text() for label in axes.get_yticklabels()]
    return "\n".join([*(t.get_text() for t in [*figure.texts, *axes.texts]), *labels])


def inside(figure: Figure) -> bool:
    """Nothing that is drawn leaves the page."""
    figure.canvas.draw()
    box = figure.get_tightbbox()
    width, height = figure.get_size_inches()
    return bool(box.x0 >= 0 and box.y0 >= 0 and box.x1 <= width and box.y1 <= height)


def row(verdict: str, value: float = 0.8, name: str = "linear CKA") -> StabilityRow:
    low, high = value - 0.1, value + 0.1
    return StabilityRow(name, value, low, high, [value - 0.05, value + 0.05], 0.75, 0.0, verdict)


def interval(value: float) -> dict[str, float]:
    return {"value": value, "low": value - 0.1, "high": value + 0.05}


def probes(value: float) -> dict[str, Any]:
    kinds = {"latents": value, "voxels": value - 0.2, "volume": value}
    curved = {"latents_nonlinear": value, "voxels_nonlinear": value - 0.2}
    factor = {kind: interval(held) for kind, held in (kinds | curved).items()}
    return {
        "r2": {"head_size": factor, "a_$very$_long_name_of_a_factor_mm3": factor},
        "subjects": 52,
        "patients": 40,
        "latent_units": 16,
        "voxel_components_at_most": 16,
    }


def test_the_three_terms_and_the_limit_are_named() -> None:
    parts = {
        "mutual_information": 2.0,
        "total_correlation": 7.0,
        "dimension_wise_kl": 30.5,
        "mutual_information_limit": float(np.log(12)),
        "samples": 12,
    }
    figure = decomposition_figure(parts)
    assert "Three terms of the mean KL of 39.5 nats" in texts(figure)
    assert [round(bar.get_width(), 1) for bar in figure.axes[0].patches] == [2.0, 7.0, 30.5]
    assert inside(figure)


def test_a_collapsed_space_is_drawn_too() -> None:
    names = ("mutual_information", "total_correlation", "dimension_wise_kl")
    parts = {**dict.fromkeys(names, -1e-9), "mutual_information_limit": 0.7, "samples": 2}
    assert inside(decomposition_figure(parts))


@pytest.mark.parametrize("value", [0.9, 0.0, -40.0])
def test_probes_of_any_size_stay_on_the_page(value: float) -> None:
    figure = probe_figure(probes(value))
    assert "head_size" in texts(figure)
    assert inside(figure)
    markers = {line.get_marker() for line in figure.axes[0].lines if len(line.get_xdata()) == 1}
    assert markers == ({"<"} if value < -0.5 else {"o"})  # an arrow to what lies beyond the axis


def test_every_measure_has_its_verdict_beside_it() -> None:
    rows = [row("stable", 0.9), row("not stable", 0.2), row("undecided", 0.75)]
    figure = stability_figure(rows, "The latent space is not stable", "3 runs " * 40)
    assert [t.get_text() for t in figure.axes[0].texts] == ["stable", "not stable", "undecided"]
    assert inside(figure)


def test_values_far_below_chance_stay_on_the_page() -> None:
    assert inside(stability_figure([row("not stable", -3.0)], "The latent space", "2 runs"))
