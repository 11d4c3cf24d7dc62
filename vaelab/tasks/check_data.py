"""``task=check_data``: examine a whole dataset and list all findings before anyone trains."""

from __future__ import annotations

import csv
import logging
import os
import statistics
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from vaelab.assembly import Run, Task
from vaelab.atomic import replacing, write_json
from vaelab.data.findings import Examination, Finding, errors
from vaelab.data.index import ENCODING, Record
from vaelab.data.module import SplitDataModule
from vaelab.errors import UserError
from vaelab.progress import progress
from vaelab.report.markdown import literal, table
from vaelab.runs.folder import RunFolder
from vaelab.text import printable

log = logging.getLogger(__name__)

COLUMNS = ("severity", "file", "what", "detail", "cure")
EXAMPLES = 3  # files of a group on the console; all are in the table
LISTED = 50  # files of a group in the Markdown
VALUES = 8  # most frequent values of a fact


class CheckData(Task):
    """Writes ``check_data.csv``, all findings, and ``check_data.md`` and ``.json``, a summary.

    Any ``SplitDataModule`` can be examined: ``inventory`` finds its records, ``examine`` looks at
    one and ``compare`` at all of them together.

    Args:
        num_workers: threads, each of which holds one file in memory; None is one for each core.

    Raises:
        UserError: for a number of threads that cannot be.
    """

    parts = ("dataset", "logging")
    needs_trained_run = False

    def __init__(self, num_workers: int | None = None) -> None:
        if num_workers is not None and num_workers < 1:
            raise UserError(f"task.num_workers={num_workers}: at least 1 is needed; null is all")
        self.num_workers = num_workers or os.cpu_count() or 1

    def __call__(self, run: Run) -> None:
        """Examine all, and write and show what was found.

        Raises:
            UserError: at the end, when there is an error among the findings.
        """
        data = run.data
        root = data.root()
        records, findings = data.inventory(root)
        summary = Summary(records)
        contents: dict[str, str] = {}
        bar = progress(
            self._examined(data, records), "examining", len(records), unit="record",
            shown=run.logging.progress_bar,
        )  # fmt: skip
        for one in bar:
            findings += one.findings
            contents |= one.contents
            summary.add(one)
        findings += data.compare(records, contents)
        findings.sort(key=lambda finding: (finding.severity, finding.what, finding.file))
        groups = grouped(findings)
        _write(run.folder, str(root), summary, findings, groups)
        for line in [*summary.lines(), *_listing(groups)]:
            log.info("%s", line)
        bad = errors(findings)
        count = f"{len(bad)} errors and {len(findings) - len(bad)} warnings"
        told = f"{count} in {len(records)} records of {root}; all are in {run.folder}"
        if bad:
            raise UserError(f"{told}/check_data.csv (summed up in check_data.md and .json)")
        log.info("%s/check_data.csv (summed up in check_data.md and .json)", told)

    def _examined(self, data: SplitDataModule, records: Sequence[Record]) -> Iterator[Examination]:
        """In the order of the records; results are small, and few files are open at once."""
        with ThreadPoolExecutor(self.num_workers) as pool:  # decoding lets go of the lock
            yield from pool.map(data.examine, records)


class Summary:
    """Facts of all records, as far as they are needed for a table."""

    def __init__(self, records: Sequence[Record]) -> None:
        self.records = len(records)
        visits = Counter(record["patient"] for record in records)
        self.patients = len(visits)
        self.visits = Counter(visits.values())
        self.words: dict[str, Counter[str]] = defaultdict(Counter)
        self.numbers: dict[str, list[float]] = defaultdict(list)

    def add(self, one: Examination) -> None:
        """Take up the facts of one record."""
        for name, value in one.facts.items():
            if isinstance(value, str):
                self.words[name][value] += 1
            else:
                self.numbers[name].append(value)

    def content(self) -> dict[str, Any]:
        """As JSON has it."""
        return {
            "records": self.records,
            "patients": self.patients,
            "patients_by_number_of_records": {str(n): k for n, k in sorted(self.visits.items())},
            "values": {name: dict(counts.most_common()) for name, counts in self.words.items()},
            "ranges": {name: _range(values) for name, values in self.numbers.items()},
        }

    def lines(self) -> list[str]:
        """As the console has it."""
        several = sum(count for number, count in self.visits.items() if number > 1)
        shown = [f"{self.records} records of {self.patients} patients, {several} with several"]
        shown += [f"{name}: {_frequent(counts)}" for name, counts in self.words.items()]
        for name, values in self.numbers.items():
            of = _range(values)
            shown.append(
                f"{name}: {of['minimum']:.4g} to {of['maximum']:.4g}, half within "
                f"{of['quartile_1']:.4g} to {of['quartile_3']:.4g}, n={of['count']}"
            )
        return shown


def grouped(findings: Iterable[Finding]) -> dict[tuple[str, str], list[Finding]]:
    """(severity, problem) → findings; errors first, then the most frequent."""
    groups: dict[tuple[str, str], list[Finding]] = defaultdict(list)
    for finding in findings:
        groups[finding.severity, finding.what].append(finding)
    order = sorted(groups, key=lambda key: (key[0] != "error", -len(groups[key]), key[1]))
    return {key: groups[key] for key in order}


def _range(values: Sequence[float]) -> dict[str, float]:
    several = list(values) if len(values) > 1 else [*values, *values]
    first, median, third = statistics.quantiles(several, n=4, method="inclusive")
    return {
        "count": len(values), "minimum": min(values), "quartile_1": first, "median": median,
        "quartile_3": third, "maximum": max(values),
    }  # fmt: skip


def _frequent(counts: Counter[str]) -> str:
    shown = [f"{value} ({count})" for value, count in counts.most_common(VALUES)]
    more = len(counts) - VALUES
    return ", ".join(shown) + (f", {more} others" if more > 0 else "")


def _listing(groups: Mapping[tuple[str, str], Sequence[Finding]]) -> list[str]:
    """A row for each group: severity, number, problem; below it the cure and some files."""
    lines: list[str] = []
    for (severity, what), members in groups.items():
        lines.append(f"{severity:8}{len(members):6}  {what}; {members[0].cure}")
        for finding in members[:EXAMPLES]:
            detail = f" ({finding.detail})" if finding.detail else ""
            lines.append(f"{'':16}- {printable(finding.file + detail)}")
        if len(members) > EXAMPLES:
            lines.append(f"{'':16}  and {len(members) - EXAMPLES} more")
    return lines


def _write(
    folder: RunFolder,
    root: str,
    summary: Summary,
    findings: Sequence[Finding],
    groups: Mapping[tuple[str, str], Sequence[Finding]],
) -> None:
    path = folder.result("check_data", "csv")
    with replacing(path) as partial, partial.open("w", newline="", **ENCODING) as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        writer.writerows([getattr(finding, name) for name in COLUMNS] for finding in findings)
    bad = len(errors(findings))
    counts = {"root_dir": root, "errors": bad, "warnings": len(findings) - bad}
    problems = [
        {"severity": severity, "what": what, "count": len(members)}
        for (severity, what), members in groups.items()
    ]
    write_json(
        folder.result("check_data", "json"), counts | summary.content() | {"problems": problems}
    )
    with replacing(folder.result("check_data", "md")) as partial:
        partial.write_text("\n".join(_markdown(counts, summary, groups)) + "\n", encoding="utf-8")


def _markdown(
    counts: Mapping[str, Any],
    summary: Summary,
    groups: Mapping[tuple[str, str], Sequence[Finding]],
) -> Iterator[str]:
    yield f"# {literal(counts['root_dir'])}\n"
    yield f"{counts['errors']} errors, {counts['warnings']} warnings\n"
    problems = [
        (severity, len(members), what, members[0].cure)
        for (severity, what), members in groups.items()
    ]
    yield table(("severity", "files", "problem", "cure"), problems)
    yield "\n## What is there\n"
    facts: list[tuple[str, object]] = [
        ("records", summary.records),
        ("patients", summary.patients),
    ]
    for number, patients in sorted(summary.visits.items()):
        facts.append((f"patients with {number} records", patients))
    facts += [(name, _frequent(words)) for name, words in summary.words.items()]
    yield table(("fact", "values"), facts) + "\n"
    yield table(
        ("fact", "records", "minimum", "quartile 1", "median", "quartile 3", "maximum"),
        [
            (name, len(values), *(f"{v:.4g}" for v in list(_range(values).values())[1:]))
            for name, values in summary.numbers.items()
        ],
    )
    for (severity, what), members in groups.items():
        yield f"\n## {severity}: {what}\n"
        for finding in members[:LISTED]:
            detail = f": {literal(finding.detail)}" if finding.detail else ""
            yield f"- {literal(finding.file)}{detail}"
        if len(members) > LISTED:
            yield f"- and {len(members) - LISTED} more, in check_data.csv"
