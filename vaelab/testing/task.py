"""Check a task against the contract."""

from __future__ import annotations

import inspect

from vaelab.assembly import PARTS, Task
from vaelab.testing.promises import promise


def check_task(task: type[Task]) -> None:
    """Hold a task's class to what ``vaelab.assembly.Task`` asks; it is not called.

    Raises:
        BrokenPromise: naming the promise.
    """
    promise(isinstance(task, type) and issubclass(task, Task),
            "a task is a subclass of vaelab.assembly.Task", task)  # fmt: skip
    unknown = [name for name in task.parts if name not in PARTS]
    promise(not unknown, f"parts are some of {', '.join(PARTS)}", ", ".join(unknown))
    promise(
        not (task.resumable and task.needs_trained_run),
        "a task that can be resumed makes a run folder of its own (needs_trained_run = False)",
    )
    promise(
        not task.needs_trained_run or "model" not in task.parts or "train" in task.parts,
        "a task that works on a trained network needs the part train, which names its weights",
    )
    promise(task.__call__ is not Task.__call__, "a task is called with a run")
    called = list(inspect.signature(task.__call__).parameters)
    promise(called[1:] == ["run"], "a task is called with one argument, run", called[1:])
    promise(bool(inspect.getdoc(task)), "a docstring says what the task writes")
    kinds = inspect.signature(task.__init__).parameters.values()
    promise(
        all(kind.kind is not inspect.Parameter.VAR_KEYWORD for kind in kinds)
        or task.__init__ is Task.__init__,
        "the constructor names its arguments, so that a wrong key is refused",
    )
