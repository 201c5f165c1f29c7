"""The run of an `AdvisedLR`: one that is handed to it, or a new one of a task."""

from __future__ import annotations

import mlrs
from mlrs import Advisor, Run
from mlrs.adapters import TaskOptions
from mlrs.errors import InvalidArgumentError
from mlrs.torch.ranks import Together, own_run


def run_of(
    given: object, together: Together | None, advisor: Advisor | None, options: TaskOptions
) -> Run | None:
    """Return the run of this process; `None`: another process talks to the daemon.

    Args:
        given: the run, or the name of a task, of which a run is made.
        together: the ranks that share the run; the first one makes it.
        advisor: makes it. Default: `mlrs.run`.
        options: those of a run that is made.

    Raises:
        InvalidArgumentError: `given` is neither, or an option goes with a run that was made before.
        MlrsError: as `Advisor.run`.
    """
    if isinstance(given, str):
        if together is not None and not together.is_first:
            return None
        return mlrs.run(given, advisor=advisor, **options)
    if advisor is not None or options:
        name = next(iter(options), "advisor")
        raise InvalidArgumentError(
            f"{name} is for a run that AdvisedLR makes of a task's name; this run was made with its options",
            field=name,
        )
    return own_run(given, together)
