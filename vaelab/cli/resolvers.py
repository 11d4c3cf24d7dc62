"""Resolvers of ``${name:...}`` in config files, in addition to Hydra's own.

Every process that composes or runs a job has imported this file: the callback of
``vaelab.cli.sweep`` is part of the job's config.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from omegaconf import OmegaConf


def count(items: Sequence[Any]) -> int:
    """Number of items of a list: ``${count:${dataset.modalities}}``."""
    return len(items)


OmegaConf.register_new_resolver("count", count, replace=True)
