"""Elements of figures: places in inches, literal text, panels, PNG files.

Figures are not created by ``pyplot``, which would keep them alive and change the user's backend.
"""

import os
import textwrap
import unicodedata
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib import patheffects
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colorbar import Colorbar
from matplotlib.colors import Normalize, to_rgb
from matplotlib.figure import Figure
from matplotlib.font_manager import findfont, get_font
from matplotlib.ticker import MaxNLocator

from vaelab.atomic import replacing
from vaelab.errors import UserError
from vaelab.report.style import DARK, FONT, GREY, HEAT, INK, LIGHT, MUTED, styled
from vaelab.text import shortened

Array = npt.NDArray[Any]

DESCRIPTION = "Description"
"""Key of the text in a PNG file that pages use as alternative text."""


# ---------------------------------------------------------------- text and files


@lru_cache(maxsize=1)
def _glyphs() -> frozenset[int]:
    return frozenset(get_font(findfont(FONT)).get_charmap())


def drawable(text: str, limit: int = 1000) -> str:
    """``text`` as the figures' font can draw it, at most ``limit`` characters long.

    Characters without a glyph, control characters and undecodable bytes become ``?``.
    """
    composed = unicodedata.normalize("NFC", text)
    replaced = "".join(c if c.isprintable() and ord(c) in _glyphs() else "?" for c in composed)
    return shortened(replaced, limit)


def wrapped(text: str, width: float, fontsize: float) -> str:
    """``text`` made drawable and broken into lines that fit ``width`` inches."""
    characters = max(int(width * 72 / (0.6 * fontsize)), 8)
    return "\n".join(textwrap.wrap(drawable(" ".join(text.split())), characters)) or " "


@styled
def save_figure(figure: Figure, path: str | os.PathLike[str], dpi: float = 150) -> Path:
    """Write ``figure`` as PNG to ``path``, creating its folders; returns the path.

    The file is written whole or not at all. It contains the figure's title and axes as text, for
    readers who cannot see it.

    Raises:
        UserError: ``path`` does not end in ``.png``.
    """
    target = Path(path)
    if target.suffix.lower() != ".png":
        raise UserError(f"{target}: figures are written as PNG; end the file name in .png")
    with replacing(target) as partial:
        figure.savefig(partial, dpi=dpi, format="png", metadata={DESCRIPTION: _description(figure)})
    return target


def _description(figure: Figure) -> str:
    """The title, then what each panel shows, as sentences."""
    title = figure.texts[0].get_text().replace("\n", " ").strip() if figure.texts else ""
    panels = []
    for axes in figure.axes:
        x, y = axes.get_xlabel(), axes.get_ylabel()
        quantities = f"{y} over {x}" if x and y else x or y
        panels.append(": ".join(filter(None, (axes.get_title("left"), quantities))))
    sentences = dict.fromkeys(part.replace("\n", " ") for part in (title, *panels) if part)
    return ". ".join(sentences)


# ---------------------------------------------------------------- placing things, in inches


def new_figure(width: float, height: float, background: str = "white") -> Figure:
    """An empty figure of ``width`` × ``height`` inches that draws itself with Agg."""
    figure = Figure(figsize=(width, height), facecolor=background)
    FigureCanvasAgg(figure)
    return figure


def place(figure: Figure, left: float, top: float, width: float, height: float) -> Axes:
    """Axes at a place in inches, counted from the upper left corner of ``figure``."""
    wide, high = figure.get_size_inches()
    return figure.add_axes((left / wide, 1 - (top + height) / high, width / wide, height / high))


def write(figure: Figure, left: float, top: float, text: str, **style: Any) -> None:
    """Write ``text`` at a place in inches from the upper left corner; light on dark figures."""
    wide, high = figure.get_size_inches()
    dark = to_rgb(figure.get_facecolor()) == to_rgb(DARK)
    look: dict[str, Any] = {"color": LIGHT if dark else INK, "linespacing": 1.35}
    figure.text(left / wide, 1 - top / high, text, **(look | style))


def write_title(figure: Figure, text: str, fontsize: float = 11) -> float:
    """Write the title of ``figure``, wrapped to its width; returns the inches down to its end."""
    heading = wrapped(text, figure.get_size_inches()[0] - 0.4, fontsize)
    write(figure, 0.2, 0.16, heading, fontsize=fontsize, va="top")
    return 0.22 + 0.2 * (heading.count("\n") + 1)


def name_row(figure: Figure, left: float, middle: float, text: str, fontsize: float = 8.5) -> None:
    """Write ``text`` upwards beside a row of panels, its baseline ``left`` inches from the edge."""
    write(figure, left, middle, text, fontsize=fontsize, rotation=90, rotation_mode="anchor",
          ha="center", va="baseline")  # fmt: skip


# ---------------------------------------------------------------- pictures of patients


def show(axes: Axes, picture: Array, window: tuple[float, float], heat: bool = False) -> None:
    """Draw ``picture`` (H, W) on a bare panel, in grey or in heat colours."""
    axes.set_axis_off()
    axes.imshow(
        np.ma.masked_invalid(picture),
        cmap=HEAT if heat else GREY,
        vmin=window[0],
        vmax=window[1],
    )


def heat_bar(axes: Axes, scale: float, horizontal: bool = False) -> Colorbar:
    """A colour bar from 0 to ``scale`` in ``axes``; its end is pointed: larger values saturate."""
    figure = axes.get_figure(root=True)
    assert figure is not None
    bar = figure.colorbar(
        ScalarMappable(Normalize(0, scale), HEAT),
        cax=axes,
        orientation="horizontal" if horizontal else "vertical",
        extend="max",
        extendfrac=0.05,
        ticks=MaxNLocator(4),
        format="%g",  # a separate "1e-8" would overlap the caption
    )
    bar.outline.set_visible(False)
    axes.tick_params(labelsize=7, labelcolor=LIGHT, color=MUTED, length=2, pad=2)
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
        axes.text(x, y, text, transform=axes.transAxes, ha=ha, va=va, fontsize=6.5,
                  color="#ffd34d", path_effects=outline)  # fmt: skip
