"""The machine of a benchmark, and how long a new interpreter takes to start on it."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import torch

import vaelab
from vaelab.benchmark.timing import time_in_turn

START_UP = {
    "hydra": ["-c", "import hydra"],
    "help": ["-m", "vaelab.run", "--help"],
    "full": ["-c", "import vaelab.tasks.train, vaelab.data.mri.brats"],
}
"""Name → arguments of a new interpreter."""


def machine(device: torch.device) -> dict[str, Any]:
    """Hardware and software of the machine."""
    name = platform.processor() or platform.machine()
    if Path("/proc/cpuinfo").is_file():
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
        name = next((line.split(": ")[1] for line in lines if line.startswith("model name")), name)
    return {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "cpu": name,
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "load_average": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        "platform": platform.platform(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "date": time.strftime("%Y-%m-%d"),
    }


def start_up(rounds: int) -> dict[str, Any]:
    """Seconds of ``import hydra``, of ``--help`` and of all imports of training; their ratios."""
    places = [str(Path(vaelab.__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, places))}

    def start(arguments: list[str]) -> None:
        command = [sys.executable, *arguments]
        subprocess.run(command, check=True, capture_output=True, env=environment)  # noqa: S603

    calls = {name: partial(start, arguments) for name, arguments in START_UP.items()}
    if rounds > 1:
        for call in calls.values():  # byte code and the page cache
            call()
    times = time_in_turn(calls, min(rounds, 3), warm_up=False)
    return {
        "help_over_hydra": times["help"].over(times["hydra"]).summary(),
        "full_over_hydra": times["full"].over(times["hydra"]).summary(),
        "seconds": {name: timing.summary() for name, timing in times.items()},
    }
