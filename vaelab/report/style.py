"""The style sheet of all figures: fonts, colours and lines.

Pictures of patients are dark, so that the eye adapts to the tissue; charts are white.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from matplotlib import colormaps, rc_context
from matplotlib.colors import LinearSegmentedColormap

FONT: Final = "DejaVu Sans"  # ships with matplotlib: the same on every machine
DARK, LIGHT, INK, MUTED, GRID = "#101216", "#f1f3f5", "#22262b", "#8a9099", "#e6e8eb"
BLUE, ORANGE, GREEN = "#2f6fb0", "#d9622b", "#3a8f5c"
DASHED: Final = (0, (4, 2))
# Okabe & Ito 2008: distinguishable for colour-blind readers.
CATEGORIES: Final = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#999999")
SEQUENTIAL: Final = LinearSegmentedColormap.from_list(  # the palest yellow is lost on white
    "viridis without its end", colormaps["viridis"](np.linspace(0, 0.9, 256)), N=256
)
HEAT: Final = LinearSegmentedColormap.from_list(  # a pale end is lost on bright tissue
    "inferno without its end", colormaps["inferno"](np.linspace(0, 0.86, 256)), N=256
)
GREY: Final = colormaps["gray"]

STYLE: Final[dict[str, Any]] = {
    "font.family": FONT,
    "font.size": 8,
    "text.color": INK,
    "text.parse_math": False,  # a name may hold two dollar signs
    "axes.axisbelow": True,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "axes.labelsize": 8.5,
    "axes.labelpad": 5,
    "axes.spines.left": False,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlecolor": INK,
    "axes.titlelocation": "left",
    "axes.titlepad": 5,
    "axes.titlesize": 9.5,
    "legend.borderaxespad": 0.2,
    "legend.columnspacing": 1.4,
    "legend.fontsize": 8,
    "legend.frameon": False,
    "legend.handlelength": 1.6,
    "legend.handletextpad": 0.5,
    "legend.labelcolor": INK,
    "lines.linewidth": 1.6,
    "lines.markersize": 5,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
}

styled: Final = rc_context(STYLE)  # type: ignore[arg-type]  # names are typed one by one
"""Decorator of functions that draw; it leaves the user's own settings of matplotlib unchanged."""
