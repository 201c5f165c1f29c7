"""The fallback: where a run's learning rates come from while no daemon can be reached."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from mlrs import schedules
from mlrs.errors import InvalidArgumentError
from mlrs.values import arguments as check
from mlrs.values.types import RunConfig, Schedule, ScheduleKind


@dataclass(frozen=True, slots=True)
class Fallback:
    """A source of learning rates without a daemon."""

    rate: Callable[[int], Any] | None
    """Returns the rate of a step: a number, or one for each run of a sweep. `None`: the last advised."""

    def lr(self, step: int, last: Any) -> Any:
        """Return the learning rate, or rates, of a step; `None`: there is none before the first advice."""
        return last if self.rate is None else self.rate(step)


def fallback_of(value: Any, configs: Sequence[RunConfig]) -> Fallback | None:
    """Return the checked fallback of runs with these configs; `None`: errors are raised.

    Raises:
        InvalidArgumentError: it is no fallback, or a schedule that cannot be computed here.
    """
    if isinstance(value, str) and value == "auto":
        value = "error" if any(config.ranks for config in configs) else "last"
    if value is None or (isinstance(value, str) and value == "error"):
        return None
    if isinstance(value, str) and value == "last":
        return Fallback(None)
    if isinstance(value, Schedule):
        rates = {config: _rate(check.schedule(value), config) for config in configs}
        if len(rates) == 1:
            return Fallback(*rates.values())
        return Fallback(lambda step: [rates[config](step) for config in configs])
    if callable(value):
        return Fallback(value)
    raise InvalidArgumentError(
        f"fallback must be 'last', 'error', a Schedule or a function of the step; is {value!r:.100}",
        field="fallback",
    )


def checked_lr(value: Any) -> float:
    """Return a learning rate of a fallback; raises `InvalidArgumentError` if it is none."""
    try:
        rate = float(value)
    except (TypeError, ValueError, OverflowError) as error:
        raise wrong_rate(value) from error
    if not math.isfinite(rate) or rate < 0.0:
        raise wrong_rate(value)
    return rate


def wrong_rate(value: Any) -> InvalidArgumentError:
    """Return the error for a fallback's result that is no learning rate."""
    return InvalidArgumentError(
        f"fallback must return finite learning rates >= 0; returned {value!r:.100}", field="fallback"
    )


def _rate(schedule: Schedule | None, config: RunConfig) -> Callable[[int], float]:
    """Return a schedule as a function of the step, with the offset and the bounds of a config."""
    assert schedule is not None  # noqa: S101 # for the type checker: it was given
    function = getattr(schedules, ScheduleKind(str(schedule.kind)).value.replace("-", "_"), None)
    if function is None:
        raise InvalidArgumentError(
            f"fallback: {schedule.kind} depends on the losses and cannot be computed without a daemon; take"
            " another kind",
            field="fallback",
        )
    given = {name: value for name, value in vars(schedule).items() if value is not None and name != "kind"}
    if "base_lr" not in given:
        own = config.initial_lr or (config.schedule.base_lr if config.schedule else None)
        if own is None:
            raise InvalidArgumentError("fallback: give its Schedule a base_lr", field="fallback")
        given["base_lr"] = own
    known = inspect.signature(function).parameters
    if config.horizon is not None and "horizon" in known:
        given["horizon"] = config.horizon
    if extra := given.keys() - known.keys():
        raise InvalidArgumentError(
            f"fallback: {min(extra)} is no parameter of {schedule.kind}", field="fallback"
        )
    if "horizon" in known and "horizon" not in given and known["horizon"].default is inspect.Parameter.empty:
        raise InvalidArgumentError(f"fallback: {schedule.kind} needs the run's horizon", field="fallback")
    least, most = config.min_lr or 0.0, math.inf if config.max_lr is None else config.max_lr

    def rate(step: int) -> float:
        return min(max(float(function(step, **given)) * config.factor, least), most)

    rate(0)  # raises for wrong parameters
    return rate
