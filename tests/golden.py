"""The golden curve: two epochs of both systems on phantoms, and how the networks are judged.

``tests/test_equality.py`` compares this with ``golden.json``, which a change that is meant to
change results writes anew, from the root of the checkout:

    OMP_NUM_THREADS=1 python -m tests.golden > tests/golden.json
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import tempfile
from collections.abc import Callable
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import torch
from hydra.core.global_hydra import GlobalHydra

from tests.conftest import TINY_MRI, TINY_XRAY
from vaelab import run
from vaelab.runs.history import read_history

STORED = Path(__file__).with_suffix(".json")
SYSTEMS = {"mri": TINY_MRI, "xray": TINY_XRAY}
CURVES = ("train/recon", "train/kl", "val/recon", "val/kl")


def curves(system: str, folder: Path, call: Callable[..., object]) -> dict[str, Any]:
    """Train and judge a system: its sums of each epoch, its metrics, a hash of its weights.

    Args:
        system: one of ``SYSTEMS``.
        folder: for phantoms and run; an empty one.
        call: runs the command line on its arguments.
    """
    run_dir = folder / system
    call(*SYSTEMS[system], f"dataset.root_dir={folder}", f"run_dir={run_dir}", "~task.then")
    call("task=evaluate", f"run_dir={run_dir}")
    history = read_history(run_dir / "logs" / "metrics.csv")
    metrics = json.loads((run_dir / "metrics.json").read_text())
    last = torch.load(run_dir / "checkpoints" / "last.ckpt", weights_only=True)
    digest = hashlib.sha256()
    for weight in last["state_dict"].values():
        digest.update(weight.contiguous().numpy().tobytes())
    return {
        "curves": {name: history[name] for name in CURVES},
        "reconstruction": metrics["reconstruction"],
        "weights": digest.hexdigest(),
    }


def command_line(*arguments: str) -> None:
    """``python -m vaelab.run`` in this process."""
    GlobalHydra.instance().clear()
    sys.argv = ["vaelab", *arguments]
    run.main()


def main() -> None:
    """Print both systems as JSON; all else that is said goes to standard error."""
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    with tempfile.TemporaryDirectory() as folder, redirect_stdout(sys.stderr):
        results = {system: curves(system, Path(folder), command_line) for system in SYSTEMS}
    sys.stdout.write(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
