"""``task=train``: fit the model, then look at what it learned."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from vaelab.assembly import PARTS, Run, Task
from vaelab.runs.processes import announce, this_process
from vaelab.runs.ranks import train_in_processes
from vaelab.training.fit import fit


class Train(Task):
    """Fits the model and runs further tasks on the result.

    Args:
        then: name → task to run afterwards, in order.
    """

    parts = tuple(name for name in PARTS if name != "score")  # which tasks of ``then`` declare
    needs_trained_run = False
    resumable = True

    def __init__(self, then: Mapping[str, Callable[[Run], object]] | None = None) -> None:
        self.then = dict(then or {})

    def __call__(self, run: Run) -> float:
        """Train; return the best value of ``train.monitor``, smaller being better.

        Raises:
            UserError: see ``fit``.
            Interrupted: after SIGTERM; the run can be resumed.
        """
        process = this_process()
        count = run.hardware.check_processes(process.world_size if process.launcher else 0)
        if process.rank == 0:
            run.data.setup()  # writes the split that all processes read
            announce(run.folder)
        if count > 1 and not process.launcher:
            result = train_in_processes(run.folder, count)
        else:
            result = fit(
                run.folder, run.data, run.model, run.objective, run.annealing, run.optimizer,
                run.hardware, run.train, run.logging, run.loggers, run.callbacks, run.resume,
            )  # fmt: skip
        if process.rank or process.launcher == "vaelab":
            return result  # what comes after training is done once, by one process
        for task in self.then.values():
            task(run)
        return result
