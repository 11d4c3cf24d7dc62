"""Reliability of latents: intraclass correlation of repeats, distances between time points."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.distance import cdist
from scipy.stats import rankdata

from vaelab.metrics.bootstrap import over_scans

Floats = NDArray[np.float64]


def space_icc(repeats: Floats, weights: Floats) -> Floats:
    """Intraclass correlation ICC(1,1) of points: squared distances replace squared differences.

    Mean squares are summed over units before the quotient, so that a unit counts by its variance
    (the image intraclass correlation of Shou et al. 2013, Cogn. Affect. Behav. Neurosci. 13). With
    one unit it is ICC(1,1).

    Args:
        repeats: positions of each subject's repeats, (N, k, z).
        weights: how often each subject counts, (R, N).

    Returns:
        (R,); NaN where fewer than two subjects count or nothing varies.
    """
    _, k, _ = repeats.shape
    centres = repeats.mean(1)  # (N, z)
    count = weights.sum(1)
    squares = over_scans((centres**2).sum(1), weights)
    mean = (weights @ centres) / count[:, None]  # (R, z)
    deviation = ((repeats - centres[:, None]) ** 2).sum((1, 2))
    with np.errstate(invalid="ignore", divide="ignore"):
        between = k * (squares - count * (mean**2).sum(1)) / (count - 1)
        within = over_scans(deviation, weights) / (count * (k - 1))
        result: Floats = (between - within) / (between + (k - 1) * within)
    return result


def same_patient_auroc(points: Floats, patients: NDArray[np.str_], weights: Floats) -> Floats:
    """Probability that two scans of a patient are closer than scans of different patients.

    For each scan of a patient with several scans: pairs with the patient's other scans against
    pairs with scans of other patients, ties counting half. 0.5 is chance, 1 is perfect.

    Args:
        points: (N, z).
        patients: of each scan, (N,).
        weights: how often each scan counts, the same for all scans of a patient, (R, N).

    Returns:
        (R,): the mean over scans of patients with several scans; NaN where there are none.
    """
    distance = distances(points)
    auroc = np.full(len(points), np.nan)
    for scan, row in enumerate(distance):
        own = patients == patients[scan]
        own[scan] = False
        others = patients != patients[scan]
        if own.any() and others.any():
            ranks = rankdata(np.concatenate([row[own], row[others]]))
            n_own, n_others = own.sum(), others.sum()
            lost = ranks[:n_own].sum() - n_own * (n_own + 1) / 2  # others closer than own
            auroc[scan] = 1 - lost / (n_own * n_others)
    known = np.isfinite(auroc)
    with np.errstate(invalid="ignore", divide="ignore"):
        result: Floats = over_scans(auroc[known], weights[:, known]) / weights[:, known].sum(1)
    return result


def distances(points: Floats) -> Floats:
    """Euclidean distances of all pairs, (N, z) → (N, N), in units of the latent."""
    result: Floats = cdist(points, points)
    return result
