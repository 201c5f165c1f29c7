"""What tells from its validation losses that a training overfits, compiled: a few floats a run.

A validation loss that rises may be noise of a high learning rate, which ends well once the rate falls, or
overfitting, which stays. So a rise is checked: the learning rate falls for a while, and then the validation
loss says which of the two it was. All lengths are shares of the horizon; a run whose horizon is not known is
not watched, nor is one that tells no validation losses.

* A check begins when, `SPAN` or more after the lowest validation loss, the moving average of those since then
  is above it by `RISE`, and the training loss is lower than it was. Learning rates then fall in a straight
  line, within `COOLING`, to `COOL`.
* From `CHECK` after its begin on, the mean of the validation losses at that rate decides. If it is above the
  lowest one of before by less than `NOISE`, all is well, and learning rates are what they were. If it is also
  above it by `TURNS` times the usual turn (how far successive validation losses go up and down), the training
  overfits, and an alarm is raised: it is to go back to the weights of the lowest validation loss. Learning
  rates are a quarter from there on. In between, the mean with the next one decides, as noise may also be of
  the validation: of examples that are drawn anew each time. Where none has decided in `LAPSE`, all is well.

Rises are shares of the lowest loss, or of a hundredth of what the validation loss has fallen by since the
first one, if that is more.
"""

from __future__ import annotations

from mlrs_core.compiled import compiled, wide
from mlrs_core.policy import States

RISE, NOISE = 0.05, 0.05
"""How far validation losses are above the lowest one: to be checked, and to be overfitting after a check."""
TURNS = 8.0
"""How many usual turns they are above it, to be overfitting. Of Gaussian noise that is the same at any
learning rate, the lowest of 100 is 4.5 turns below the mean, and the lowest of ten 2.8."""
SPAN, LEAST = 0.12, 3
"""How long after the lowest validation loss a check begins at the earliest: a share of the horizon, and a
number of validation losses."""
LAST_CHECK = 0.62
"""The share of the horizon after which no check begins."""
COOLING, COOL = 0.05, 0.1
"""How long learning rates fall in a check, and to which share."""
CHECK, LAPSE = 0.08, 0.16
"""How long a check lasts at least, and at most."""
CHECKS, ALARMS = 2, 4
"""How many checks of a run may end without an alarm, and its most alarms."""
LOWERED = 0.25
"""What learning rates are multiplied by at an alarm."""
AVERAGED = 0.14
"""The span of moving averages: a share of the horizon, three validation losses at least."""
GAINED = 0.01
"""The share of what the validation loss has fallen by that rises are relative to at least."""
LARGEST = 1e30
"""A loss beyond it counts for nothing, as float32 could not hold sums of some."""

SIZE = 19
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
    NEWEST,
    NEWEST_AT,
    CHANGE,
    TURN,
    LOSS,
    LOSSES,
    BEGAN,
    BEFORE,
) = range(SIZE)
"""What the floats are.

`LOWERINGS`, `QUIET`   alarms so far; checks that ended without one
`SEEN`                 validation losses so far
`FIRST`, `LOWEST`      the first one, and the lowest
`LOSS_LOWEST`          the mean training loss before the lowest one
`LOW`                  the one that later ones are compared with: the lowest outside of checks, since an alarm
                       or a check
`LOW_AT`, `LOSS_THEN`  when that was, as a share of the horizon, and the mean training loss before it
`SINCE`, `MEAN`        how many came since then, and their moving average; in a check, how many came since
                       learning rates are low, and their mean
`NEWEST`, `NEWEST_AT`  the newest, and when it came
`CHANGE`               by how much it is above the one before
`TURN`                 the moving average of turns: the smaller of two changes of opposite sign, otherwise 0
`LOSS`, `LOSSES`       the mean training loss since the newest one, and of how many
`BEGAN`, `BEFORE`      when the present check began, plus 1 (0: there is none), and the lowest one until then
"""


@compiled
def note(memory: States, loss: float) -> None:
    """Take in a training loss.

    Args:
        memory: (SIZE,), moved.
        loss: of the step; one that is not finite, or beyond `LARGEST`, counts for nothing.
    """
    if abs(loss) <= LARGEST:
        memory[LOSSES] += 1.0
        memory[LOSS] += (loss - memory[LOSS]) / memory[LOSSES]


@compiled
def validated(memory: States, loss: float, step: int, horizon: int) -> bool:
    """Take in a validation loss; return whether it raises an alarm.

    Args:
        memory: (SIZE,), moved.
        loss: the newest validation loss at a step; NaN: there is none. Beyond `LARGEST` it is ignored.
        step: from 0.
        horizon: the run's; -1: unknown.
    """
    if horizon <= 0 or not abs(loss) <= LARGEST:
        return False
    at = step / horizon
    alarm = False
    if memory[SEEN] == 0.0:
        memory[FIRST] = memory[LOWEST] = loss
        memory[LOSS_LOWEST] = memory[LOSS]
        _compare_with(memory, loss, memory[LOSS], at)
    else:
        change = loss - wide(memory[NEWEST])
        turn = min(abs(change), abs(wide(memory[CHANGE]))) if change * memory[CHANGE] < 0.0 else 0.0
        memory[TURN] += (turn - memory[TURN]) * _weight(memory, at, memory[SEEN])
        memory[CHANGE] = change
        if loss < memory[LOWEST]:
            memory[LOWEST], memory[LOSS_LOWEST] = loss, memory[LOSS]
        if memory[BEGAN] > 0.0 and at - (memory[BEGAN] - 1.0) > LAPSE:
            _end_well(memory, at)
        if memory[BEGAN] > 0.0:
            alarm = _checked(memory, loss, at)
        else:
            _watch(memory, loss, at)
    memory[SEEN] += 1.0
    memory[NEWEST], memory[NEWEST_AT] = loss, at
    memory[LOSS] = memory[LOSSES] = 0.0
    return alarm


@compiled
def went_back(memory: States, step: int, horizon: int) -> None:
    """Note that the training went back to a saved state: that of the lowest validation loss, if any was told.

    Args:
        memory: (SIZE,), moved.
        step: the first one from there on.
        horizon: the run's; -1: unknown.
    """
    if horizon > 0 and memory[SEEN] > 0.0:
        memory[BEGAN] = memory[LOSS] = memory[LOSSES] = 0.0
        memory[NEWEST], memory[CHANGE] = memory[LOWEST], 0.0
        _compare_with(memory, memory[LOWEST], memory[LOSS_LOWEST], step / horizon)


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
def _weight(memory: States, at: float, count: float) -> float:
    """Return the weight of a validation loss in a moving average that is of so many with it."""
    weight: float = max(min((at - wide(memory[NEWEST_AT])) / AVERAGED, 1.0 / LEAST), 1.0 / count)
    return weight


@compiled
def _watch(memory: States, loss: float, at: float) -> None:
    """Take in a validation loss outside of a check: it may begin one."""
    if loss < memory[LOW]:
        _compare_with(memory, loss, memory[LOSS], at)
    else:
        memory[SINCE] += 1.0
        memory[MEAN] += (loss - memory[MEAN]) * _weight(memory, at, memory[SINCE])
    if memory[LOWERINGS] >= ALARMS or memory[QUIET] >= CHECKS or at >= LAST_CHECK:
        return
    has_waited = memory[SINCE] >= LEAST and at - memory[LOW_AT] >= SPAN
    fits_better = memory[LOSS] < memory[LOSS_THEN]
    if has_waited and fits_better and _is_above(memory, memory[MEAN], memory[LOW], RISE):
        memory[BEGAN], memory[BEFORE] = 1.0 + at, memory[LOWEST]
        memory[SINCE] = 0.0


@compiled
def _checked(memory: States, loss: float, at: float) -> bool:
    """Take in a validation loss of a check, which it may end; return whether it raises an alarm."""
    since = at - (memory[BEGAN] - 1.0)
    if since < COOLING:
        return False
    memory[SINCE] += 1.0
    memory[MEAN] += (loss - memory[MEAN]) / memory[SINCE]
    if since < CHECK:
        return False
    if not _is_above(memory, memory[MEAN], memory[BEFORE], NOISE):
        _end_well(memory, at)
        return False
    if memory[MEAN] - memory[BEFORE] < TURNS * memory[TURN]:
        return False
    memory[BEGAN] = 0.0
    memory[LOWERINGS] += 1.0
    _compare_with(memory, memory[MEAN], memory[LOSS], at)  # unless a copy is put back
    return True


@compiled
def _end_well(memory: States, at: float) -> None:
    """End a check without an alarm."""
    level = max(wide(memory[LOW]), wide(memory[MEAN])) if memory[SINCE] > 0.0 else wide(memory[LOW])
    memory[BEGAN] = 0.0
    memory[QUIET] += 1.0
    _compare_with(memory, level, memory[LOSS_THEN], at)


@compiled
def _is_above(memory: States, loss: float, lowest: float, rise: float) -> bool:
    """Return whether a validation loss is above another one by a share of it, or of what was gained."""
    gained = wide(memory[FIRST]) - memory[LOWEST]
    return bool(loss > lowest + rise * max(abs(lowest), GAINED * gained))
