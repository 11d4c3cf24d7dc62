"""``task=evaluate``: judge a run by numbers, ``metrics.json``, and figures."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import asdict

from vaelab.anomaly.calibration import check_alpha
from vaelab.assembly import PARTS, Run, Task
from vaelab.errors import UserError
from vaelab.evaluation.detection import Bootstrap, decide, detect, detect_by_group
from vaelab.evaluation.diagnostics import latent_diagnostics
from vaelab.evaluation.groups import detect_within
from vaelab.evaluation.judge import judge_of
from vaelab.evaluation.one_pass import judge_once
from vaelab.evaluation.predictions import Predictions
from vaelab.evaluation.results import (
    Evaluation,
    LatentUse,
    latent_use,
    objective_sums,
    reconstruction,
)
from vaelab.latents.probing import probe_factors, probe_headline
from vaelab.metrics.detection import roc_points
from vaelab.report.canvas import save_figure
from vaelab.report.diagnostic_figures import decomposition_figure, probe_figure
from vaelab.report.score_figures import roc_curve_figure, score_histogram
from vaelab.report.training_figures import kl_per_unit, learning_curves
from vaelab.runs.history import read_history

log = logging.getLogger(__name__)


class Evaluate(Task):
    """Writes ``metrics.json``, ``scores.csv`` and ``figures/`` into the run folder.

    What is judged follows from the batch: reconstruction and latent space always; detection
    where it has labels; tumour against the rest where it has segmentations; localisation where
    it has masks or segmentations; probes where there are segmentations or a table of factors.

    Detection is judged on all test images and on the balanced split, with intervals by a
    bootstrap over patients, and ``calibration.json`` is written: the scores of held-out normal
    images, which turn a score into a conformal p-value.

    Args:
        alpha: share of false alarms to tolerate where a decision is reported, in (0, 1).
        num_resamples: of the bootstrap.
        seed: of the bootstrap, of draws of z, and of what localisation chooses its threshold on.
        importance_samples: z decoded for each image, for a bound on its log-likelihood; 0 for none.
        probe_factors: what to read from the latents: columns of the dataset's ``factors.csv``, and
            factors of its segmentations (``vaelab.metrics.factors``); what is not there is left
            out.

    Raises:
        UserError: for a value that cannot work.
    """

    parts = tuple(name for name in PARTS if name not in ("optimizer", "callbacks", "logger"))

    def __init__(
        self,
        alpha: float = 0.05,
        num_resamples: int = 1000,
        seed: int = 0,
        importance_samples: int = 8,
        probe_factors: Sequence[str] = (),
    ) -> None:
        check_alpha(alpha)
        if num_resamples < 1:
            raise UserError(f"task.num_resamples={num_resamples}: at least 1 is needed; try 1000")
        if importance_samples < 0:
            raise UserError(
                f"task.importance_samples={importance_samples}: cannot be negative; 0 is off"
            )
        self.alpha = alpha
        self.num_resamples = num_resamples
        self.seed = seed
        self.importance_samples = importance_samples
        self.probe_factors = list(probe_factors)

    def __call__(self, run: Run) -> float:
        """Evaluate on the test split, or the validation split where there is none.

        Returns:
            Mean squared error over voxels and samples.
        """
        run.data.setup("test")
        judge = judge_of(run)
        judged = judge_once(judge, self.importance_samples, self.num_resamples, self.seed)
        predictions, calibrated = judged.predictions, judged.calibrated
        several = len(predictions.ids) > 1
        mu, logvar = predictions.mu, predictions.logvar
        diagnostics = latent_diagnostics(mu, logvar, self.seed) if several else None
        bootstrap = Bootstrap(self.num_resamples, self.seed)
        test = run.data.splits.get("test")
        balanced = None if test is None else {record["id"] for record in test}
        labelled = calibrated is not None
        groups = run.data.groups() if labelled else {}
        within = detect_within(predictions, groups, self.num_resamples, self.seed)
        evaluation = Evaluation(
            weights=run.weights.name,
            score=type(run.score).__name__,
            samples=len(predictions.ids),
            reconstruction=reconstruction(predictions),
            objective=objective_sums(predictions, run.annealing.target, judged.entries),
            latent=latent_use(predictions, diagnostics, judged.likelihood),
            tumour=predictions.tumour,
            probes=probe_factors(
                run.data, judge.encode, self.probe_factors, self.num_resamples, self.seed
            ),
            detection=detect(predictions, balanced, bootstrap) if labelled else None,
            detection_all=detect(predictions, None, bootstrap) if labelled else None,
            detection_by_group=detect_by_group(predictions) if labelled else None,
            detection_within=within or None,
            decisions=decide(predictions, calibrated, self.alpha) if calibrated else None,
            shift=judged.shift,
            localisation=judged.localisation,
        )
        evaluation.write(run.folder.metrics)
        predictions.write_scores(run.folder.scores)
        _draw(run, predictions, evaluation)
        log.info("%s", _headline(evaluation))
        if judged.localisation:
            log.info("maps: %s", judged.localisation.verdict())
        if judged.shift:
            log.log(
                logging.WARNING if judged.shift.alarm else logging.INFO,
                "%s",
                judged.shift.sentence(),
            )
        log.info("latent space: %s", ", ".join(_latent_headline(evaluation.latent)))
        if evaluation.probes:
            log.info("probes: %s", "; ".join(probe_headline(evaluation.probes)))
        return evaluation.reconstruction.mse


def _draw(run: Run, predictions: Predictions, evaluation: Evaluation) -> None:
    folder = run.folder.figures
    figure = kl_per_unit(predictions.kl_of_units())
    save_figure(figure, folder / "kl_per_unit.png")
    decomposition = evaluation.latent.kl_decomposition_nats
    if decomposition:
        save_figure(decomposition_figure(asdict(decomposition)), folder / "kl_decomposition.png")
    if evaluation.probes:
        save_figure(probe_figure(asdict(evaluation.probes)), folder / "probes.png")
    history = run.folder.history
    if history.is_file():
        save_figure(learning_curves(read_history(history)), folder / "learning_curves.png")
    if evaluation.detection_all and predictions.labels is not None:
        scores, labels = predictions.score, predictions.labels
        auroc = evaluation.detection_all.auroc
        save_figure(roc_curve_figure(*roc_points(scores, labels), auroc), folder / "roc.png")
        figure = score_histogram(scores, labels, evaluation.score)
        save_figure(figure, folder / "score_histogram.png")


def _headline(evaluation: Evaluation) -> str:
    parts = [f"{evaluation.samples} samples", f"MSE {evaluation.reconstruction.mse:.4g}"]
    detection = evaluation.detection
    if detection:
        parts.append(f"AUROC {detection.auroc:.3f} AP {detection.average_precision:.3f}")
        if detection.intervals_95_percent:
            low, high = detection.intervals_95_percent["auroc"]
            parts[-1] += f" (AUROC 95 % interval {low:.3f} to {high:.3f})"
    if evaluation.tumour:
        parts.append(f"error on tumour voxels {evaluation.tumour.ratio:.2f} times the rest")
    lesions = evaluation.localisation
    if lesions:
        parts.append(
            f"{lesions.unit} AP {lesions.average_precision:.3f} (blind "
            f"{lesions.lesion_share:.3f}) Dice {lesions.dice:.3f}"
        )
    return "evaluated: " + ", ".join(parts)


def _latent_headline(latent: LatentUse) -> list[str]:
    parts = [f"active units {latent.active_units}/{latent.units}"]
    terms, gap = latent.kl_decomposition_nats, latent.aggregate_posterior
    if terms and gap:
        parts.append(
            f"KL {latent.kl_nats_per_sample:.4g} nats = mutual information "
            f"{terms.mutual_information:.3g} (at most {terms.mutual_information_limit:.3g}) "
            f"+ total correlation {terms.total_correlation:.3g} "
            f"+ dimension-wise {terms.dimension_wise_kl:.3g}"
        )
        parts.append(f"MMD² to the prior {gap.mmd_squared:.3g}")
    bound = latent.log_likelihood_nats
    if bound:
        parts.append(
            f"log-likelihood at least {bound.importance_weighted_bound:.6g} nats "
            f"(ELBO {bound.elbo:.6g})"
        )
    return parts
