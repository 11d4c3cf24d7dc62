"""``task=encode``: where every subject lies in a run's latent space."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch.utils.data import DataLoader

from vaelab.anomaly.detector import reconstruct
from vaelab.assembly import Run, Task
from vaelab.atomic import replacing
from vaelab.data.index import enumerate_names
from vaelab.errors import UserError
from vaelab.evaluation.judge import Encoding, Judge, covariates_of, encodings, judge_of
from vaelab.latents.covariates import read_covariates
from vaelab.latents.factor_table import as_columns, is_of_label
from vaelab.latents.pictures import choose_colors, draw_latents
from vaelab.latents.shards import SHARDS, Shard, Work, assemble, is_whole
from vaelab.latents.sources import Source, Sources, Unreadable, own_sources, sources_of_inputs
from vaelab.latents.table import Latents, read_latents, to_arrow
from vaelab.metrics.factors import NAMES
from vaelab.progress import progress
from vaelab.runs.paths import PathText

log = logging.getLogger(__name__)


class Encode(Task):
    """Writes ``latents.parquet`` and ``latents.safetensors``, and pictures of them.

    One row a subject: ``id``, ``patient``, ``time_point``, ``split``, ``mu_0`` … and ``logvar_0`` …
    of the posterior, ``recon`` (squared error of the reconstruction from mu, summed over channels
    and voxels) and ``kl`` (nats, summed over units). Of the run's own dataset, volumes with a
    segmentation have its factors too, ``segmented_mm3`` and so on (``vaelab.metrics.factors``; a
    table of them alone is ``factors.csv``), and radiographs ``label``. Last come the columns of
    ``covariates``, and ``time_days``. Rows are ordered by split (train, val, calibration, test,
    test_full, then by name), patient, time point and id; a subject of two splits has one row, in
    the first. The safetensors file holds the same: arrays ``mu logvar recon kl time_point``, and in
    its metadata ids, patients and splits in order of rows.

    Records are encoded shard by shard, and no more than a shard is in memory. A shard is kept as
    soon as it is done and is not done again while weights, files and settings are the same, so
    that the same command goes on after an interruption.

    Args:
        inputs: a file or folder, a ``.txt`` or ``.csv`` list of such, or several of these; None
            encodes the run's own dataset, all splits.
        output_dir: where to write; None is ``latents`` in the run folder, or ``latents_inputs``
            with ``inputs``.
        shard_size: subjects that are kept at a time.
        covariates: a CSV file with a column ``id``, columns of numbers, and ``days`` or ``date`` of
            visits (``vaelab.latents.covariates``); None takes ``factors.csv`` in the folder of the
            dataset, where there is one.
        color_by: columns to colour by; None takes the tumour's volume, or the label of an X-ray.
        remove_site: a column of ``covariates``, words or numbers, such as the scanner: what it
            explains is taken out of mu and logvar (``vaelab.latents.site``).
        umap: whether to draw a UMAP too, where umap-learn is installed.

    Raises:
        UserError: for a ``shard_size`` below 1.
    """

    parts = ("dataset", "model", "hardware", "train", "logging")

    def __init__(
        self,
        inputs: PathText | Sequence[PathText] | None = None,
        output_dir: PathText | None = None,
        shard_size: int = 64,
        covariates: PathText | None = None,
        color_by: Sequence[str] | None = None,
        remove_site: str | None = None,
        umap: bool = True,
    ) -> None:
        if shard_size < 1:
            raise UserError(f"task.shard_size={shard_size}: at least 1 is needed; try 64")
        self.inputs = inputs
        self.output_dir = output_dir
        self.shard_size = shard_size
        self.covariates = covariates
        self.color_by = color_by
        self.remove_site = remove_site
        self.umap = umap

    def __call__(self, run: Run) -> None:
        """Encode all subjects; raise ``UserError`` at the end when some could not be read."""
        usual = run.folder.latents_of_inputs if self.inputs else run.folder.latents
        folder = Path(self.output_dir).expanduser() if self.output_dir else usual
        judge = judge_of(run)
        subjects = (
            sources_of_inputs(self.inputs, run.data, folder)
            if self.inputs
            else own_sources(run.data)
        )
        covariates = read_covariates(self.covariates, None if self.inputs else run.data)
        if self.remove_site is not None and self.remove_site not in covariates.words:
            raise UserError(
                f"task.remove_site={self.remove_site}: no such column of task.covariates; there "
                f"are {list(covariates.words)}"
            )
        # Before any work, as far as can be known: which labels there are is seen on the way.
        labels = [name for name in self.color_by or () if is_of_label(name)]
        own = list(run.data.covariates) if subjects.own else []
        factors = [*NAMES, *labels] if subjects.own and run.data.spacing is not None else []
        choose_colors(self.color_by, [*covariates.names, *own, *factors])
        work = Work(
            about={
                "model": type(run.model).__name__,
                "run": run.folder.name,
                "data": type(run.data).__name__,
                "weights": run.weights.name,
                "weights_sha256": judge.weights_digest,
            },
            settings=run.data.sample_settings(),
            folder=folder / SHARDS,
        )
        shards = work.plan(subjects.members, self.shard_size)
        _encode(judge, subjects, work, shards, {} if self.inputs else judge.encodings)
        failed = assemble(shards, folder, work.about, covariates, self.remove_site)
        for path in set(work.folder.iterdir()) - {shard.path for shard in shards}:
            path.unlink()  # of other weights or files
        latents = read_latents(folder)
        beside = folder == usual and not self.inputs
        figures = run.folder.figures if beside else folder / "figures"
        color_by = choose_colors(self.color_by, list(latents.covariates))
        draw_latents(latents, color_by, figures, self.umap)
        if failed:
            raise UserError(
                f"{len(failed)} of {len(subjects.members)} subjects could not be read:"
                f"{enumerate_names(failed)}"
            )


def _encode(
    judge: Judge,
    subjects: Sources,
    work: Work,
    shards: Sequence[Shard],
    known: Mapping[str, Encoding],
) -> None:
    """Encode the shards that are not there yet; every subject is read and forgotten.

    Args:
        known: id → encoding of those that the network has seen in this process.
    """
    missing = [shard for shard in shards if not is_whole(shard.path)]
    done = sum(len(shard.members) for shard in shards if shard not in missing)
    if done:
        log.info("%d of %d subjects are encoded already", done, len(subjects.members))
    model, run = judge.model, judge.run
    todo: list[Source] = []
    batches: list[list[int]] = []
    for shard in missing:  # a batch never crosses a shard: its rows do not depend on what was done
        new = [subject for subject in shard.members if subject.id not in known]
        places, size = range(len(todo), len(todo) + len(new)), run.data.batch_size
        batches += [list(places[first : first + size]) for first in range(0, len(new), size)]
        todo += new
    encoded = iter(
        progress(
            _numbers(judge, _loader(subjects, todo, batches, run), subjects.own),
            "encoding", len(todo), unit="subject",
            shown=run.logging.progress_bar,
        )
    )  # fmt: skip
    for shard in missing:
        rows = [
            (one, _finite(known[one.id]) if one.id in known else next(encoded))
            for one in shard.members
        ]
        table = _table(rows, model.z_dim, work.about)
        del rows  # before the next shard's come
        with replacing(shard.path) as partial:
            pq.write_table(table, partial, write_page_checksum=True)


def _loader(
    subjects: Sources, members: Sequence[Source], batches: list[list[int]], run: Run
) -> Iterable[list[Any]]:
    """Lists of samples, or of reasons why there is none; ``batches`` are of members' places."""
    if not members:
        return ()
    loader: DataLoader[Any] = DataLoader(
        subjects.load(members),
        batch_sampler=batches,
        num_workers=run.data.num_workers,
        collate_fn=list,
    )
    return loader


def _numbers(
    judge: Judge, loader: Iterable[list[Any]], own: bool
) -> Iterator[Encoding | Unreadable]:
    """What the network says of each sample, in order."""
    for batch in loader:
        samples = [sample for sample in batch if not isinstance(sample, Unreadable)]
        found: Iterator[Encoding] = iter(())
        if samples:
            x = torch.stack([sample["image"] for sample in samples])
            known = [covariates_of(sample, judge.run.data) if own else {} for sample in samples]
            output = reconstruct(judge.model, x, judge.run.hardware.device)
            found = iter(encodings(x, output, known))
        for sample in batch:
            yield sample if isinstance(sample, Unreadable) else _finite(next(found))


def _finite(encoding: Encoding) -> Encoding | Unreadable:
    whole = all(np.isfinite(part).all() for part in encoding[:4])
    return encoding if whole else Unreadable("its latents are not finite; it holds NaN or infinity")


def _table(
    rows: Sequence[tuple[Source, Encoding | Unreadable]],
    z_dim: int,
    about: Mapping[str, Any],
) -> pa.Table:
    """A shard's rows; who could not be read, and why, is in its metadata."""
    good = [(one, found) for one, found in rows if isinstance(found, Encoding)]
    failed = [f"{one.id}: {found.reason}" for one, found in rows if isinstance(found, Unreadable)]
    for reason in failed:
        log.warning("%s", reason)
    found = [numbers for _, numbers in good]
    return to_arrow(
        Latents(
            ids=[subject.id for subject, _ in good],
            patients=[subject.patient for subject, _ in good],
            time_points=np.array([subject.time_point for subject, _ in good], np.int64),
            splits=[subject.split for subject, _ in good],
            mu=np.array([one.mu for one in found], np.float32).reshape(-1, z_dim),
            logvar=np.array([one.logvar for one in found], np.float32).reshape(-1, z_dim),
            recon=np.array([one.squared_error for one in found], np.float32),
            kl=np.array([one.kl for one in found], np.float32),
            covariates=as_columns([one.covariates for one in found]),
            about={**about, "failed": failed},
        )
    )
