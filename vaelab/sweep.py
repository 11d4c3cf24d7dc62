"""The table that closes a sweep: every job, what was varied, how it ended."""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path
from typing import Any

from hydra.core.utils import JobReturn
from hydra.experimental.callback import Callback
from omegaconf import DictConfig

from vaelab.atomic import replacing

log = logging.getLogger(__name__)

STATUS = "status.json"


def write_status(run_dir: Path, state: str, value: Any = None, error: str = "") -> None:
    """Say in ``<run>/status.json`` how a job ended: "done" with its value, or "failed" and why."""
    number = value if isinstance(value, float) else None
    content = {"state": state, "value": number, "error": error}
    with replacing(run_dir / STATUS) as partial:
        partial.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


class JobTable(Callback):
    """Hydra callback: collects the jobs of a sweep and logs a table when all have ended."""

    def __init__(self) -> None:
        self.jobs: list[tuple[list[str], Path]] = []

    def on_job_end(self, config: DictConfig, job_return: JobReturn, **kwargs: Any) -> None:
        """Remember one job."""
        hydra_cfg = job_return.hydra_cfg
        assert hydra_cfg is not None
        self.jobs.append(
            (list(job_return.overrides or []), Path(hydra_cfg.hydra.runtime.output_dir))
        )

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        """Log the table; leave with an error if a job has failed.

        Raises:
            SystemExit: with status 1 when at least one job has failed.
        """
        rows = [("job", "varied", "state", "best", "folder")]
        common = set.intersection(*(set(overrides) for overrides, _ in self.jobs))
        failed: list[str] = []
        for number, (overrides, folder) in enumerate(self.jobs):
            status = json.loads((folder / STATUS).read_text(encoding="utf-8"))
            best = "" if status["value"] is None else f"{status['value']:.6g}"
            varied = "  ".join(item for item in overrides if item not in common)
            rows.append((str(number), varied, status["state"], best, os.path.relpath(folder)))
            if status["state"] == "failed":
                failed.append(f"job {number} ({varied}): {status['error']}")
        widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
        for row in rows:
            cells = zip(row, widths, strict=True)
            log.info("%s", "  ".join(cell.ljust(width) for cell, width in cells).rstrip())
        for line in failed:
            log.error("%s", line)
        if failed:
            raise SystemExit(1)
