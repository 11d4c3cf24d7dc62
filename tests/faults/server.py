"""Starts ``python -m vaelab.run`` again and again without importing everything again and again.

Reads one JSON request a line and answers each with one line: the exit status, negative for a
signal. A request is run in a fork of this process, which has imported everything and computed
nothing, so that no thread is lost in the fork. Within the fork a fault is armed: the process is
killed for real, at a moment that is counted and not timed.
"""

from __future__ import annotations

import fnmatch
import importlib
import json
import os
import resource
import signal
import sys
from pathlib import Path
from typing import Any

import torch

torch.set_num_threads(1)


def arm(fault: dict[str, Any]) -> None:
    """Have this process meet ``fault``.

    ``call``: "module:Class.method", at its ``nth`` call (from 1), before or ``after`` it.
    ``replace``: pattern of a file, at the ``nth`` time that one is about to appear: "before" with
    all of it written beside its place, "half" with half of it, or "after" it has appeared.
    ``signal``: what to send, SIGKILL unless said otherwise; to the ``group``: to workers too.
    ``limit``: size in bytes that no file may exceed, from the ``nth`` such moment on, instead of a
    signal.
    """
    left = fault.get("nth", 1)

    def strike() -> None:
        if "limit" in fault:
            _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
            resource.setrlimit(resource.RLIMIT_FSIZE, (fault["limit"], hard))
        else:
            kill = os.killpg if fault.get("group") else os.kill  # this process leads its group
            kill(os.getpid(), getattr(signal, fault.get("signal", "SIGKILL")))

    def due(matches: bool) -> bool:
        nonlocal left
        left -= matches
        return matches and left == 0

    if "replace" in fault:
        replace, mode = os.replace, fault["mode"]

        def replaced(source: Any, target: Any) -> None:
            now = due(fnmatch.fnmatch(str(target), fault["replace"]))
            if now and mode == "half":
                os.truncate(source, Path(source).stat().st_size // 2)
            if now and mode != "after":
                strike()
            replace(source, target)
            if now and mode == "after":
                strike()

        os.replace = replaced  # type: ignore[assignment]
    if "call" in fault:
        module, _, path = fault["call"].partition(":")
        owner: Any = importlib.import_module(module)
        *parents, name = path.split(".")
        for parent in parents:
            owner = getattr(owner, parent)
        original = getattr(owner, name)

        def called(*args: Any, **kwargs: Any) -> Any:
            now = due(True)
            if now and not fault.get("after"):
                strike()
            result = original(*args, **kwargs)
            if now and fault.get("after"):
                strike()
            return result

        setattr(owner, name, called)


def child(request: dict[str, Any]) -> int:
    """The command line, in this fork."""
    from vaelab import run

    os.setpgid(0, 0)
    os.chdir(request["cwd"])
    with Path(request["output"]).open("ab") as output:
        os.dup2(output.fileno(), 1)
        os.dup2(output.fileno(), 2)
    if request.get("fault"):
        arm(request["fault"])
    sys.argv = ["vaelab", *request["arguments"]]
    try:
        run.main()
    except SystemExit as stop:
        if isinstance(stop.code, str):
            sys.stderr.write(stop.code)
            return 1
        return int(stop.code or 0)
    return 0


def answer(line: object) -> None:
    """One line for whoever asked."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def main() -> None:
    """Serve until the input ends."""
    for name in ("vaelab.run", "vaelab.cli.job", "pydantic", "vaelab.tasks.train",
                 "vaelab.tasks.evaluate", "vaelab.tasks.report", "vaelab.tasks.report_card",
                 "vaelab.data.mri.brats", "vaelab.data.xray.chest_xray", "vaelab.data.phantoms.mri",
                 "vaelab.data.phantoms.xray"):  # fmt: skip
        importlib.import_module(name)
    answer("ready")
    for line in sys.stdin:
        process = os.fork()
        if process == 0:
            code = 70
            try:
                code = child(json.loads(line))
            except BaseException:
                import traceback

                traceback.print_exc()
            finally:
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(code)
        _, status = os.waitpid(process, 0)
        answer(os.waitstatus_to_exitcode(status))


if __name__ == "__main__":
    main()
