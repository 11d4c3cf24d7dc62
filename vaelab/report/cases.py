"""Cases, the entries of a report's gallery: an image or a volume with its detection result."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

from vaelab.errors import UserError
from vaelab.report.canvas import Array

TRUTHS: Final = ("normal", "sick", "")


@dataclass(frozen=True)
class Detected:
    """The detection result of a case.

    Args:
        id: any text, usually a file name.
        truth: "normal", "sick", or "" if unknown.
        score: anomaly score, larger is more abnormal.
        p_value: share of healthy images with at least this score, in [0, 1]; None if unknown.
        flagged: whether the score reaches the threshold; None when no threshold was chosen.
        group: a finer class such as "bacteria", or "".
    """

    id: str
    truth: str
    score: float
    p_value: float | None
    flagged: bool | None
    group: str


@dataclass(frozen=True)
class Case(Detected):
    """A 2D image with its detection result.

    Args:
        image, reconstruction: (H, W) in [0, 1].
        heatmap: (H, W) residual magnitudes, in the unit of the report's ``heat_scale``.
    """

    image: Array
    reconstruction: Array
    heatmap: Array


@dataclass(frozen=True)
class VolumeCase(Detected):
    """A volume with its detection result.

    Args:
        modalities: name → (D, H, W), RAS, in any unit. Grey levels span percentiles 0.5 to 99.9.
        reconstructions: the same names → (D, H, W), in the same units.
        heatmap: (D, H, W) residual magnitudes, in the unit of the report's ``heat_scale``.
        seg: (D, H, W) integer labels, 0 is no tumour; None when there is none.
        spacing: the sides of a voxel along D, H, W in mm; only their ratio is used.
    """

    modalities: Mapping[str, Array]
    reconstructions: Mapping[str, Array]
    heatmap: Array
    seg: Array | None = None
    spacing: tuple[float, float, float] = (1.0, 1.0, 1.0)


AnyCase: TypeAlias = Case | VolumeCase


def check_cases(cases: Sequence[AnyCase]) -> None:
    """Raise ``UserError`` for a score that is not finite or a p-value outside [0, 1]."""
    for case in cases:
        if not math.isfinite(case.score):
            raise UserError(f"case {case.id!r}: score={case.score}; did the run diverge?")
        if case.p_value is not None and not 0 <= case.p_value <= 1:
            raise UserError(
                f"case {case.id!r}: p_value={case.p_value} must lie in [0, 1]; None if unknown"
            )
        assert case.truth in TRUTHS, case.truth
        arrays = [case.heatmap]
        if isinstance(case, Case):
            arrays += [case.image, case.reconstruction]
        else:
            assert case.modalities, case.id
            assert case.modalities.keys() == case.reconstructions.keys(), case.id
            arrays += [*case.modalities.values(), *case.reconstructions.values()]
            arrays += [] if case.seg is None else [case.seg]
        shapes = {array.shape for array in arrays}
        assert len(shapes) == 1, (case.id, shapes)
