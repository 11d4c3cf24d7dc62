"""Progress bars: on a terminal, where they are asked for; never in a log file."""

from __future__ import annotations

import sys
from typing import Any

from tqdm import tqdm

_job = ""


def set_job(name: str) -> None:
    """Name this process's job, where several draw bars side by side; "" for none."""
    global _job  # of the process
    _job = name


def titled(title: str) -> str:
    """A bar's title, after the name of the job where there are several."""
    return f"{_job}: {title}" if _job else title


def is_shown(asked: bool) -> bool:
    """Whether a bar has somebody who looks at it: into a file it writes thousands of fragments."""
    return asked and sys.stderr.isatty()


class _Bar(tqdm):
    def __init__(self, iterable: Any = None, desc: str = "", *arguments: Any, **options: Any):
        super().__init__(iterable, titled(desc), *arguments, **options)


def progress(*arguments: Any, shown: bool, **options: Any) -> Any:
    """``tqdm`` that leaves nothing behind.

    Args:
        arguments: of ``tqdm``: what is gone through, its name, how many there are.
        shown: ``logging.progress_bar``.
        options: of ``tqdm``.
    """
    return _Bar(*arguments, leave=False, disable=not is_shown(shown), **options)
