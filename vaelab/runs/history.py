"""``logs/metrics.csv`` on disk: one row per epoch, replaced as a whole."""

from __future__ import annotations

import csv
from pathlib import Path

from vaelab.atomic import replacing

Rows = dict[int, dict[str, str]]
"""Epoch → column → value, as text: what was read is written again to the letter."""


def read_history(path: str | Path) -> dict[str, list[float]]:
    """Metric → value per epoch, with ``epoch`` itself; missing values are NaN.

    Args:
        path: of a ``metrics.csv``; the rows of one epoch are merged, and a last line that
            does not end is left out.
    """
    rows = read_rows(Path(path))
    names = dict.fromkeys(name for row in rows.values() for name in row)
    return {name: [float(rows[epoch].get(name, "nan")) for epoch in sorted(rows)] for name in names}


def truncate_history(path: str | Path, first_epoch: int) -> None:
    """Drop the rows of ``first_epoch`` and later, which a resumed run will write again."""
    path = Path(path)
    if path.is_file():
        write_rows(
            path, {epoch: row for epoch, row in read_rows(path).items() if epoch < first_epoch}
        )


def read_rows(path: Path) -> Rows:
    """All whole rows of a ``metrics.csv``, those of one epoch merged; none where it is absent."""
    if not path.is_file():
        return {}
    lines = path.read_bytes().decode("utf-8", errors="replace").splitlines(keepends=True)
    if lines and not lines[-1].endswith("\n"):
        del lines[-1]  # of a writer that was killed; ours leaves none
    rows: Rows = {}
    for row in csv.DictReader(lines):
        values = {key: value for key, value in row.items() if value}
        rows.setdefault(int(float(values["epoch"])), {}).update(values)
    return rows


def write_rows(path: Path, rows: Rows) -> None:
    """Replace the file as a whole, a column for each metric of any row."""
    columns = sorted({name for row in rows.values() for name in row})
    with replacing(path) as partial, partial.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns)
        if rows:
            writer.writeheader()
        writer.writerows(rows[epoch] for epoch in sorted(rows))
