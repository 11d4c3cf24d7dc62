"""``task=train``: fit the model, then look at what it learned."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from vaelab.assembly import PARTS, Run, Task
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
        result = fit(
            run.folder, run.data, run.model, run.objective, run.annealing, run.optimizer,
            run.hardware, run.train, run.logging, run.loggers, run.callbacks, run.resume,
        )  # fmt: skip
        for task in self.then.values():
            task(run)
        return result
