"""The judge of a run: its best network and score, and what the network has said so far.

Weights are loaded once, and a record of the run goes through the network once, however many tasks
ask: they run one after another on one ``Run``, which keeps the judge.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property, partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Subset

from vaelab.anomaly.detector import AnomalyDetector, Prediction, reconstruct
from vaelab.anomaly.scores import FittedScore, Score
from vaelab.assembly import Run
from vaelab.data.contract import DatasetContract
from vaelab.data.identity import digest_of
from vaelab.data.index import Record
from vaelab.data.module import SplitDataModule
from vaelab.errors import UserError
from vaelab.metrics.factors import factors_of
from vaelab.metrics.image import foreground
from vaelab.models.vae import VAE, VAEOutput
from vaelab.objective.elbo import kl_divergence, squared_error
from vaelab.training.checkpoint import load_weights


class Encoding(NamedTuple):
    """What is kept of a record that the network has seen."""

    mu: NDArray[np.float32]
    """Posterior mean, (z,)."""
    logvar: NDArray[np.float32]
    """Log of the posterior variance, (z,)."""
    squared_error: float
    """Of the reconstruction from mu, summed over channels and voxels."""
    kl: float
    """To N(0, I) in nats, summed over units."""
    covariates: Mapping[str, float]
    """What the sample itself tells: the dataset's ``covariates``, and factors of its ``seg``."""


class Judge:
    """The trained network of a run, on the chosen hardware.

    Args:
        run: a trained one.

    Raises:
        UserError: when the run has no trained network.
    """

    def __init__(self, run: Run) -> None:
        if not run.weights.is_file():
            raise UserError(
                f"{run.weights}: no such file; name a trained run with run_dir=outputs/<run>"
            )
        self.run = run
        self.weights_digest = digest_of(run.weights)
        self.model: VAE = load_weights(run.model, run.weights).to(run.hardware.device)
        self.encodings: dict[str, Encoding] = {}
        """Id → what is known of the records that the network has seen."""

    @cached_property
    def detector(self) -> AnomalyDetector:
        """The network with the run's score, which is fitted where it learns from normal images."""
        run = self.run
        detector = AnomalyDetector(self.model, run.score, run.hardware.device, run.map_sigma)
        self._fit(run.score, detector)
        return detector

    def fit(self, score: Score) -> None:
        """Show normal images, and nothing of a batch but them, to a score that learns from them."""
        self._fit(score, self.detector)

    def _fit(self, score: Score, detector: AnomalyDetector) -> None:
        if isinstance(score, FittedScore):
            self.run.data.setup("test")
            train, held_out = (partial(self._normals, detector, name) for name in ("train", "val"))
            score.fit(train, held_out)

    def examine(
        self, split: str, places: Sequence[int] | None = None
    ) -> Iterator[tuple[dict[str, Any], Prediction]]:
        """Each batch of a split with what the detector says of it.

        Args:
            split: of the run's data, which is set up.
            places: of the records in the split; None takes all.
        """
        for batch in self._batches(split, places):
            prediction = self.detector(batch["image"])
            self._note(batch, prediction.output)
            yield batch, prediction

    def encode(self, records: Sequence[Record]) -> list[Encoding]:
        """What is kept of records; only what the network has not seen yet goes through it."""
        new = [record for record in records if record["id"] not in self.encodings]
        for batch in _loader(self.run.data.samples(new), self.run.data) if new else ():
            self._note(batch, reconstruct(self.model, batch["image"], self.run.hardware.device))
        return [self.encodings[record["id"]] for record in records]

    def _normals(self, detector: AnomalyDetector, split: str) -> Iterator[tuple[Tensor, VAEOutput]]:
        for batch in self._batches(split, None):
            output = detector.reconstruct(batch["image"])
            self._note(batch, output)
            yield batch["image"], output

    def _batches(self, split: str, places: Sequence[int] | None) -> DataLoader[Any]:
        data = self.run.data
        if split == "train":  # whose own dataset may have random transforms
            records = data.splits[split]
            chosen = records if places is None else [records[place] for place in places]
            return _loader(data.samples(chosen), data)
        data.preprocess(split)
        dataset = data.dataset(split)
        return _loader(dataset if places is None else Subset(dataset, list(places)), data)

    def _note(self, batch: Mapping[str, Any], output: VAEOutput) -> None:
        samples = [
            {key: values[place] for key, values in batch.items()}
            for place in range(len(batch["id"]))
        ]
        covariates = [covariates_of(sample, self.run.data) for sample in samples]
        found = encodings(batch["image"], output, covariates)
        self.encodings |= zip(batch["id"], found, strict=True)


def covariates_of(sample: Mapping[str, Any], data: DatasetContract) -> dict[str, float]:
    """What a sample of a run's own dataset tells by itself.

    Of one with a segmentation, its factors (``vaelab.metrics.factors``) too. Millimetres are along
    the patient's axes, from the centre of what the network sees; the brain is where the image is
    not background.

    Args:
        sample: ``image`` (C, ...) and, where there is one, ``seg`` (1, D, H, W).
        data: the dataset that it is of.
    """
    known = {name: covariate(sample) for name, covariate in data.covariates.items()}
    affine = data.affine(sample["image"].shape[1:]) if "seg" in sample else None
    if affine is None:
        return known
    brain = foreground(sample["image"][None])[0, 0].numpy()
    return known | factors_of(sample["seg"][0].numpy(), affine, brain).columns()


def encodings(
    x: Tensor, output: VAEOutput, covariates: Sequence[Mapping[str, float]]
) -> list[Encoding]:
    """What is kept of a batch, all of it on the CPU.

    Args:
        x: (B, C, ...).
        output: what the VAE says of it.
        covariates: of each sample, B.
    """
    columns = (
        output.mu.numpy(),
        output.logvar.numpy(),
        squared_error(x, output.x_hat).tolist(),
        kl_divergence(output.mu, output.logvar).tolist(),
        covariates,
    )
    return [Encoding(*row) for row in zip(*columns, strict=True)]


def judge_of(run: Run) -> Judge:
    """The judge of a run: the same for all its tasks, until the weights change.

    Raises:
        UserError: when the run has no trained network.
    """
    judge = run.shared.get(Judge)
    if judge is None or judge.weights_digest != digest_of(run.weights):
        judge = run.shared[Judge] = Judge(run)
    assert isinstance(judge, Judge)
    return judge


def judged_split(data: SplitDataModule) -> str:
    """The split to judge a run by: all test images, else the test split, else validation."""
    return next(name for name in ("test_full", "test", "val") if name in data.splits)


def _loader(dataset: Any, data: SplitDataModule) -> DataLoader[Any]:
    return DataLoader(dataset, batch_size=data.batch_size, num_workers=data.num_workers)
