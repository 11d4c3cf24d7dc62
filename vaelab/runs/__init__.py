"""A run folder on disk: its names, its status, its history, what it holds."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vaelab.cli.loaded import LoadedRun


def load(run_dir: str | os.PathLike[str]) -> LoadedRun:
    """A trained run as objects, for a notebook.

    >>> run = load("outputs/<run>")  # doctest: +SKIP
    >>> run.data.setup("test")  # doctest: +SKIP
    >>> batch = next(iter(run.data.test_dataloader()))  # doctest: +SKIP
    >>> x_hat, mu, logvar = run.model(batch["image"])  # doctest: +SKIP

    Returns:
        ``model``, with its best weights and in evaluation mode, ``data``, ``config`` and
        ``metrics``; see ``LoadedRun``.

    Raises:
        UserError: when there is no trained run, or its parts may not be built here.
    """
    # The one import that goes up: building parts from a config is the command line's alone.
    from vaelab.cli.loaded import load_run

    return load_run(run_dir)
