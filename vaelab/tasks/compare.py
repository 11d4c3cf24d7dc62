"""``task=compare``: several runs side by side, as a table, figures and a page."""

from __future__ import annotations

import csv
import io
import logging
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vaelab.assembly import Run, Task
from vaelab.atomic import replacing
from vaelab.errors import UserError
from vaelab.evaluation.comparison import COLUMNS, NAN, Column, Comparison, number_text, value_text
from vaelab.report.canvas import save_figure
from vaelab.report.comparison_figures import (
    RatePoint,
    RunCurves,
    Schedule,
    annealing_figure,
    comparison_curves,
    rate_distortion_figure,
)
from vaelab.report.comparison_page import Cell, Heading, write_comparison
from vaelab.report.markdown import literal, table
from vaelab.runs.differences import short_names
from vaelab.runs.paths import PathText
from vaelab.runs.reading import TrainingRun, read_runs

log = logging.getLogger(__name__)

BETA_AND_SEED = {"annealing", "train.kl_beta", "train.seed"}
"""Runs that differ in nothing else lie on one rate–distortion curve for each annealing."""


class Compare(Task):
    """Writes ``comparison.html``, ``.md``, ``.csv`` and figures of runs that exist.

    Args:
        runs: a run folder, a folder of runs such as a sweep's, or several of both.
        output_dir: folder of the results; None is ``<sweep>/comparison`` when ``runs`` is one
            folder of runs, and the task's own run folder otherwise.

    Raises:
        UserError: when there is nothing to compare.
    """

    parts = ()
    needs_trained_run = False

    def __init__(
        self, runs: PathText | Sequence[PathText] | None = None, output_dir: PathText | None = None
    ) -> None:
        if not runs:
            raise UserError(
                f"task.runs={runs}: name what to compare, a sweep (task.runs=multirun_sweeps/...) "
                "or several runs (task.runs=[outputs/...,outputs/...])"
            )
        self.runs = [runs] if isinstance(runs, str) else list(runs)
        self.output_dir = output_dir

    def __call__(self, run: Run) -> None:
        """Compare; only folders are read, no data set and no weights.

        Raises:
            UserError: for a folder that is no run and holds none.
        """
        runs = read_runs(self.runs)
        folder = self._folder(runs, run)
        comparison = Comparison.of(runs)
        for warning in comparison.warnings:
            log.warning("%s", warning)
        for name, reason in comparison.left_out.items():
            log.warning("%s is left out of the figures: %s", name, reason)
        pictures = _draw(comparison, folder)
        _write_text(folder / "comparison.csv", _csv(comparison))
        _write_text(folder / "comparison.md", _markdown(comparison, pictures))
        title = Path(self.runs[0]).resolve().name if len(self.runs) == 1 else f"{len(runs)} runs"
        _write_page(folder / "comparison.html", comparison, title, pictures)
        for winner in comparison.winners():
            log.info("%s: %s (%s)", winner.criterion, winner.run, winner.value)
        log.info("comparison of %d runs in %s", len(runs), folder / "comparison.html")

    def _folder(self, runs: Sequence[TrainingRun], run: Run) -> Path:
        if self.output_dir is not None:
            return Path(self.output_dir).expanduser()
        sweep = Path(self.runs[0]).expanduser()
        if len(self.runs) == 1 and runs[0].path != sweep:
            return sweep / "comparison"
        return run.folder.path


# ---------------------------------------------------------------- tables


def _columns(comparison: Comparison) -> list[Column]:
    """Columns in which at least one run has something to say."""
    return [
        column
        for column in COLUMNS
        if any(math.isfinite(getattr(s, column.field)) for s in comparison.standings)
        and not (column.field == "monitored" and comparison.monitors == {"val/neg_elbo"})
    ]


def _csv(comparison: Comparison) -> str:
    """Every digit, for a program to read; fields are named as in :class:`Standing`."""
    fields = ["max_epochs", *(column.field for column in COLUMNS)]
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(["run", "state", "monitor", *fields, *comparison.differences])
    for place, standing in enumerate(comparison.standings):
        numbers = [getattr(standing, field) for field in fields]
        writer.writerow(
            [standing.name, standing.state, standing.monitor]
            + ["" if math.isnan(number) else f"{number:.10g}" for number in numbers]
            + [values[place] for values in comparison.differences.values()]
        )
    return file.getvalue()


def _markdown(comparison: Comparison, pictures: Mapping[str, Path]) -> str:
    columns = _columns(comparison)
    names = short_names(list(comparison.differences))
    parts = ["# Comparison of runs", *(f"> {literal(text)}" for text in comparison.warnings)]
    winners = comparison.winners()
    if winners:
        parts.append(table(["criterion", "best run", "value"], winners))
    head = ["run", "state", *(names[key] for key in comparison.differences)]
    rows = []
    for place, standing in enumerate(comparison.standings):
        varied = [value_text(values[place]) for values in comparison.differences.values()]
        numbers = [number_text(getattr(standing, column.field)) for column in columns]
        rows.append([standing.name, standing.state, *varied, *numbers])
    parts.append(table([*head, *(column.name for column in columns)], rows))
    notes = [f"{column.name}: {column.note}" for column in columns if column.note]
    parts.append(f"{'; '.join(notes)}. All of the validation split, at the best epoch.")
    parts += [
        f"- {literal(name)} is in the table only: {literal(reason)}"
        for name, reason in comparison.left_out.items()
    ]
    parts += [f"![{caption}]({path.name})" for caption, path in pictures.items()]
    return "\n\n".join(parts) + "\n"


def _write_text(path: Path, text: str) -> None:
    with replacing(path) as partial:
        partial.write_bytes(text.encode("utf-8", errors="replace"))


# ---------------------------------------------------------------- figures and page


def _draw(comparison: Comparison, folder: Path) -> dict[str, Path]:
    """Caption → picture; none when no run has ended well."""
    drawn = comparison.drawn()
    if not drawn:
        return {}
    points, curves = [], []
    schedules: dict[tuple[Any, ...], Schedule] = {}
    for read, standing, label in drawn:
        annealing, beta = read.config["choices"]["annealing"], read.config["train"]["kl_beta"]
        points.append(RatePoint(label, annealing, beta, standing.kl, standing.recon))
        nothing = [NAN] * standing.epochs
        betas = read.history.get("train/beta", nothing)
        curves.append(
            RunCurves(
                label,
                annealing,
                beta,
                read.history["epoch"],
                [value / len(read.val_ids) for value in read.history.get("val/recon", nothing)],
                [value / len(read.val_ids) for value in read.history.get("val/kl", nothing)],
                betas,
            )
        )
        schedules.setdefault((annealing, *betas), Schedule(annealing, beta, betas))
    joined = not comparison.data_differ and set(comparison.differences) <= BETA_AND_SEED
    figures = {
        "Rate and distortion": ("rate_distortion.png", rate_distortion_figure(points, joined)),
        "Learning curves": ("learning_curves.png", comparison_curves(curves)),
        "Annealing": ("annealing.png", annealing_figure(list(schedules.values()))),
    }
    return {
        caption: save_figure(figure, folder / name) for caption, (name, figure) in figures.items()
    }


def _write_page(
    path: Path, comparison: Comparison, title: str, pictures: Mapping[str, Path]
) -> None:
    columns = _columns(comparison)
    names = short_names(list(comparison.differences))
    best = comparison.best_values()
    numeric = {
        key: all(type(value) in (int, float) for value in values if value is not None)
        for key, values in comparison.differences.items()
    }
    headings = [Heading("run", False), Heading("state", False)]
    headings += [Heading(names[key], numeric[key], key) for key in comparison.differences]
    headings += [Heading(column.name, True, column.note) for column in columns]
    rows = []
    for place, standing in enumerate(comparison.standings):
        row = [Cell(standing.name, standing.name), Cell(standing.state, standing.state)]
        for values in comparison.differences.values():
            row.append(Cell(value_text(values[place]), value_text(values[place])))
        for column in columns:
            value = getattr(standing, column.field)
            sort = "" if math.isnan(value) else repr(float(value))
            marked = standing.name not in comparison.left_out and value == best.get(column.field)
            row.append(Cell(number_text(value), sort, marked))
        rows.append(row)
    ended = len(comparison.standings) - len(comparison.left_out)
    write_comparison(
        path,
        title=title,
        summary={
            "Runs": f"{len(comparison.standings)}, {ended} of them compared",
            "Monitored": ", ".join(sorted(comparison.monitors)),
            "What differs": ", ".join(comparison.differences) or "nothing",
        },
        warnings=comparison.warnings,
        headings=headings,
        rows=rows,
        winners=comparison.winners(),
        figures={caption: picture.read_bytes() for caption, picture in pictures.items()},
        left_out=comparison.left_out,
    )
