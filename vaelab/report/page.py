"""Pages that need neither network nor other files: rendering, and figures inside.

Pictures, volumes, style and script are all in the file, and a Content-Security-Policy forbids it
to ask the network for anything. Every text is escaped: a case is named by a file, and a file may
be named ``<script>``. The templates are in ``pages``; all extend ``base.html``.
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
"""Of figures that do not say theirs."""
PIXELS_PER_INCH: Final = 80
"""On a page, in CSS pixels: letters of 8 points are 9 pixels high."""


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
    """A figure as a page carries it."""

    caption: str
    uri: str
    width: int
    """In CSS pixels: text of all figures is of one size."""
    text: str
    """What the picture shows, for readers who do not see it."""
    is_chart: bool
    """On white, so that a dark page may turn it dark."""


def embedded_figure(caption: str, png: bytes) -> EmbeddedFigure:
    """A PNG file as a data URI, with what a page needs to lay it out."""
    assert png.startswith(PNG_SIGNATURE), caption
    with Image.open(io.BytesIO(png)) as image:
        white = image.convert("RGB").getpixel((0, 0)) == (255, 255, 255)
        inches = image.width / image.info.get("dpi", (DPI,))[0]
        text = str(image.info.get(DESCRIPTION, caption))
    return EmbeddedFigure(
        caption, data_uri("png", png), round(PIXELS_PER_INCH * inches), text, white
    )


def data_uri(kind: str, content: bytes) -> str:
    """A picture as the address that holds it; ``kind`` is "png" or "jpeg"."""
    return f"data:image/{kind};base64,{base64.b64encode(content).decode('ascii')}"
