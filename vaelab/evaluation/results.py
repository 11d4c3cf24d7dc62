"""The content of ``metrics.json``: what ``task=evaluate`` says of a run.

Sections that are None are absent from the file: detection needs labels, localisation masks.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from vaelab.atomic import write_json
from vaelab.errors import UserError
from vaelab.evaluation.diagnostics import AggregatePosterior, KLParts, LogLikelihood
from vaelab.evaluation.groups import DetectionWithin
from vaelab.evaluation.localisation import Localisation
from vaelab.evaluation.predictions import ErrorWithin, Predictions
from vaelab.evaluation.shift_alarm import ShiftAlarm
from vaelab.metrics.detection import Detection
from vaelab.metrics.latent import active_units
from vaelab.metrics.probes import Probes

CHANNELS, SUM = "_per_channel", "_sum"
"""Endings of keys whose beginning is a metric, and an entry of the objective."""
OPTIONAL = (
    "kl_decomposition_nats", "aggregate_posterior", "log_likelihood_nats", "tumour", "probes",
    "detection", "detection_all", "detection_by_group", "detection_within", "decisions", "shift",
    "localisation", "at_best_test_threshold", "intervals_95_percent",
)  # fmt: skip
"""Keys that are left out where nothing is known."""


@dataclass(frozen=True)
class Reconstruction:
    """Means over samples, of z = mu."""

    mse: float
    """Over voxels, channels and samples."""
    per_channel: dict[str, dict[str, float | None]]
    """Metric → channel → mean; None where it is not finite, as PSNR of a constant channel."""


@dataclass(frozen=True)
class ObjectiveSums:
    """Sums over samples at the target beta."""

    beta: float
    recon_sum: float
    kl_sum_nats: float
    neg_elbo_sum: float
    entries: dict[str, float]
    """Of the configured objective: ``loss``, and what it gives beside ``recon`` and ``kl``."""


@dataclass(frozen=True)
class LatentUse:
    """How the latent units are used."""

    active_units: int | None
    """By the variance of mu; None of a single sample."""
    units: int
    kl_nats_per_sample: float
    kl_nats_per_unit: list[float]
    kl_decomposition_nats: KLParts | None = None
    aggregate_posterior: AggregatePosterior | None = None
    log_likelihood_nats: LogLikelihood | None = None


@dataclass(frozen=True)
class Decisions:
    """Normal and sick images flagged at a threshold from held-out normal images."""

    alpha: float
    calibration: str
    """In words, the images behind the threshold."""
    calibration_images: int
    threshold: float | None
    """None where nothing can be flagged."""
    expected_false_alarm_rate: float
    false_alarm_rate_95_percent_range: tuple[float, float]
    false_alarm_rate: float
    sensitivity: float


@dataclass(frozen=True)
class Evaluation:
    """All of it."""

    weights: str
    """Name of their file."""
    score: str
    """Class of the anomaly score."""
    samples: int
    reconstruction: Reconstruction
    objective: ObjectiveSums
    latent: LatentUse
    tumour: ErrorWithin | None = None
    probes: Probes | None = None
    detection: Detection | None = None
    """On the balanced split."""
    detection_all: Detection | None = None
    """On all test images."""
    detection_by_group: dict[str, Detection] | None = None
    detection_within: dict[str, DetectionWithin] | None = None
    """Column of the dataset's table of groups → detection within each group."""
    decisions: Decisions | None = None
    shift: ShiftAlarm | None = None
    """Whether the judged normal images look like those of the calibration."""
    localisation: Localisation | None = None

    def to_json(self) -> dict[str, Any]:
        """As the file holds it."""
        content = asdict(self)
        metrics = content["reconstruction"].pop("per_channel")
        content["reconstruction"] |= {f"{name}{CHANNELS}": of for name, of in metrics.items()}
        entries = content["objective"].pop("entries")
        content["objective"] |= {f"{name}{SUM}": value for name, value in entries.items()}
        pruned = _without_unknown(content)
        assert isinstance(pruned, dict)
        return pruned

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Evaluation:
        """What ``to_json`` gave.

        Raises:
            ValueError: when something is missing or of another type.
        """
        whole = dict(content)
        for section, key, ending in (
            ("reconstruction", "per_channel", CHANNELS), ("objective", "entries", SUM),
        ):  # fmt: skip
            values = dict(whole.get(section, {}))
            own = ("recon_sum", "neg_elbo_sum")
            moved = [name for name in values if name.endswith(ending) and name not in own]
            values[key] = {name.removesuffix(ending): values.pop(name) for name in moved}
            whole[section] = values
        return TypeAdapter(cls).validate_python(whole)

    def write(self, path: Path) -> None:
        """Write the file."""
        write_json(path, self.to_json())

    @classmethod
    def read(cls, path: Path) -> Evaluation:
        """Read the file.

        Raises:
            UserError: when it is missing or damaged.
        """
        if not path.is_file():
            raise UserError(f"{path}: no such file; evaluate the run first with task=evaluate")
        try:
            return cls.from_json(json.loads(path.read_text(encoding="utf-8")))
        except (ValueError, TypeError) as error:
            reason = str(error)
            if isinstance(error, ValidationError):
                first = error.errors()[0]
                reason = f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
            raise UserError(
                f"{path}: not what task=evaluate writes ({reason}); evaluate the run anew"
            ) from error


def reconstruction(predictions: Predictions) -> Reconstruction:
    """Means over samples."""

    def means(name: str) -> dict[str, float | None]:
        values = predictions.by_channel[name].mean(0).tolist()
        finite = [value if math.isfinite(value) else None for value in values]
        return dict(zip(predictions.channel_names, finite, strict=True))

    mse = float(predictions.by_channel["mse"].mean())
    return Reconstruction(mse, {name: means(name) for name in predictions.by_channel})


def objective_sums(
    predictions: Predictions, beta: float, entries: Mapping[str, float]
) -> ObjectiveSums:
    """Sums over samples.

    Args:
        predictions: of the judged split.
        beta: the target.
        entries: of the configured objective.
    """
    recon = float(predictions.squared_error.double().sum())
    kl = float(predictions.kl.double().sum())
    return ObjectiveSums(beta, recon, kl, recon + beta * kl, dict(entries))


def latent_use(
    predictions: Predictions,
    diagnostics: tuple[KLParts, AggregatePosterior] | None,
    likelihood: LogLikelihood | None,
) -> LatentUse:
    """What is known of the latent space; diagnostics are None of a single sample."""
    kl_parts, aggregate = diagnostics or (None, None)
    return LatentUse(
        active_units=active_units(predictions.mu) if len(predictions.ids) > 1 else None,
        units=predictions.mu.shape[1],
        kl_nats_per_sample=float(predictions.kl.double().sum()) / len(predictions.ids),
        kl_nats_per_unit=[round(value, 6) for value in predictions.kl_of_units().tolist()],
        kl_decomposition_nats=kl_parts,
        aggregate_posterior=aggregate,
        log_likelihood_nats=likelihood,
    )


def _without_unknown(content: Any) -> Any:
    if not isinstance(content, dict):
        return content
    return {
        key: _without_unknown(value)
        for key, value in content.items()
        if value is not None or key not in OPTIONAL
    }
