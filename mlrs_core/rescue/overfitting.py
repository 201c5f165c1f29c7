"""What tells from its validation losses that a training overfits, compiled: a few floats a run.

A validation loss that rises may be noise of a high learning rate, which ends well once the rate falls, or
overfitting, which stays. So a rise is checked: the learning rate falls for a while, and then the validation
loss says which of the two it was. All lengths are shares of the horizon; a run whose horizon is not known is
not watched, nor is one that tells no validation losses.

* A check begins when, `SPAN` or more after the lowest validation loss, the moving average of those since then
  is above it by `RISE`, and the training loss is lower than it was. Learning rates then fall in a straight
  line, within `COOLING`, to `COOL`.
* It ends with the first validation loss `CHECK` after its begin. If that is above the lowest one of before by
  more than `NOISE`, the training overfits, and an alarm is raised: it is to go back to the weights of the
  lowest validation loss. Learning rates are a quarter from there on. Otherwise they are what they were. A
  check that sees no validation loss in `LAPSE` ends in the same way.
* Late in a training, when the policy's own learning rates have fallen below half of their highest, no check
  is needed: a validation loss above the lowest one by `LATE_RISE` raises the alarm, once.

Rises are shares of the lowest loss, or of a hundredth of what the validation loss has fallen by since the
first one, if that is more.
"""

from __future__ import annotations

import math

from mlrs_core.compiled import compiled, wide
from mlrs_core.policy import States

RISE, NOISE, LATE_RISE = 0.05, 0.05, 0.15
"""How far a validation loss is above the lowest one: to be checked, to be overfitting after a check, and late
in a training."""
SPAN, LEAST = 0.12, 3
"""How long after the lowest validation loss a check begins at the earliest: a share of the horizon, and a
number of validation losses."""
LAST_CHECK, LATE = 0.62, 0.88
"""The share of the horizon after which no check begins, and that after which a training is late."""
COOLING, COOL = 0.05, 0.1
"""How long learning rates fall in a check, and to which share."""
CHECK, LAPSE = 0.08, 0.25
"""How long a check lasts at least, and at most."""
CHECKS, ALARMS = 2, 4
"""How many checks of a run may end without an alarm, and its most alarms."""
LOWERED = 0.25
"""What learning rates are multiplied by at an alarm."""
AVERAGED = 0.14
"""The span of the moving average: a share of the horizon, three validation losses at least."""
GAINED = 0.01
"""The share of what the validation loss has fallen by that rises are relative to at least."""

SIZE = 17
"""Floats of a run."""
(
    LOWERINGS,
    QUIET,
    SEEN,
    FIRST,
    LOWEST,
    LOSS_LOWEST,
    LOW,
    LOW_AT,
    LOSS_THEN,
    SINCE,
    MEAN,
    NEWEST_AT,
    LOSS,
    LOSSES,
    BEGAN,
    BEFORE,
    HIGHEST,
) = range(SIZE)
"""What the floats are.

`LOWERINGS`, `QUIET`   alarms so far; checks that ended without one
`SEEN`                 validation losses so far
`FIRST`, `LOWEST`      the first one, and the lowest
`LOSS_LOWEST`          the mean training loss before the lowest one
`LOW`                  the one that later ones are compared with: the lowest outside of checks since an alarm
`LOW_AT`, `LOSS_THEN`  when that was, as a share of the horizon, and the mean training loss before it
`SINCE`, `MEAN`        how many came since then, and their moving average
`NEWEST_AT`            when the newest came
`LOSS`, `LOSSES`       the mean training loss since then, and of how many
`BEGAN`, `BEFORE`      when the present check began, plus 1 (0: there is none), and the lowest one until then
`HIGHEST`              the highest learning rate of the policy so far; -1 after the late alarm
"""


@compiled
def note(memory: States, loss: float, learning_rate: float) -> None:
    """Take in a training loss and the policy's answer.

    Args:
        memory: (SIZE,), moved.
        loss: of the step; one that is not finite counts for nothing.
        learning_rate: of the policy, before anything lowers it.
    """
    if math.isfinite(loss):
        memory[LOSSES] += 1.0
        memory[LOSS] += (loss - memory[LOSS]) / memory[LOSSES]
        if memory[HIGHEST] >= 0.0:
            memory[HIGHEST] = max(wide(memory[HIGHEST]), learning_rate)


@compiled
def validated(memory: States, loss: float, learning_rate: float, step: int, horizon: int) -> bool:
    """Take in a validation loss; return whether it raises an alarm.

    Args:
        memory: (SIZE,), moved.
        loss: the newest validation loss at a step; NaN: there is none. An infinite one counts for nothing.
        learning_rate: of the policy at that step, before anything lowers it.
        step: from 0.
        horizon: the run's; -1: unknown.
    """
    if horizon <= 0 or not math.isfinite(loss):
        return False
    at = step / horizon
    alarm = False
    if memory[SEEN] == 0.0:
        memory[FIRST] = memory[LOWEST] = loss
        memory[LOSS_LOWEST] = memory[LOSS]
        _compare_with(memory, loss, memory[LOSS], at)
    else:
        if loss < memory[LOWEST]:
            memory[LOWEST], memory[LOSS_LOWEST] = loss, memory[LOSS]
        if memory[BEGAN] > 0.0 and at - (memory[BEGAN] - 1.0) > LAPSE:
            memory[BEGAN] = 0.0
            memory[QUIET] += 1.0
        if memory[BEGAN] > 0.0:
            alarm = _checked(memory, loss, at)
        else:
            alarm = _watched(memory, loss, learning_rate, at)
    memory[SEEN] += 1.0
    memory[NEWEST_AT] = at
    memory[LOSS] = memory[LOSSES] = 0.0
    return alarm


@compiled
def share(memory: States, step: int, horizon: int) -> float:
    """Return what learning rates are multiplied by at a step.

    Args:
        memory: (SIZE,).
        step: from 0.
        horizon: the run's; -1: unknown.
    """
    lowered: float = LOWERED ** wide(memory[LOWERINGS])
    if memory[BEGAN] == 0.0:
        return lowered
    since = step / horizon - (wide(memory[BEGAN]) - 1.0)
    if since > LAPSE:
        return lowered
    return lowered * max(1.0 - (1.0 - COOL) * since / COOLING, COOL)


@compiled
def _compare_with(memory: States, low: float, loss_then: float, at: float) -> None:
    """Compare later validation losses with this one, and training losses with the one of then."""
    memory[LOW], memory[LOSS_THEN], memory[LOW_AT], memory[SINCE] = low, loss_then, at, 0.0


@compiled
def _watched(memory: States, loss: float, learning_rate: float, at: float) -> bool:
    """Take in a validation loss outside of a check: it may begin one; return whether it raises an alarm."""
    if loss < memory[LOW]:
        _compare_with(memory, loss, memory[LOSS], at)
    else:
        memory[SINCE] += 1.0
        weight = min((at - memory[NEWEST_AT]) / AVERAGED, 1.0 / LEAST)
        memory[MEAN] += (loss - memory[MEAN]) * max(weight, 1.0 / memory[SINCE])
    if memory[LOWERINGS] >= ALARMS:
        return False
    if at < LAST_CHECK:
        has_waited = memory[SINCE] >= LEAST and at - memory[LOW_AT] >= SPAN and memory[QUIET] < CHECKS
        if (
            has_waited
            and memory[LOSS] < memory[LOSS_THEN]
            and _is_above(memory, memory[MEAN], memory[LOW], RISE)
        ):
            memory[BEGAN], memory[BEFORE] = 1.0 + at, memory[LOWEST]
        return False
    has_fallen = learning_rate < 0.5 * memory[HIGHEST]
    if at < LATE or not has_fallen or not _is_above(memory, loss, memory[LOWEST], LATE_RISE):
        return False
    memory[HIGHEST] = -1.0
    memory[LOWERINGS] += 1.0
    return True


@compiled
def _checked(memory: States, loss: float, at: float) -> bool:
    """Take in a validation loss of a check, which it may end; return whether it raises an alarm."""
    if at - (memory[BEGAN] - 1.0) < CHECK:
        return False
    memory[BEGAN] = 0.0
    if _is_above(memory, loss, memory[BEFORE], NOISE):
        memory[LOWERINGS] += 1.0
        _compare_with(memory, memory[LOWEST], memory[LOSS_LOWEST], at)
        return True
    memory[QUIET] += 1.0
    _compare_with(memory, max(wide(memory[LOW]), loss), memory[LOSS_THEN], at)
    return False


@compiled
def _is_above(memory: States, loss: float, lowest: float, rise: float) -> bool:
    """Return whether a validation loss is above another one by a share of it, or of what was gained."""
    gained = wide(memory[FIRST]) - memory[LOWEST]
    return bool(loss > lowest + rise * max(abs(lowest), GAINED * gained))
