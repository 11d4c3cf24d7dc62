"""How a broken promise is told."""

from __future__ import annotations


class BrokenPromise(AssertionError):  # noqa: N818  # named for what an author has to mend
    """A part does not keep the contract; says which promise, and what was seen."""


def promise(kept: object, text: str, seen: object = "") -> None:
    """Raise ``BrokenPromise`` unless ``kept``.

    Args:
        kept: whether the promise holds.
        text: the promise, as the contract has it.
        seen: what was seen instead.
    """
    if not kept:
        raise BrokenPromise(f"broken promise: {text}" + (f"; seen: {seen}" if seen != "" else ""))
