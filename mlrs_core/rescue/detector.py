"""What tells from its losses that a training blew up, compiled: a few floats a run, moved once a step.

Losses may have any sign and scale. So each is taken as a level, asinh(loss / scale), with the geometric
mean of the first losses as the scale: near 0 a level is the loss in that unit, further out its logarithm. A
fast and a slow moving average follow the levels, and the usual deviation from the slow one. Lengths are
shares of the horizon; an unknown horizon counts as `UNKNOWN_HORIZON` steps, or as the steps so far once
these are more.

An alarm is raised by

* two losses in a row that are not finite. Each counts as half of the steps of a jump. One alone may be that
  of a step that a mixed-precision training skipped, and whose weights are fine;
* a jump: for `STAY` in a row, levels were above the slow average by `FAR` and by `DEVIATIONS` usual
  deviations. Both stand still meanwhile. A training that has gained nothing yet must jump by
  `FAR_AT_FIRST`: at a high rate some rise a hundredfold at first, stay there, and end well;
* a dead network: for `DIES` in a row, the fast average had lost nine tenths of what the slow one had ever
  gained on the first losses.

After an alarm the run is waited for: for `PATIENCE` nothing is an alarm, and the slow average stands still.
It goes on where it was once the training says that it has restored a saved state; otherwise it begins anew
at the level of then. A run raises at most `MOST` alarms.
"""

from __future__ import annotations

import math

from mlrs_core.compiled import clip, compiled, wide
from mlrs_core.policy import States

MOST = 3
"""The most alarms of a run."""
STAY, DIES, PATIENCE, MEMORY = 0.01, 0.2, 0.1, 0.05
"""Shares of the horizon: how long a jump stays, how long a network is dead, how long a run is waited for
after an alarm, and the span of the slow average. The span of the fast one is that of `STAY`."""
LEAST_STAY, LEAST_LONG = 5.0, 50.0
"""The least steps of `STAY`, and of the other three (of `MEMORY` half of it)."""
LONGEST = 100_000.0
"""No length is more steps than this: averages in single precision would hardly move."""
FAR, FAR_AT_FIRST = 1.5, 8.0
"""How high a jump is at least, in levels, after the training has gained something and before."""
DEVIATIONS = 6.0
"""How high a jump is at least, in usual deviations."""
GAINED = 0.1
"""A training has gained if its slow average fell by this much from the first losses, in levels, and by a
usual deviation."""
LOST = 0.9
"""The share of its gain that a dead network has lost."""
UNKNOWN_HORIZON = 1000
"""What a horizon that is not known counts as, in steps, until the run is longer."""

SIZE = 11
"""Floats of a run."""
RESCUES, WAIT, SEEN, SCALE, FIRST, LOWEST, FAST, SLOW, DEVIATION, ABOVE, DEAD = range(SIZE)
"""What the floats are: alarms so far; steps that are still waited; finite losses so far; the scale, and its
logarithm until it is known; the first level; the lowest slow average; both averages; the usual deviation; and
for how many steps in a row the level was far above or not finite, and the network was dead."""


@compiled
def take_in(memory: States, loss: float, restored: bool, step: int, horizon: int) -> bool:  # noqa: FBT001
    """Move a run by a loss; return whether it raises an alarm.

    Args:
        memory: (SIZE,), moved.
        loss: of the step; any value.
        restored: whether the training restored a saved state before it.
        step: from 0.
        horizon: the run's; -1: unknown.
    """
    total = horizon if horizon > 0 else max(step + 1, UNKNOWN_HORIZON)
    if restored:
        memory[WAIT], memory[ABOVE], memory[DEAD] = 0.0, 0.0, 0.0
        memory[FAST] = memory[SLOW]
    waits = memory[WAIT] > 0.0
    if math.isfinite(loss):
        alarm = _moved(memory, loss, total, waits)
    else:
        stay = _length(STAY, total, LEAST_STAY)
        memory[ABOVE] += math.ceil(0.5 * stay)
        alarm = memory[ABOVE] >= stay
    if waits:
        memory[WAIT] -= 1.0
        if memory[WAIT] == 0.0:
            memory[SLOW], memory[ABOVE], memory[DEAD] = memory[FAST], 0.0, 0.0
        return False
    if not alarm or memory[RESCUES] >= MOST:
        return False
    memory[RESCUES] += 1.0
    memory[WAIT] = _length(PATIENCE, total, LEAST_LONG)
    return True


@compiled
def _moved(memory: States, loss: float, horizon: int, waits: bool) -> bool:  # noqa: FBT001
    """Move the averages by a finite loss; return whether it completes a jump, or the network is dead."""
    stay = _length(STAY, horizon, LEAST_STAY)
    seen = min(wide(memory[SEEN]) + 1.0, 2.0 * LONGEST)
    memory[SEEN] = seen
    if seen <= stay:
        memory[ABOVE] = 0.0
        memory[SCALE] += (math.log(clip(abs(loss), 1e-30, 1e30)) - memory[SCALE]) / seen
        if seen == stay:
            memory[SCALE] = math.exp(wide(memory[SCALE]))
            memory[FIRST] = math.asinh(math.copysign(1.0, loss))
            memory[LOWEST] = memory[FAST] = memory[SLOW] = memory[FIRST]
        return False
    level = math.asinh(clip(loss / wide(memory[SCALE]), -1e30, 1e30))
    memory[FAST] += (level - memory[FAST]) / min(stay, seen - stay)
    if waits:
        return False
    gained, deviation = wide(memory[FIRST]) - wide(memory[LOWEST]), wide(memory[DEVIATION])
    has_gained = gained > max(GAINED, deviation)
    away = level - wide(memory[SLOW])
    if away > max(FAR if has_gained else FAR_AT_FIRST, DEVIATIONS * deviation):
        memory[ABOVE] += 1.0
        return bool(memory[ABOVE] >= stay)
    memory[ABOVE] = 0.0
    span = min(_length(MEMORY, horizon, LEAST_LONG / 2.0), seen - stay + 1.0)
    memory[SLOW] += away / span
    memory[DEVIATION] += (abs(away) - deviation) / span
    memory[LOWEST] = min(memory[LOWEST], memory[SLOW])
    is_dead = has_gained and memory[FAST] > memory[FIRST] - (1.0 - LOST) * gained
    memory[DEAD] = memory[DEAD] + 1.0 if is_dead else 0.0
    return bool(memory[DEAD] >= _length(DIES, horizon, LEAST_LONG))


@compiled
def _length(share: float, horizon: int, least: float) -> float:
    """Return a share of a horizon in whole steps."""
    return clip(math.ceil(share * horizon), least, LONGEST)
