"""The learning rate alone, for loops that set it themselves."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack, suppress

from mlrs.adapters import TrialLoop
from mlrs.api.advisor import Advisor, connect
from mlrs.errors import MlrsError
from mlrs.values.search_types import SearchResult
from mlrs.values.types import Optimizer


def suggest(
    loop: TrialLoop,
    *,
    horizon: int,
    optimizer: Optimizer | str | None = None,
    momentum: float | None = None,
    initial_lr: float | None = None,
    advisor: Advisor | str | None = None,
    start: str | Callable[[], str] | None = None,
) -> SearchResult:
    """Find a learning rate for a loop that follows a schedule of its own, as a learning-rate finder does.

    It makes the trials of `Run.search`, and leaves the loop as it was and no run behind.

        found = mlrs.suggest(loop, horizon=10_000, optimizer="adamw")
        train(found.learning_rate)   # yours

    Args:
        loop: makes the trials: four methods, see `mlrs.adapters.TrialLoop`.
        horizon: the number of steps that the training will have.
        optimizer: the update rule.
        momentum: its momentum (for Adam, beta 1).
        initial_lr: where trials begin. Default: a multiple of what the optimizer's users start from.
        advisor: the daemon, connected or by its address. Default: as `connect()` finds it.
        start: as for `Run.search`.

    Returns:
        The learning rate, for a schedule that warms up and falls in the end, and the trials.

    Raises:
        InvalidArgumentError: an argument is out of range.
        UnavailableError, DeadlineExceededError: no daemon answers.
    """
    with ExitStack() as held:
        if not isinstance(advisor, Advisor):
            advisor = held.enter_context(connect(advisor))
        run = advisor.run(
            "suggest",
            horizon=horizon,
            optimizer=optimizer,
            momentum=momentum,
            initial_lr=initial_lr,
            fallback=None,
        )
        try:
            return run.search(loop, start=start, always=True)
        finally:
            run.detach()
            with suppress(MlrsError):  # a daemon that went away keeps a run without steps
                advisor.delete_run(run.id)
