"""The error of a part that breaks its contract."""

from __future__ import annotations


class BrokenPromise(AssertionError):  # noqa: N818  # named for what an author has to correct
    """A part breaks its contract; the message names the promise and what was observed instead."""


def promise(kept: object, text: str, seen: object = "") -> None:
    """Raise ``BrokenPromise`` unless ``kept``.

    Args:
        kept: whether the promise holds.
        text: the promise.
        seen: what was observed instead.
    """
    if not kept:
        raise BrokenPromise(f"broken promise: {text}" + (f"; seen: {seen}" if seen != "" else ""))
