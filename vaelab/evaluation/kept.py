"""Files that a run keeps of its judgement: each says which weights and which score it is of."""

from __future__ import annotations

import json
from collections.abc import Mapping
from inspect import signature
from pathlib import Path
from typing import Any

from vaelab.assembly import Run
from vaelab.data.identity import digest_of
from vaelab.errors import UserError


def describe_score(score: Any) -> dict[str, Any]:
    """Class and constructor arguments of a score, as JSON; what it learned is left out."""
    arguments = {}
    for name in signature(type(score)).parameters:
        value = getattr(score, name, None)
        if isinstance(value, Mapping):
            value = {key: describe_score(member) for key, member in value.items()}
        if isinstance(value, tuple):
            value = list(value)
        arguments[name] = value
    return {"score": type(score).__name__, "arguments": arguments}


def judged_by(run: Run) -> dict[str, Any]:
    """What a score of this run depends on."""
    return describe_score(run.score) | {"weights_sha256": digest_of(run.weights)}


def read_kept(path: Path) -> dict[str, Any]:
    """The content of such a file.

    Raises:
        UserError: when it is damaged.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{path}: not a JSON file ({error}); calibrate the run anew") from error
    if not isinstance(content, dict):
        raise UserError(f"{path}: holds no table of values; calibrate the run anew")
    return content
