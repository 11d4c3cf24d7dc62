"""Report cards: a few images side by side, their reconstructions and heat maps.

All heat maps share one scale, measured on healthy data by the caller. If each map were stretched
to its own maximum, healthy images would look as abnormal as sick ones.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure

from vaelab.errors import UserError
from vaelab.report.canvas import (
    Array,
    drawable,
    heat_bar,
    name_row,
    new_figure,
    orientation_letters,
    place,
    show,
    wrapped,
    write,
    write_title,
)
from vaelab.report.slices import axial, grey_window
from vaelab.report.style import DARK, HEAT, MUTED, styled
from vaelab.text import number

MOST_SUBJECTS = 8
ALPHA = 0.75  # of the brightest heat: orange stays orange over white tissue
OUTLINE = "#3df2ff"
ROWS = ("original", "reconstruction", "heat map")


def check_heat_scale(heat_scale: float) -> None:
    """Raise ``UserError`` unless the scale is a positive number."""
    if not (np.isfinite(heat_scale) and heat_scale > 0):
        raise UserError(
            f"heat_scale={heat_scale}: must be a positive number; take a high percentile of "
            "healthy residuals"
        )


def overlay(
    image: Array, heatmap: Array, heat_scale: float, alpha: float = 0.6
) -> npt.NDArray[np.uint8]:
    """``heatmap`` over the grey ``image``, as uint8 RGB (H, W, 3).

    Args:
        image: (H, W), clipped to [0, 1].
        heatmap: (H, W) magnitudes, clipped to [0, heat_scale]; NaN counts as ``heat_scale``.
        heat_scale: the magnitude with the brightest colour, the same for every image.
        alpha: opacity at ``heat_scale``. It grows in proportion to the magnitude from 0, so
            tissue without heat keeps its grey.

    Raises:
        UserError: ``heat_scale`` is not a positive number.
    """
    check_heat_scale(heat_scale)
    grey = np.clip(np.nan_to_num(np.asarray(image, float)), 0, 1)[..., None]  # (H, W, 1)
    heat = np.clip(np.nan_to_num(np.asarray(heatmap, float) / heat_scale, nan=1), 0, 1)
    opacity = alpha * heat[..., None]  # (H, W, 1)
    blend = (1 - opacity) * grey + opacity * HEAT(heat)[..., :3]  # (H, W, 3)
    rgb: npt.NDArray[np.uint8] = np.rint(255 * blend).astype(np.uint8)
    return rgb


def tumour_slice(seg: Array) -> int:
    """Index of the axial slice of ``seg`` (D, H, W) with most tumour; the centre without tumour."""
    area = np.count_nonzero(seg, axis=(0, 1))  # (W,)
    return int(area.argmax()) if area.any() else len(area) // 2


@styled
def report_card(
    originals: Array,
    reconstructions: Array,
    heatmaps: Array,
    heat_scale: float,
    masks: Array | None,
    ids: Sequence[str],
    scores: Sequence[float],
    title: str,
    scale_source: str,
    heat_name: str = "|x − x̂|",
) -> Figure:
    """Originals, reconstructions and heat maps of 1 to 8 images, one column each.

    Args:
        originals, reconstructions: (N, H, W) in [0, 1].
        heatmaps: (N, H, W), larger is more abnormal, in the unit of ``heat_scale``.
        heat_scale: the value at the end of the one colour scale.
        masks: (N, H, W), lesion where non-zero, outlined in every row; None where not known.
        ids: N names, shown literally and shortened to fit.
        scores: N anomaly scores.
        title: stands above, literally.
        scale_source: origin of ``heat_scale``, for example "99.5th percentile of healthy images".
        heat_name: the quantity that the maps show, in words.

    Raises:
        UserError: no subject or more than 8, or ``heat_scale`` is not a positive number.
    """
    assert originals.shape == reconstructions.shape == heatmaps.shape
    columns = [
        _Column(
            originals[n],
            reconstructions[n],
            heatmaps[n],
            str(name),
            f"score {number(score)}",
            None if masks is None else masks[n] > 0,
        )
        for n, (name, score) in enumerate(zip(ids, scores, strict=True))
    ]
    return _card(columns, heat_scale, title, scale_source, heat_name)


@styled
def report_card_3d(
    originals: Array,
    reconstructions: Array,
    heatmaps: Array,
    heat_scale: float,
    segs: Array | None,
    ids: Sequence[str],
    scores: Sequence[float],
    channel_name: str,
    title: str,
    scale_source: str,
    heat_name: str = "|x − x̂|",
) -> Figure:
    """The axial slice through the tumour's largest extent, for 1 to 8 subjects.

    Args:
        originals, reconstructions: (N, D, H, W) volumes of one modality in RAS. Grey levels
            span percentiles 0.5 to 99.9 of each subject's original.
        heatmaps: (N, D, H, W), larger is more abnormal, in the unit of ``heat_scale``.
        segs: (N, D, H, W) integer labels, 0 is no tumour; the tumour is outlined in every row.
            None, or a subject without tumour, shows the centre slice.
        channel_name: the modality, for example "t1c".
        heat_scale, ids, scores, title, scale_source, heat_name: as in :func:`report_card`.

    Raises:
        UserError: no subject or more than 8, or ``heat_scale`` is not a positive number.
    """
    assert originals.shape == reconstructions.shape == heatmaps.shape
    assert segs is None or segs.shape == originals.shape, segs.shape
    columns = []
    for n, (name, score) in enumerate(zip(ids, scores, strict=True)):
        seg = None if segs is None else segs[n]
        z = originals.shape[3] // 2 if seg is None else tumour_slice(seg)
        low, high = grey_window(originals[n])
        columns.append(
            _Column(
                (axial(originals[n], z) - low) / (high - low),
                (axial(reconstructions[n], z) - low) / (high - low),
                axial(heatmaps[n], z),
                str(name),
                f"score {number(score)}  ·  slice {z}",
                None if seg is None else axial(seg, z) > 0,
            )
        )
    title = f"{title}  ·  {channel_name}, axial"
    figure = _card(columns, heat_scale, title, scale_source, heat_name)
    orientation_letters(figure.axes[0], *"APRL")
    return figure


class _Column(NamedTuple):
    """The pictures (H, W) and captions of a subject."""

    original: Array
    reconstruction: Array
    heat: Array
    name: str
    remark: str
    tumour: Array | None


def _card(
    columns: Sequence[_Column], heat_scale: float, title: str, scale_source: str, heat_name: str
) -> Figure:
    """Panels row by row, then the colour bar."""
    if not 1 <= len(columns) <= MOST_SUBJECTS:
        raise UserError(
            f"report card: {len(columns)} subjects; choose between 1 and {MOST_SUBJECTS}"
        )
    high, wide = columns[0].original.shape
    panel_width, gap, edge, label = 1.72, 0.06, 0.18, 0.3
    panel_height = panel_width * high / wide
    grid = len(columns) * (panel_width + gap) - gap
    figure_width = max(label + edge + grid + edge, 4.4)
    left = label + edge + (figure_width - label - 2 * edge - grid) / 2
    heading = wrapped(title, figure_width - 0.4, 12)
    quantity = wrapped(
        f"{heat_name}, brightest from {heat_scale:.3g} ({scale_source})", figure_width - 2 * edge, 8
    )
    top = 0.76 + 0.22 * (heading.count("\n") + 1)
    below = top + 3 * (panel_height + gap)
    figure = new_figure(figure_width, below + 0.6 + 0.16 * (quantity.count("\n") + 1), DARK)
    write_title(figure, title, 12)

    for r, row in enumerate(ROWS):
        y = top + r * (panel_height + gap)
        name_row(figure, left - 0.12, y + panel_height / 2, row)
        for c, column in enumerate(columns):
            x = left + c * (panel_width + gap)
            axes = place(figure, x, y, panel_width, panel_height)
            blend = overlay(column.original, column.heat, heat_scale, ALPHA)
            show(axes, (column.original, column.reconstruction, blend)[r], (0, 1))
            if column.tumour is not None and column.tumour.any() and not column.tumour.all():
                axes.contour(column.tumour.astype(float), [0.5], colors=[OUTLINE], linewidths=0.8)
            if r == 0:
                middle = x + panel_width / 2
                write(figure, middle, top - 0.28, drawable(column.name, 24), ha="center")
                write(figure, middle, top - 0.09, column.remark, color=MUTED, ha="center")

    bar = min(grid, 3.6)
    middle = left + grid / 2
    heat_bar(place(figure, middle - bar / 2, below + 0.1, bar, 0.09), heat_scale, horizontal=True)
    write(figure, middle, below + 0.42, quantity, ha="center", va="top")
    return figure
