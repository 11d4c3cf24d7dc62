"""Writes a module as ONNX and as ``torch.export`` archive, and runs what was written."""

from __future__ import annotations

import importlib.util
import io
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from vaelab.atomic import replacing
from vaelab.errors import UserError

PACKAGES = ("onnx", "onnxscript", "onnxruntime")
ONNX, TORCH = ".onnx", ".pt2"
MOST_BYTES = 1_900_000_000
"""Of weights: a file of ONNX is one message of Protocol Buffers."""


class Graph(NamedTuple):
    """A module with what an exporter has to know of it."""

    module: nn.Module
    """Of one tensor; returns one, or several."""
    example: Tensor
    """An input, of at least two samples."""
    input_axes: Sequence[str]
    """Name of each axis that may have any length, from the first on; the others are fixed."""
    input_name: str
    outputs: Sequence[str]


class CannotExport(UserError):  # noqa: N818
    """An operation that has no place in a graph."""


def check_installed() -> None:
    """Raise ``UserError`` unless the packages of the extra are there."""
    missing = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise UserError(f"task=export needs {', '.join(missing)}: pip install 'vaelab[export]'")


def versions() -> dict[str, str]:
    """Package → version of those that an export depends on."""
    return {name: version(name) for name in ("torch", *PACKAGES)}


def write_graph(graph: Graph, stem: Path) -> None:
    """Write ``<stem>.onnx`` and ``<stem>.pt2``.

    Raises:
        CannotExport: when the module does what a graph cannot hold, or is too large for a file.
    """
    size = sum(weight.numel() * weight.element_size() for weight in graph.module.parameters())
    if size > MOST_BYTES:
        raise CannotExport(f"{stem.name}: {size / 1e9:.1f} GB, and a file of ONNX holds 2 GB")
    axes = {
        place: torch.export.Dim(name, min=1) if place == 0 else torch.export.Dim.DYNAMIC
        for place, name in enumerate(graph.input_axes)
    }
    try:
        with _quiet(), torch.no_grad():
            program = _program(graph, axes)
            onnx = torch.onnx.export(
                program, dynamo=True, verbose=False,
                input_names=[graph.input_name], output_names=list(graph.outputs),
            )  # fmt: skip
    # Any error of the exporters: what they refuse is what somebody's own code does.
    except Exception as error:
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise CannotExport(f"{stem.name}: cannot be a graph ({reason})") from error
    assert onnx is not None
    with _quiet(), replacing(stem.with_suffix(TORCH)) as unfinished:
        archive = io.BytesIO()  # by name it would demand the suffix
        torch.export.save(program, archive)
        unfinished.write_bytes(archive.getbuffer())
    with _quiet(), replacing(stem.with_suffix(ONNX)) as unfinished:
        onnx.save(str(unfinished), external_data=False)


def _program(graph: Graph, axes: Mapping[int, Any]) -> torch.export.ExportedProgram:
    """By running the module; where that takes ``len(x)`` for a constant, by reading its code."""
    arguments: dict[str, Any] = {"args": (graph.example,), "dynamic_shapes": (axes,)}
    try:
        return torch.export.export(graph.module, strict=False, **arguments)
    except Exception:
        return torch.export.export(graph.module, strict=True, **arguments)


def run_onnx(path: Path, x: NDArray[np.float32]) -> Mapping[str, NDArray[Any]]:
    """Name → output of a written graph, computed by ONNX Runtime on the CPU."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, {session.get_inputs()[0].name: x}), strict=True))


def run_archive(path: Path, x: NDArray[np.float32]) -> list[NDArray[Any]]:
    """Outputs of a written ``torch.export`` archive."""
    with _quiet():
        outputs = torch.export.load(path).module()(torch.from_numpy(x))
    several = (outputs,) if isinstance(outputs, Tensor) else tuple(outputs)
    return [output.detach().numpy() for output in several]


@contextmanager
def _quiet() -> Iterator[None]:
    """Without what the exporters say to their developers, on the console and in the log."""
    loggers = [logging.getLogger(name) for name in ("torch", "torch.onnx", "onnxscript", "onnx_ir")]
    before = [logger.level for logger in loggers]
    with warnings.catch_warnings(), redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            for logger, level in zip(loggers, before, strict=True):
                logger.setLevel(level)
