"""``task=encode``: where every subject lies in a run's latent space."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from safetensors.numpy import save
from torch.utils.data import DataLoader

from vaelab.anomaly.detector import reconstruct
from vaelab.assembly import Run, Task
from vaelab.atomic import replacing
from vaelab.data.identity import state_of
from vaelab.data.index import enumerate_names
from vaelab.errors import UserError
from vaelab.evaluation.judge import Encoding, Judge, encodings, judge_of
from vaelab.latents.pictures import choose_colors, draw_latents, read_covariates
from vaelab.latents.sources import Source, Sources, Unreadable, own_sources, sources_of_inputs
from vaelab.latents.table import ABOUT, ARRAYS, TABLE, Latents, read_latents, to_arrow
from vaelab.models.vae import VAE
from vaelab.progress import progress
from vaelab.runs.paths import PathText

log = logging.getLogger(__name__)

PARTS = ".parts"
"""Beside the results: one Parquet file for each shard, a few kB a subject, so as to go on."""


class Encode(Task):
    """Writes ``latents.parquet`` and ``latents.safetensors``, and pictures of them.

    One row a subject: ``id``, ``patient``, ``time_point``, ``split``, ``mu_0`` … and ``logvar_0`` …
    of the posterior, ``recon`` (squared error of the reconstruction from mu, summed over channels
    and voxels) and ``kl`` (nats, summed over units). Of the run's own dataset, volumes with a
    segmentation have ``segmented_mm3`` too, and radiographs ``label``. Rows are ordered by split
    (train, val, calibration, test, test_full, then by name), patient, time point and id; a subject
    of two splits has one row, in the first. The safetensors file holds the same: arrays ``mu
    logvar recon kl time_point``, and in its metadata ids, patients and splits in order of rows.

    Records are encoded shard by shard, and no more than a shard is in memory. A shard is kept as
    soon as it is done and is not done again while weights, files and settings are the same, so
    that the same command goes on after an interruption.

    Args:
        inputs: a file or folder, a ``.txt`` or ``.csv`` list of such, or several of these; None
            encodes the run's own dataset, all splits.
        output_dir: where to write; None is ``latents`` in the run folder, or ``latents_inputs``
            with ``inputs``.
        shard_size: subjects that are kept at a time.
        covariates: a CSV file with a column ``id`` and columns of numbers to colour pictures by;
            None takes ``factors.csv`` in the folder of the dataset, where there is one.
        color_by: columns to colour by; None takes the tumour's volume, or the label of an X-ray.
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
        umap: bool = True,
    ) -> None:
        if shard_size < 1:
            raise UserError(f"task.shard_size={shard_size}: at least 1 is needed; try 64")
        self.inputs = inputs
        self.output_dir = output_dir
        self.shard_size = shard_size
        self.covariates = covariates
        self.color_by = color_by
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
        known = read_covariates(self.covariates, None if self.inputs else run.data)
        color_by = choose_colors(self.color_by, [*known, *subjects.covariates])
        work = _Work(
            about={
                "model": type(run.model).__name__,
                "run": run.folder.name,
                "data": type(run.data).__name__,
                "weights": run.weights.name,
                "weights_sha256": judge.weights_digest,
            },
            settings=run.data.sample_settings(),
            folder=folder / PARTS,
        )
        shards = work.plan(subjects.members, self.shard_size)
        _encode(judge, subjects, work, shards, {} if self.inputs else judge.encodings)
        failed = _assemble(shards, folder, work.about)
        for path in set(work.folder.iterdir()) - {shard.path for shard in shards}:
            path.unlink()  # of other weights or files
        latents = read_latents(folder)
        own = folder == usual and not self.inputs
        figures = run.folder.figures if own else folder / "figures"
        draw_latents(latents, known, color_by, figures, self.umap)
        if failed:
            raise UserError(
                f"{len(failed)} of {len(subjects.members)} subjects could not be read:"
                f"{enumerate_names(failed)}"
            )


class _Shard(NamedTuple):
    path: Path
    members: list[Source]


class _Work(NamedTuple):
    """What makes the result of a shard, and where it is kept."""

    about: Mapping[str, Any]
    settings: Mapping[str, Any]
    folder: Path

    def plan(self, members: Sequence[Source], size: int) -> list[_Shard]:
        """Cut into shards, each named by everything that its rows depend on."""
        shared = json.dumps([self.about, dict(self.settings)], sort_keys=True, default=str)
        shards: list[_Shard] = []
        for start in range(0, len(members), size):
            own = list(members[start : start + size])
            digest = hashlib.sha256(shared.encode())
            for subject in own:
                row = (subject.id, subject.patient, subject.time_point, subject.split)
                digest.update(json.dumps([*row, *_files(subject)]).encode())
            name = f"{len(shards):05d}-{digest.hexdigest()[:32]}.parquet"
            shards.append(_Shard(self.folder / name, own))
        return shards


def _files(subject: Source) -> list[tuple[str, str]]:
    """Name and state of the files behind a subject: to read them would take long."""
    paths = [Path(value) for value in subject.record.values() if isinstance(value, str)]
    return [(path.name, state_of(path)) for path in paths if path.is_file()]


def _encode(
    judge: Judge,
    subjects: Sources,
    work: _Work,
    shards: Sequence[_Shard],
    known: Mapping[str, Encoding],
) -> None:
    """Encode the shards that are not there yet; every subject is read and forgotten.

    Args:
        known: id → encoding of those that the network has seen in this process.
    """
    missing = [shard for shard in shards if not _is_whole(shard.path)]
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
            _numbers(model, _loader(subjects, todo, batches, run), subjects, run.hardware.device),
            "encoding", len(todo), unit="subject",
            shown=run.logging.progress_bar,
        )
    )  # fmt: skip
    for shard in missing:
        rows = [
            (one, _finite(known[one.id]) if one.id in known else next(encoded))
            for one in shard.members
        ]
        table = _table(rows, model.z_dim, list(subjects.covariates), work.about)
        del rows  # before the next shard's come
        with replacing(shard.path) as partial:
            pq.write_table(table, partial, write_page_checksum=True)


def _is_whole(path: Path) -> bool:
    try:
        return path.is_file() and bool(pq.read_table(path, page_checksum_verification=True))
    except (pa.ArrowException, OSError):
        log.warning("%s: damaged, made again", path)
        return False


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
    model: VAE, loader: Iterable[list[Any]], subjects: Sources, device: torch.device
) -> Iterator[Encoding | Unreadable]:
    """What the network says of each sample, in order."""
    for batch in loader:
        samples = [sample for sample in batch if not isinstance(sample, Unreadable)]
        found: Iterator[Encoding] = iter(())
        if samples:
            x = torch.stack([sample["image"] for sample in samples])
            known = [tuple(of(s) for of in subjects.covariates.values()) for s in samples]
            found = iter(encodings(x, reconstruct(model, x, device), known))
        for sample in batch:
            yield sample if isinstance(sample, Unreadable) else _finite(next(found))


def _finite(encoding: Encoding) -> Encoding | Unreadable:
    whole = all(np.isfinite(part).all() for part in encoding[:4])
    return encoding if whole else Unreadable("its latents are not finite; it holds NaN or infinity")


def _table(
    rows: Sequence[tuple[Source, Encoding | Unreadable]],
    z_dim: int,
    covariates: Sequence[str],
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
            covariates={
                name: np.array([one.covariates[place] for one in found], np.float64)
                for place, name in enumerate(covariates)
            },
            about={**about, "failed": failed},
        )
    )


def _assemble(shards: Sequence[_Shard], folder: Path, about: Mapping[str, Any]) -> list[str]:
    """Join the shards into the two files; returns whom they could not hold, and why."""
    headers = [json.loads(pq.read_schema(shard.path).metadata[ABOUT.encode()]) for shard in shards]
    failed = [reason for header in headers for reason in header["failed"]]
    if len(failed) == sum(len(shard.members) for shard in shards):
        raise UserError(f"no subject could be read:{enumerate_names(failed)}")
    metadata = {ABOUT: json.dumps(dict(about))}
    schema = pq.read_schema(shards[0].path).with_metadata(metadata)
    with (
        replacing(folder / TABLE) as partial,
        pq.ParquetWriter(partial, schema, write_page_checksum=True) as writer,
    ):
        for shard in shards:
            writer.write_table(pq.read_table(shard.path).replace_schema_metadata(metadata))
    latents = read_latents(folder)
    arrays = {name: getattr(latents, name) for name in ("mu", "logvar", "recon", "kl")}
    arrays["time_point"] = latents.time_points
    names = {"ids": latents.ids, "patients": latents.patients, "splits": latents.splits}
    with replacing(folder / ARRAYS) as partial:
        # One entry: the library writes several in an order that changes from call to call.
        # By the bytes: the library's own files are closed to other users.
        partial.write_bytes(save(arrays, {ABOUT: json.dumps({**about, **names})}))
    log.info("encoded %d subjects: %s", len(latents), folder)
    return failed
