"""What ``${name:...}`` means in the config files, beyond Hydra's own.

Whatever process composes or runs a job has imported this file by then: the callback of
``vaelab.cli.sweep`` travels with the job.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from omegaconf import OmegaConf


def count(items: Sequence[Any]) -> int:
    """Number of items of a list: ``${count:${dataset.modalities}}``."""
    return len(items)


OmegaConf.register_new_resolver("count", count, replace=True)
