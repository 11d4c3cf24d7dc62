"""What pictures are made of: text that can be shown, places in inches, colours, files.

``pyplot`` is never imported, so no figure outlives its variable and nobody's backend changes.
Pictures of patients are dark, so the eye adapts to the tissue; charts are white.
"""

import os
import textwrap
import unicodedata
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from matplotlib import colormaps, patheffects
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colorbar import Colorbar
from matplotlib.colors import LinearSegmentedColormap, Normalize
from matplotlib.figure import Figure
from matplotlib.font_manager import findfont, get_font
from matplotlib.ticker import MaxNLocator

from vaelab.atomic import replacing
from vaelab.errors import UserError

Array = npt.NDArray[Any]

FONT: Final = "DejaVu Sans"  # ships with matplotlib, so a picture looks alike everywhere
DARK, LIGHT, INK, MUTED, GRID = "#101216", "#f1f3f5", "#22262b", "#8a9099", "#e6e8eb"
BLUE, ORANGE, GREEN = "#2f6fb0", "#d9622b", "#3a8f5c"
# Inferno without its pale end, which could not be told from bright tissue under an overlay.
HEAT: Final = LinearSegmentedColormap.from_list(
    "heat", colormaps["inferno"](np.linspace(0, 0.86, 256)), N=256
)
GREY: Final = colormaps["gray"]

TEXT: Final[dict[str, Any]] = {"fontfamily": FONT, "parse_math": False}


# ---------------------------------------------------------------- text and files


@lru_cache(maxsize=1)
def _glyphs() -> frozenset[int]:
    return frozenset(get_font(findfont(FONT)).get_charmap())


def number(value: float, small: str = ".4g") -> str:
    """``value`` in the format ``small``; thousands and millions to the unit, with commas."""
    return f"{value:,.0f}" if 1e3 <= abs(value) < 1e7 else f"{value:{small}}"


def printable(text: str, limit: int | None = None) -> str:
    """``text`` as the figures' font can show it, at most ``limit`` characters long.

    A name comes from a file system: what has no glyph (or is a control character or an
    undecodable byte) becomes ``?``. Too long a name loses its middle, since subjects of one
    cohort differ at the end.
    """
    composed = unicodedata.normalize("NFC", text)
    shown = "".join(c if c.isprintable() and ord(c) in _glyphs() else "?" for c in composed)
    if limit is None or len(shown) <= limit:
        return shown
    head = (limit - 1) // 2
    return f"{shown[:head]}…{shown[len(shown) - (limit - 1 - head) :]}"


def save_figure(figure: Figure, path: str | os.PathLike[str], dpi: float = 150) -> Path:
    """Write ``figure`` as PNG to ``path``, creating its folders; returns the path.

    The file appears whole or not at all: it is drawn beside its place and then moved there.

    Raises:
        UserError: ``path`` does not end in ``.png``.
    """
    target = Path(path)
    if target.suffix.lower() != ".png":
        raise UserError(f"{target}: figures are written as PNG; end the file name in .png")
    with replacing(target) as partial:
        figure.savefig(partial, dpi=dpi, format="png", facecolor=figure.get_facecolor())
    return target


# ---------------------------------------------------------------- placing things, in inches


def new_figure(width: float, height: float, background: str) -> Figure:
    """An empty figure of ``width`` × ``height`` inches that knows how to draw itself."""
    figure = Figure(figsize=(width, height), facecolor=background)
    FigureCanvasAgg(figure)
    return figure


def place(figure: Figure, left: float, top: float, width: float, height: float) -> Axes:
    """Axes at a place in inches, counted from the upper left corner of ``figure``."""
    wide, high = figure.get_size_inches()
    return figure.add_axes((left / wide, 1 - (top + height) / high, width / wide, height / high))


def write(figure: Figure, left: float, top: float, text: str, **style: Any) -> None:
    """Write ``text``, literally, its baseline at a place in inches from the upper left corner."""
    wide, high = figure.get_size_inches()
    look: dict[str, Any] = {"fontsize": 8, "color": LIGHT, "linespacing": 1.35}
    figure.text(left / wide, 1 - top / high, text, **(look | TEXT | style))


def name_row(figure: Figure, left: float, middle: float, text: str, fontsize: float = 8.5) -> None:
    """Write ``text`` upwards beside a row of panels, its baseline ``left`` inches from the edge."""
    write(
        figure,
        left,
        middle,
        text,
        fontsize=fontsize,
        rotation=90,
        rotation_mode="anchor",
        ha="center",
        va="baseline",
    )


def wrapped(text: str, width: float, fontsize: float) -> str:
    """``text`` made printable and broken into lines that fit ``width`` inches."""
    characters = max(int(width * 72 / (0.6 * fontsize)), 8)
    return "\n".join(textwrap.wrap(printable(" ".join(text.split())), characters)) or " "


def show(axes: Axes, picture: Array, window: tuple[float, float], heat: bool = False) -> None:
    """Draw ``picture`` (H, W) on a bare panel, in grey or in heat colours."""
    axes.set_axis_off()
    axes.imshow(
        np.ma.masked_invalid(picture),
        cmap=HEAT if heat else GREY,
        vmin=window[0],
        vmax=window[1],
    )


def heat_bar(
    axes: Axes, scale: float, horizontal: bool = False, color: str = LIGHT, ticks: int = 4
) -> Colorbar:
    """A heat scale from 0 to ``scale`` in ``axes``; pointed, since larger values saturate."""
    figure = axes.get_figure(root=True)
    assert figure is not None
    bar = figure.colorbar(
        ScalarMappable(Normalize(0, scale), HEAT),
        cax=axes,
        orientation="horizontal" if horizontal else "vertical",
        extend="max",
        extendfrac=0.05,
        ticks=MaxNLocator(ticks),
        format="%g",  # no "1e-8" set apart, it would lie on the caption
    )
    bar.outline.set_visible(False)
    axes.tick_params(
        labelsize=7, labelcolor=color, color=MUTED, length=2, pad=2, labelfontfamily=FONT
    )
    return bar


def orientation_letters(axes: Axes, top: str, bottom: str, left: str, right: str) -> None:
    """Name the patient's sides at the edges of a panel."""
    outline = [patheffects.withStroke(linewidth=1.6, foreground="black")]
    for text, x, y, ha, va in (
        (top, 0.5, 0.985, "center", "top"),
        (bottom, 0.5, 0.015, "center", "bottom"),
        (left, 0.02, 0.5, "left", "center"),
        (right, 0.98, 0.5, "right", "center"),
    ):
        axes.text(
            x,
            y,
            text,
            transform=axes.transAxes,
            ha=ha,
            va=va,
            fontsize=6.5,
            color="#ffd34d",
            path_effects=outline,
            **TEXT,
        )
