"""The command line: ``python -m vaelab.run``.

Compose the config, resolve it, seed, build the parts, hand them to the task (``vaelab.cli.job``).
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from vaelab.cli.config_files import CONF, folders_of, split_search_path
from vaelab.cli.help import help_text
from vaelab.cli.process import ended_by_sigterm, open_standard_streams
from vaelab.errors import UserError
from vaelab.runs.processes import announce, this_process

FULL = "HYDRA_FULL_ERROR"
"""Environment variable by which a user asks for tracebacks of what Hydra refuses."""


def main() -> None:
    """Entry point of the command line."""
    open_standard_streams()
    arguments = sys.argv[1:]
    with ended_by_sigterm():
        if "--help" in arguments or "-h" in arguments:
            _print_help(arguments)
            return
        process = this_process()
        if process.rank or process.launcher == "vaelab":
            from vaelab.cli.rank import train_as_rank

            sys.exit(train_as_rank(process))
        try:
            _run(arguments)
        finally:
            announce(None)  # to those who wait for a run to train, where there is none


def _print_help(arguments: list[str]) -> None:
    try:
        rest, places = split_search_path(arguments)
    except UserError as error:
        sys.exit(f"vaelab: {error}")
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="replace")  # the curves of annealing in ASCII
    folders = [CONF, *folders_of(places)]
    if "--json" in rest:
        from vaelab.cli.reference import read_reference

        print(json.dumps(read_reference(folders).to_json(), indent=2))  # noqa: T201
    else:
        print(help_text(folders, rest))  # noqa: T201


def _run(arguments: list[str]) -> None:
    import hydra  # here, because --help does without
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    from vaelab.cli.arguments import arguments_for
    from vaelab.cli.job import job
    from vaelab.cli.messages import explain
    from vaelab.cli.sweep import SweepRecord, close_sweep
    from vaelab.cli.sweep_table import KEYBOARD_INTERRUPT

    try:
        sys.argv[1:] = arguments_for(arguments)
        with _errors_raised():
            hydra.main(version_base="1.3", config_path=str(CONF), config_name="config")(job)()
    except Exception as error:
        # ValueError: what Hydra says of flags that exclude each other; OSError: of the run folder.
        expected = isinstance(
            error, (UserError, HydraException, OmegaConfBaseException, ValueError, OSError)
        )
        in_sweep = SweepRecord.open is not None  # a worker process has died, say
        if os.environ.get(FULL) == "1" or not (expected or in_sweep):
            raise
        sys.exit(f"vaelab: {explain(error, arguments)}")
    except KeyboardInterrupt:
        sys.exit(KEYBOARD_INTERRUPT)
    finally:
        close_sweep()  # where Hydra itself has failed, such as by the death of a worker process


@contextmanager
def _errors_raised() -> Iterator[None]:
    """Have Hydra raise its errors; it would print most of them with a traceback."""
    before = os.environ.get(FULL)
    os.environ[FULL] = "1"
    try:
        yield
    finally:
        os.environ.pop(FULL)
        if before is not None:
            os.environ[FULL] = before


if __name__ == "__main__":
    main()
