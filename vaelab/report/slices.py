"""Slices of volumes, and figures of reconstructions.

Volumes are RAS: axis 0 runs left to right, axis 1 posterior to anterior, axis 2 inferior
to superior. They are shown as a radiologist hangs them: anterior or superior at the top,
the patient's right on the viewer's left, and the face to the left in sagittal views.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure

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
from vaelab.report.style import DARK, MUTED, styled


def axial(volume: Array, index: int) -> Array:
    """The plane at ``index`` of a RAS volume (D, H, W), (H, D): anterior up, right on the left."""
    picture: Array = volume[::-1, ::-1, index].T
    return picture


def coronal(volume: Array, index: int) -> Array:
    """The plane at ``index`` of a RAS volume (D, H, W), (W, D): superior up, right on the left."""
    picture: Array = volume[::-1, index, ::-1].T
    return picture


def sagittal(volume: Array, index: int) -> Array:
    """The plane at ``index`` of a RAS volume (D, H, W), (W, H): superior up, face to the left."""
    picture: Array = volume[index, ::-1, ::-1].T
    return picture


def grey_window(image: Array) -> tuple[float, float]:
    """Black and white points: percentiles 0.5 and 99.9 of ``image``, never equal.

    Not 99.5: with the air around a head, an enhancing lesion is often less than 0.5 % of the
    voxels and would be as white as healthy white matter.
    """
    low, high = (float(value) for value in np.percentile(image, (0.5, 99.9)))
    if high > low:
        return low, high
    low, high = float(image.min()), float(image.max())  # a few voxels on nothing
    return (low, high) if high > low else (low, low + 1)


class _View(NamedTuple):
    """One plane of a sample: input, reconstruction and |difference|, each (C, h, w)."""

    name: str
    letters: str  # top, bottom, left, right; empty for a radiograph
    pictures: tuple[Array, Array, Array]


def _views(image: Array, reconstruction: Array, difference: Array) -> list[_View]:
    triple = (image, reconstruction, difference)
    if image.ndim == 3:
        return [_View("", "", triple)]
    views = []
    for name, letters, plane, axis in (
        ("Axial", "APRL", axial, 3),
        ("Coronal", "SIRL", coronal, 2),
        ("Sagittal", "SIAP", sagittal, 1),
    ):
        centre = image.shape[axis] // 2
        planes = [np.stack([plane(v, centre) for v in volumes]) for volumes in triple]
        views.append(_View(f"{name} {centre}", letters, (planes[0], planes[1], planes[2])))
    return views


@styled
def reconstruction_slices(
    image: Array, reconstruction: Array, channel_names: Sequence[str], title: str
) -> Figure:
    """Input, reconstruction and absolute difference of one sample, one row per channel.

    Args:
        image: one sample, (C, D, H, W) in RAS or (C, H, W). A volume is cut through its
            centre into an axial, a coronal and a sagittal plane.
        reconstruction: of the same shape and unit; blank where it is not finite.
        channel_names: C names, for example the modalities.
        title: stands above the picture, literally.

    Grey levels span percentiles 0.5 to 99.9 of the channel's *input*, for its reconstruction
    too, so a faint reconstruction looks faint. Differences have one scale per channel, from 0
    to their percentile 99.5 over the whole sample.
    """
    assert image.shape == reconstruction.shape, (image.shape, reconstruction.shape)
    assert image.ndim in (3, 4), image.shape
    assert len(channel_names) == len(image), (channel_names, image.shape)
    image, reconstruction = np.asarray(image, np.float32), np.asarray(reconstruction, np.float32)
    with np.errstate(invalid="ignore", over="ignore"):
        difference = np.abs(image - reconstruction)
    views = _views(image, reconstruction, difference)

    # The same scale in all planes, so that the head has the same size in each.
    flat = image.ndim == 3
    tallest = max(view.pictures[0].shape[1] for view in views)
    inch = (2.2 if flat else 1.45) / tallest
    gap, group, left, right, bottom = 0.04, 0.16, 0.42, 0.62, 0.14
    widths = [inch * view.pictures[0].shape[2] for view in views]
    row = inch * tallest
    wide = left + sum(3 * w + 2 * gap for w in widths) + group * (len(views) - 1) + right
    heading = wrapped(title, wide - 0.4, 11)
    top = 0.3 + 0.2 * (heading.count("\n") + 1) + (0.12 if flat else 0.36)
    figure = new_figure(wide, top + len(image) * (row + gap) - gap + bottom, DARK)
    write_title(figure, title)

    for c, name in enumerate(channel_names):
        y = top + c * (row + gap)
        window, scale = grey_window(image[c]), _heat_scale(difference[c])
        name_row(figure, 0.28, y + row / 2, drawable(name, 18), 9)
        x = left
        for view, width in zip(views, widths, strict=True):
            if c == 0 and view.name:
                write(figure, x + 1.5 * width + gap, top - 0.3, view.name, fontsize=9, ha="center")
            kinds = ("input", "reconstruction", "|difference|")
            for k, (kind, pictures) in enumerate(zip(kinds, view.pictures, strict=True)):
                axes = place(figure, x, y, width, row)
                show(axes, pictures[c], (0, scale) if k == 2 else window, heat=k == 2)
                if c == 0:
                    write(figure, x + width / 2, top - 0.09, kind, color=MUTED, ha="center")
                if c == 0 and k == 0 and view.letters:
                    orientation_letters(axes, *view.letters)
                x += width + gap
            x += group - gap
        heat_bar(place(figure, wide - right + 0.08, y + 0.06, 0.07, row - 0.12), scale)
    return figure


def _heat_scale(difference: Array) -> float:
    """Percentile 99.5 of the finite differences; 1 where there is nothing to scale."""
    finite = difference[np.isfinite(difference)]
    scale = float(np.percentile(finite, 99.5)) if finite.size else 0.0
    return scale or (float(finite.max(initial=0)) or 1.0)
