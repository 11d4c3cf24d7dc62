"""Exported latents: one table of subjects.

This is all that a model of how patients change needs to know of the run that encoded them.
``task=encode`` writes the table; nothing here knows the network that it came from.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from vaelab.errors import UserError

TABLE = "latents.parquet"
ARRAYS = "latents.safetensors"
ABOUT = "vaelab"
"""Key of the files' own metadata: JSON with the model, the run and the weights' SHA-256."""
TIME_DAYS = "time_days"
"""Covariate: when a visit was, in days."""


def time_point_of(name: str, patient: str) -> int:
    """The last number in a subject's name after its patient; 0 where there is none.

    1 for ``BraTS-MEN-00004-001``. Of a radiograph it is the number of the image, which says
    nothing of when it was taken.
    """
    rest = Path(name).name.removeprefix(patient) if patient != name else ""
    numbers = re.findall(r"\d+", re.sub(r"\.[A-Za-z]\w*$", "", rest))
    return int(numbers[-1]) if numbers else 0


@dataclass(frozen=True)
class Latents:
    """N encoded subjects, ordered by split, patient, time point and id."""

    ids: list[str]
    patients: list[str]
    time_points: np.ndarray
    """(N,) int64: the order of a patient's visits by their names; for times see ``time_days``."""
    splits: list[str]
    mu: np.ndarray
    """Posterior means, (N, z) float32."""
    logvar: np.ndarray
    """Logs of the posterior variances, (N, z) float32."""
    recon: np.ndarray
    """Squared error of the reconstruction from mu, summed over channels and voxels, (N,)."""
    kl: np.ndarray
    """KL of the posterior to N(0, I) in nats, summed over units, (N,)."""
    covariates: Mapping[str, np.ndarray] = field(default_factory=dict)
    """What else is known of each subject, name → (N,) float64, NaN where it is not."""
    about: Mapping[str, Any] = field(default_factory=dict)
    """Model, run and weights that this comes from."""

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def time_days(self) -> np.ndarray:
        """When each visit was, in days on a scale of the patient's own, (N,); NaN for unknown."""
        return np.asarray(self.covariates.get(TIME_DAYS, np.full(len(self), np.nan)))

    def where(self, chosen: np.ndarray) -> Latents:
        """The subjects at ``chosen``, an array of places or of truths."""
        places = np.arange(len(self))[chosen]
        columns = ("time_points", "mu", "logvar", "recon", "kl")
        texts: dict[str, Any] = {n: [getattr(self, n)[i] for i in places] for n in TEXTS}
        arrays: dict[str, Any] = {name: getattr(self, name)[places] for name in columns}
        return Latents(
            **texts,
            **arrays,
            covariates={name: values[places] for name, values in self.covariates.items()},
            about=self.about,
        )

    def in_split(self, split: str | Sequence[str] | None) -> Latents:
        """The subjects of one or several splits; all for None.

        Raises:
            UserError: for a split that no subject is in.
        """
        if split is None:
            return self
        wanted = {split} if isinstance(split, str) else set(split)
        there = sorted(set(self.splits))
        unknown = sorted(wanted - set(there))
        if unknown:
            raise UserError(f"split={', '.join(unknown)}: no such split; there are {there}")
        return self.where(np.array([name in wanted for name in self.splits]))


TEXTS = {"ids": "id", "patients": "patient", "splits": "split"}
"""Fields of words → their columns."""


def is_fixed(column: str) -> bool:
    """Whether a column is the table's own and can be no covariate."""
    own = ("id", "patient", "time_point", "split", "recon", "kl")
    return column in own or re.fullmatch(r"(mu|logvar)_\d+", column) is not None


def to_arrow(latents: Latents) -> pa.Table:
    """As a table: id, patient, time_point, split, mu_0 …, logvar_0 …, recon, kl, covariates."""
    columns: dict[str, Any] = {
        "id": _text(latents.ids),
        "patient": _text(latents.patients),
        "time_point": pa.array(latents.time_points, pa.int64()),
        "split": _text(latents.splits),
    }
    for name in ("mu", "logvar"):
        values = getattr(latents, name)
        columns |= {f"{name}_{unit}": values[:, unit] for unit in range(values.shape[1])}
    columns |= {"recon": latents.recon, "kl": latents.kl, **latents.covariates}
    table = pa.table(columns)
    return table.replace_schema_metadata({ABOUT: json.dumps(dict(latents.about))})


def _text(values: Sequence[str]) -> pa.Array:
    # A file name may hold bytes that are no UTF-8, which no other program could read back.
    plain = [value.encode("utf-8", "backslashreplace").decode() for value in values]
    return pa.array(plain, pa.string())


def read_latents(source: str | Path) -> Latents:
    """Read what ``task=encode`` wrote.

    Args:
        source: the folder ``<run>/latents`` or a Parquet file.

    Raises:
        UserError: for a file that is missing, damaged, or no table of latents.
    """
    path = Path(source).expanduser()
    path = path / TABLE if path.is_dir() else path
    if not path.is_file():
        raise UserError(f"{path}: no such file; task=encode run_dir=outputs/<run> writes it")
    try:
        table = pq.read_table(path, page_checksum_verification=True)
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"{path}: not a readable Parquet file ({error}); encode anew") from error
    z_dim = sum(name.startswith("mu_") for name in table.column_names)
    units = [f"{name}_{unit}" for name in ("mu", "logvar") for unit in range(z_dim)]
    known = ["id", "patient", "time_point", "split", *units, "recon", "kl"]
    missing = [name for name in known if name not in table.column_names]
    if missing or not z_dim:
        raise UserError(
            f"{path}: not a table of latents, it has no column {(missing or ['mu_0'])[0]}; "
            "task=encode run_dir=outputs/<run> writes one"
        )
    return _from_arrow(table, z_dim, [name for name in table.column_names if name not in known])


def _from_arrow(table: pa.Table, z_dim: int, extra: Sequence[str]) -> Latents:
    def units(name: str) -> np.ndarray:
        columns = [table[f"{name}_{unit}"].to_numpy() for unit in range(z_dim)]
        return np.stack(columns, axis=1)

    numeric = [
        name
        for name in extra
        if pa.types.is_floating(table[name].type) or pa.types.is_integer(table[name].type)
    ]
    return Latents(
        **{name: table[column].to_pylist() for name, column in TEXTS.items()},
        time_points=table["time_point"].to_numpy(),
        mu=units("mu"),
        logvar=units("logvar"),
        recon=table["recon"].to_numpy(),
        kl=table["kl"].to_numpy(),
        covariates={name: table[name].to_numpy().astype(np.float64) for name in numeric},
        about=json.loads((table.schema.metadata or {}).get(ABOUT.encode(), b"{}")),
    )
