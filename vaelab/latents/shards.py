"""Encoded samples as they are kept on the way, so that an interrupted ``task=encode`` goes on."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from safetensors.numpy import save

from vaelab.atomic import replacing
from vaelab.data.contract import SEGMENTED
from vaelab.data.identity import state_of
from vaelab.data.index import enumerate_names
from vaelab.errors import UserError
from vaelab.latents.covariates import Covariates, joined
from vaelab.latents.factor_table import FACTORS_TABLE, absent, write_factors
from vaelab.latents.site import without_site
from vaelab.latents.sources import Source
from vaelab.latents.table import ABOUT, ARRAYS, TABLE, TEXTS, Latents, read_latents, to_arrow
from vaelab.metrics.factors import NAMES

log = logging.getLogger(__name__)

SHARDS = ".parts"
"""Beside the results: one Parquet file for each shard, a few kB a subject."""


class Shard(NamedTuple):
    """Samples that are encoded together, and where their rows are kept."""

    path: Path
    members: list[Source]


class Work(NamedTuple):
    """What makes the result of a shard, and where it is kept."""

    about: Mapping[str, Any]
    settings: Mapping[str, Any]
    folder: Path

    def plan(self, members: Sequence[Source], size: int) -> list[Shard]:
        """Cut into shards, each named by everything that its rows depend on."""
        settings = [self.about, dict(self.settings), NAMES]
        shared = json.dumps(settings, sort_keys=True, default=str)
        shards: list[Shard] = []
        for start in range(0, len(members), size):
            own = list(members[start : start + size])
            digest = hashlib.sha256(shared.encode())
            for subject in own:
                row = (subject.id, subject.patient, subject.time_point, subject.split)
                digest.update(json.dumps([*row, *_files(subject)]).encode())
            name = f"{len(shards):05d}-{digest.hexdigest()[:32]}.parquet"
            shards.append(Shard(self.folder / name, own))
        return shards


def _files(subject: Source) -> list[tuple[str, str]]:
    """Name and state of the files behind a subject: to read them would take long."""
    paths = [Path(value) for value in subject.record.values() if isinstance(value, str)]
    return [(path.name, state_of(path)) for path in paths if path.is_file()]


def is_whole(path: Path) -> bool:
    """Whether a shard's file is there and undamaged."""
    try:
        return path.is_file() and bool(pq.read_table(path, page_checksum_verification=True))
    except (pa.ArrowException, OSError):
        log.warning("%s: damaged, made again", path)
        return False


def _merged(parts: Sequence[Latents], about: Mapping[str, Any]) -> Latents:
    """The rows of all parts, whose covariates may differ."""
    columns = list(dict.fromkeys(name for part in parts for name in part.covariates))
    texts: dict[str, Any] = {n: [i for part in parts for i in getattr(part, n)] for n in TEXTS}
    values: dict[str, Any] = {
        name: np.concatenate([getattr(part, name) for part in parts])
        for name in ("time_points", "mu", "logvar", "recon", "kl")
    }
    return Latents(
        **texts,
        **values,
        covariates={
            name: np.concatenate(
                [part.covariates.get(name, np.full(len(part), absent(name))) for part in parts]
            )
            for name in columns
        },
        about=about,
    )


def assemble(
    shards: Sequence[Shard],
    folder: Path,
    about: Mapping[str, Any],
    covariates: Covariates,
    remove_site: str | None = None,
) -> list[str]:
    """Join the shards into the files; returns whom they could not hold, and why.

    Args:
        shards: all of them.
        folder: where to write.
        about: for the files' own metadata.
        covariates: further columns.
        remove_site: the column of ``covariates`` whose influence is taken out.
    """
    headers = [json.loads(pq.read_schema(shard.path).metadata[ABOUT.encode()]) for shard in shards]
    failed = [reason for header in headers for reason in header["failed"]]
    if len(failed) == sum(len(shard.members) for shard in shards):
        raise UserError(f"no subject could be read:{enumerate_names(failed)}")
    latents = joined(_merged([read_latents(shard.path) for shard in shards], about), covariates)
    if remove_site is not None:
        latents = without_site(latents, covariates.words[remove_site], remove_site)
        about = latents.about
    with replacing(folder / TABLE) as partial:
        pq.write_table(to_arrow(latents), partial, write_page_checksum=True)
    if SEGMENTED in latents.covariates:
        write_factors(latents, folder / FACTORS_TABLE)
    arrays = {name: getattr(latents, name) for name in ("mu", "logvar", "recon", "kl")}
    arrays["time_point"] = latents.time_points
    names = {"ids": latents.ids, "patients": latents.patients, "splits": latents.splits}
    with replacing(folder / ARRAYS) as partial:
        # One entry: the library writes several in an order that changes from call to call.
        # By the bytes: the library's own files are closed to other users.
        partial.write_bytes(save(arrays, {ABOUT: json.dumps({**about, **names})}))
    log.info("encoded %d subjects: %s", len(latents), folder)
    return failed
