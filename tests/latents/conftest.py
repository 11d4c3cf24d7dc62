"""Six visits of three patients, for all tests of this folder."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from vaelab.latents.table import TABLE, Latents, to_arrow

Z = 3
VISITS = [("A", 0, "train"), ("A", 2, "train"), ("A", 10, "train"), ("B", 1, "val")]
VISITS += [("C", 5, "train"), ("C", 0, "train")]


def latents(order: list[int] | None = None) -> Latents:
    """Six visits of three patients; mu says whose and when: (patient, time point, 0)."""
    rows = [VISITS[i] for i in order or range(len(VISITS))]
    random = np.random.default_rng(0)
    return Latents(
        ids=[f"{patient}-{point:03d}" for patient, point, _ in rows],
        patients=[patient for patient, _, _ in rows],
        time_points=np.array([point for _, point, _ in rows]),
        splits=[split for _, _, split in rows],
        mu=np.array([(ord(patient), point, 0) for patient, point, _ in rows], np.float32),
        logvar=random.normal(size=(len(rows), Z)).astype(np.float32),
        recon=np.arange(len(rows), dtype=np.float32),
        kl=np.arange(len(rows), dtype=np.float32),
        covariates={"size": np.array([1, np.nan, *range(len(rows) - 2)])},
        about={"model": "VAE"},
    )


def written(folder: Path, table: Latents | None = None) -> Path:
    pq.write_table(to_arrow(table or latents()), folder / TABLE, write_page_checksum=True)
    return folder
