"""Progress bars: on a terminal, where they are asked for; never in a log file."""

from __future__ import annotations

import sys
from typing import Any

from tqdm import tqdm


def is_shown(asked: bool) -> bool:
    """Whether a bar has somebody who looks at it: into a file it writes thousands of fragments."""
    return asked and sys.stderr.isatty()


def progress(*arguments: Any, shown: bool, **options: Any) -> Any:
    """``tqdm`` that leaves nothing behind.

    Args:
        arguments: of ``tqdm``: what is gone through, its name, how many there are.
        shown: ``logging.progress_bar``.
        options: of ``tqdm``.
    """
    return tqdm(*arguments, leave=False, disable=not is_shown(shown), **options)
