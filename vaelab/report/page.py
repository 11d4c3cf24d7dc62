"""HTML pages that need neither network nor other files.

Pictures, volumes, style and script are in the file, and a Content-Security-Policy forbids any
request. All text is escaped: cases are named by files, and a file may be named ``<script>``. The
templates are in ``pages``; all extend ``base.html``.
"""

from __future__ import annotations

import base64
import io
import os
from pathlib import Path
from typing import Any, Final, NamedTuple

from jinja2 import Environment, PackageLoader, StrictUndefined
from PIL import Image

from vaelab.atomic import replacing
from vaelab.report.canvas import DESCRIPTION

PNG_SIGNATURE: Final = b"\x89PNG\r\n\x1a\n"
DPI: Final = 150
"""Of figures whose file does not contain it."""
PIXELS_PER_INCH: Final = 80
"""CSS pixels on a page: letters of 8 points are 9 pixels high."""


def write_page(path: str | os.PathLike[str], template: str, **content: Any) -> Path:
    """Render ``template``, a file of ``pages``, to ``path``, whole or not at all."""
    page = Environment(
        loader=PackageLoader("vaelab.report", "pages"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    ).get_template(template)
    html = page.render(**content)
    target = Path(path)
    with replacing(target) as partial:
        # A name with undecodable bytes has lone surrogates, which no UTF-8 file can hold.
        partial.write_bytes(html.encode("utf-8", errors="replace"))
    return target


class EmbeddedFigure(NamedTuple):
    """A figure within a page."""

    caption: str
    uri: str
    width: int
    """In CSS pixels, such that the text of all figures has one size."""
    text: str
    """Alternative text, for readers who cannot see the picture."""
    is_chart: bool
    """Whether it has a white background, so that a dark page may invert it."""


def embedded_figure(caption: str, png: bytes) -> EmbeddedFigure:
    """A PNG file as a data URI, with its size, text and kind."""
    assert png.startswith(PNG_SIGNATURE), caption
    with Image.open(io.BytesIO(png)) as image:
        white = image.convert("RGB").getpixel((0, 0)) == (255, 255, 255)
        inches = image.width / image.info.get("dpi", (DPI,))[0]
        text = str(image.info.get(DESCRIPTION, caption))
    return EmbeddedFigure(
        caption, data_uri("png", png), round(PIXELS_PER_INCH * inches), text, white
    )


def data_uri(kind: str, content: bytes) -> str:
    """A picture as a data URI; ``kind`` is "png" or "jpeg"."""
    return f"data:image/{kind};base64,{base64.b64encode(content).decode('ascii')}"
