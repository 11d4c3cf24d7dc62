"""Check an anomaly score against the contract."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from vaelab.anomaly.detector import AnomalyDetector
from vaelab.anomaly.scores import FittedScore, Score, map_of, score_of
from vaelab.models.vae import VAE
from vaelab.testing.promises import promise

ROUNDING = 1e-4


def check_score(score: Score, model: VAE, x: Tensor) -> None:
    """Check a score against the contract of ``vaelab.anomaly.scores``.

    Args:
        score: fitted here if it needs to be.
        model: whose reconstructions are scored.
        x: four images or more, (B, C, ...), on the CPU.

    Raises:
        BrokenPromise: naming the promise.
    """
    assert len(x) >= 4, "four samples are needed: two to fit, two to score"
    detector = AnomalyDetector(model, score)
    output = detector.reconstruct(x)
    if isinstance(score, FittedScore):
        score.fit(lambda: iter([(x, output)]), lambda: iter([(x, output)]))
    kept = x.clone()
    values = score_of(score, x, output)
    promise(values.shape == (len(x),), "a score is one number for each sample",
            f"shape {tuple(values.shape)} for {len(x)} samples")  # fmt: skip
    promise(values.isfinite().all(), "a score is finite", values.tolist())
    promise(torch.equal(score_of(score, x, output), values), "a score is deterministic")
    promise(torch.equal(x, kept), "the images are left as they are")
    alone = score_of(score, x[:1], _first(output))
    promise(torch.allclose(alone, values[:1], rtol=ROUNDING, atol=ROUNDING),
            "the score of a sample does not depend on the others of its batch")  # fmt: skip
    evidence = map_of(score, x, output)
    if evidence is not None:
        shape = (len(x), *x.shape[2:])
        promise(evidence.shape == shape, "a map has the spatial shape of x",
                f"{tuple(evidence.shape)}, not {shape}")  # fmt: skip
        promise(evidence.isfinite().all(), "a map is finite")


def _first(output: Any) -> Any:
    return type(output)(*(part[:1] for part in output))
