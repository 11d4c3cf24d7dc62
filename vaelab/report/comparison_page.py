"""``comparison.html``: several runs on a page that needs neither network nor other files."""

import datetime as dt
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from vaelab.report.page import embedded_figure, write_page


class Heading(NamedTuple):
    """Head of a column."""

    name: str
    numeric: bool
    note: str = ""  # shown on hovering


class Cell(NamedTuple):
    """The text of a cell and its sort key: a number as text, or "" if unknown."""

    text: str
    sort: str
    best: bool = False


class Winner(NamedTuple):
    """The best run by one criterion."""

    criterion: str
    run: str
    value: str


def write_comparison(
    path: str | os.PathLike[str],
    *,
    title: str,
    summary: Mapping[str, str],
    warnings: Sequence[str],
    headings: Sequence[Heading],
    rows: Sequence[Sequence[Cell]],
    winners: Sequence[Winner],
    figures: Mapping[str, bytes],
    left_out: Mapping[str, str],
    date: dt.date | None = None,
) -> Path:
    """Write the page to ``path``, whole or not at all; returns the path.

    Args:
        title: what is compared, in a few words.
        summary: facts for the head of the page, label → text.
        warnings: reasons why the runs are not comparable.
        headings: of the columns of ``rows``, the run's name first.
        rows: of the table, a row per run.
        winners: the best run by each criterion.
        figures: caption → PNG file.
        left_out: run → reason why it is only in the table.
        date: today when None.
    """
    assert all(len(row) == len(headings) for row in rows)
    return write_page(
        path,
        "comparison.html",
        finding=_sentence(winners, len(rows)),
        title=title,
        date=(date or dt.date.today()).isoformat(),
        summary=summary,
        warnings=warnings,
        headings=headings,
        rows=rows,
        winners=winners,
        figures=[embedded_figure(caption, png) for caption, png in figures.items()],
        left_out=left_out,
    )


def _sentence(winners: Sequence[Winner], runs: int) -> str:
    """A sentence that sums up the comparison."""
    if not winners:
        return f"None of {runs} runs can be called best."
    best = winners[0]
    return f"Of {runs} runs, {best.run} has the {best.criterion}: {best.value}."
