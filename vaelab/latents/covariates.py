"""What a table says of samples: numbers, and the days on which patients were seen."""

from __future__ import annotations

import csv
import logging
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import NamedTuple

import numpy as np

from vaelab.data.index import ENCODING
from vaelab.data.module import SplitDataModule
from vaelab.errors import UserError
from vaelab.latents.table import TIME_DAYS, Latents, is_fixed

log = logging.getLogger(__name__)

ID, DAYS, DATE = "id", "days", "date"
MISSING = {"", "na", "n/a", "nan"}
EPOCH = datetime(1970, 1, 1)


@dataclass(frozen=True)
class Covariates:
    """A table of samples, as far as it is of numbers."""

    path: Path | None = None
    """None: there is no table."""
    numbers: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    """Column → id → number; ids without one are left out."""
    words: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """Column → id → what stands there, of all columns; ids with an empty cell are left out."""
    days: Mapping[str, float] = field(default_factory=dict)
    """Id → day of the visit, from the column ``days`` or ``date``."""
    dated: bool = False
    """Whether days are those of a calendar, of which only differences matter."""

    @property
    def names(self) -> list[str]:
        """Columns that a sample gets from here."""
        return [*self.numbers, *([TIME_DAYS] if self.days else [])]


class _Cell(NamedTuple):
    """A value and where it stands, for messages."""

    table: Path
    row: int
    """As a spreadsheet counts: the names of the columns are row 1."""
    column: str
    text: str

    def wrong(self, what: str, cure: str) -> str:
        place = f"{self.table}, row {self.row}, column {self.column}"
        return f"{place}: {self.text!r} is {what}; {cure}, or leave the cell empty"


def read_covariates(path: str | Path | None, data: SplitDataModule | None = None) -> Covariates:
    """The columns of numbers of a table with a column ``id``, and the times of visits.

    A column ``days`` holds numbers on a scale of the user's own, such as days since surgery; a
    column ``date`` holds ISO dates, ``2021-03-31``, or times, ``2021-03-31T14:30``. Empty cells,
    ``NA`` and ``nan`` are unknown. Columns of words are left out; so is, with a warning, a column
    of numbers in which something else stands.

    Args:
        path: a CSV file; None takes the dataset's own, ``factors.csv``, if it is there.
        data: the dataset, or None where samples are not of it.

    Raises:
        UserError: when the file is missing or has no ``id``; for an id that is there twice and a
            time that cannot be read, naming file, row, column and value.
    """
    if path is not None:
        table: Path | None = Path(path).expanduser()
    else:
        table = None if data is None else data.factors()
    if table is None:
        return Covariates()
    cells = _read(table)
    if DAYS in cells and DATE in cells:
        raise UserError(f"{table}: has columns {DAYS} and {DATE}; leave one of them out")
    numbers = {
        name: known
        for name, column in cells.items()
        if name not in (ID, DAYS, DATE) and (known := _numbers(column))
    }
    parse = {DAYS: _number, DATE: _day}
    times = next((name for name in parse if name in cells), None)
    days = {} if times is None else {i: parse[times](cell) for i, cell in cells[times].items()}
    words = {name: {i: cell.text for i, cell in cells[name].items()} for name in cells}
    return Covariates(table, numbers, words, days, dated=times == DATE)


def joined(latents: Latents, covariates: Covariates) -> Latents:
    """The latents with what a table says of them; where both have a column, the table's counts.

    ``time_days`` of dates counts from the first of the patient's visits that are here.

    Raises:
        UserError: for a table that knows none of them.
    """
    if covariates.path is None:
        return latents
    known = {name for column in covariates.numbers.values() for name in column}
    known |= covariates.days.keys()
    if known and not known.intersection(latents.ids):
        raise UserError(
            f"{covariates.path}: none of its ids is one of the samples'; it has {min(known)}, they "
            f"are called {latents.ids[0]} and so on"
        )
    columns = {
        name: np.array([column.get(i, np.nan) for i in latents.ids])
        for name, column in covariates.numbers.items()
        if not is_fixed(name)
    }
    if covariates.days:
        days = np.array([covariates.days.get(i, np.nan) for i in latents.ids])
        columns[TIME_DAYS] = _from_the_first(days, latents.patients) if covariates.dated else days
    return replace(latents, covariates={**latents.covariates, **columns})


def _from_the_first(days: np.ndarray, patients: Sequence[str]) -> np.ndarray:
    first: dict[str, float] = defaultdict(lambda: math.inf)
    for day, patient in zip(days.tolist(), patients, strict=True):
        first[patient] = min(first[patient], day if math.isfinite(day) else math.inf)
    since: np.ndarray = days - np.array([first[patient] for patient in patients])
    return since


def _read(table: Path) -> dict[str, dict[str, _Cell]]:
    """Column → id → cell that is not empty."""
    if not table.is_file():
        raise UserError(f"covariates={table}: no such file; a CSV file with a column id is needed")
    columns: dict[str, dict[str, _Cell]] = {}
    rows: dict[str, int] = {}
    with table.open(newline="", **(ENCODING | {"encoding": "utf-8-sig"})) as file:
        reader = csv.DictReader(file)
        if ID not in (reader.fieldnames or ()):
            raise UserError(
                f"covariates={table}: no column id among {list(reader.fieldnames or ())}; the "
                "first row holds the names of the columns, separated by commas"
            )
        for values in reader:
            row, name = reader.line_num, (values[ID] or "").strip()
            if name in rows:
                raise UserError(
                    f"{table}, row {row}, column id: {name!r} is in row {rows[name]} too; keep one"
                )
            if not name or None in values:
                what = "no id" if not name else "more cells than there are columns"
                raise UserError(f"{table}, row {row}: {what}; mend the row or leave it out")
            rows[name] = row
            for column, text in values.items():
                if text is not None and text.strip().lower() not in MISSING:
                    cell = _Cell(table, row, column, text.strip())
                    columns.setdefault(column, {})[name] = cell
    return columns


def _numbers(column: Mapping[str, _Cell]) -> dict[str, float]:
    """Id → number; empty for a column of words."""
    found: dict[str, float] = {}
    wrong = []
    for name, cell in column.items():
        try:
            found[name] = _number(cell)
        except UserError as error:
            wrong.append(str(error))
    if found and wrong:
        log.warning("%s; the column is not used", wrong[0])
    return {} if wrong else found


def _number(cell: _Cell) -> float:
    try:
        value = float(cell.text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise UserError(cell.wrong("no number", "write one such as 120 or 12.5"))
    return value


def _day(cell: _Cell) -> float:
    try:
        moment = datetime.fromisoformat(cell.text)
    except ValueError:
        cure = "write it as year-month-day, such as 2021-03-31"
        raise UserError(cell.wrong("no date", cure)) from None
    if moment.tzinfo is not None:
        moment = moment.astimezone(timezone.utc).replace(tzinfo=None)
    return (moment - EPOCH) / timedelta(days=1)
