"""``comparison.html``: several runs on one page that needs neither network nor other files."""

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
    """What a table shows and what it sorts by: a number as text, or "" where nothing is known."""

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
        warnings: what keeps the runs from being compared.
        headings: one per column of ``rows``, the run's name first.
        rows: one per run.
        winners: the best run by each criterion.
        figures: caption → PNG file.
        left_out: run → why it is in the table only.
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
    """What the comparison found."""
    if not winners:
        return f"None of {runs} runs can be called best."
    best = winners[0]
    return f"Of {runs} runs, {best.run} has the {best.criterion}: {best.value}."
