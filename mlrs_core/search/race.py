"""The rules of a search: short trials from one start, at learning rates half a decade apart.

The first trial has no steps: it measures the loss at the start. Every other trial begins from the same
weights, sees the same batches, and lets its learning rate fall in a straight line to 0, which makes short
trainings comparable: without the fall, a learning rate that is too high looks bad although it has learnt
more. Trials walk to higher or lower rates as long as the loss after them falls, a parabola through the best
three finds the minimum between them, and a straight line in the logarithm leads from there to the learning
rate of the whole training, which is lower: short trainings want higher rates than long ones.

The numbers were fitted to the development rows of the quality benchmark, all but `FLAT`; ADR 0024 says how.
"""

from __future__ import annotations

import math
from collections.abc import Generator, Sequence
from dataclasses import dataclass

from mlrs_core.config import Optimizer
from mlrs_core.config.default_rates import (
    ADAM_FAMILY,
    DEFAULT_ADAM_LR,
    DEFAULT_LR,
    DEFAULT_MOMENTUM,
    MAX_MOMENTUM,
    MOMENTUM_FAMILY,
)
from mlrs_core.config.ranges import check_real, check_whole

SPACING = 0.5
"""The distance of two learning rates that are tried, in decades."""
SHARE = 0.01
"""The share of the horizon that a trial takes."""
SHORTEST, LONGEST = 8, 40
"""The least steps of a trial, and the most up to a horizon of `LONGEST / SHARE`; beyond, its square root."""
MOST_TRIALS = 11
"""The most trials of a search, besides the first."""
UNKNOWN_HORIZON = 2000
"""What a run without a horizon is searched as."""
EXPONENT = 0.32
"""The best learning rate falls with the length of a training to this power (arXiv 2409.19913)."""
OCTAVES_PER_DECADE = math.log2(10.0)
FLAT = 0.005
"""A loss that differs by at most this share from that at the start says nothing: the trial did neither good
nor harm. The highest of such learning rates counts as the best one; without this rule, trials that are too
short to learn anything would lead to ever lower ones."""
EDGE_OCTAVES = 1.5
"""What is added to the uncertainty where no trial lies beyond the best one."""


@dataclass(frozen=True)
class Family:
    """What is known of an optimizer family before anything is tried; decades are from its default rate."""

    first: float
    """Where trials begin, in decades."""
    slope: float
    """How the rate of the training follows that of the trials."""
    shift: float
    """The rate of the training where that of the trials is the default one, in decades."""
    octaves: float
    """The standard deviation of the error on the development rows, in octaves, if errors were normal: 1.4826
    times the median distance from the tuned base learning rate of `wsd`."""


SGD = Family(first=1.0, slope=0.85, shift=-0.625, octaves=2.9)
ADAM = Family(first=0.5, slope=0.7, shift=0.125, octaves=1.0)


@dataclass(frozen=True, kw_only=True)
class SearchSetup:
    """What a search depends on besides its results.

    Raises:
        InvalidFieldError: a value is out of range.
    """

    horizon: int | None
    """The steps of the training; `None`: not known."""
    optimizer: Optimizer
    momentum: float | None = None
    initial_lr: float | None = None
    """The learning rate that trials begin at; `None`: a multiple of the optimizer's default."""

    def __post_init__(self) -> None:
        """Check every field."""
        check_whole("horizon", self.horizon, low=1, high=2**53, unit="steps")
        check_real("momentum", self.momentum, least=0.0, most=1.0)
        check_real("initial_lr", self.initial_lr, above=0.0)

    @property
    def family(self) -> Family:
        """The family of the optimizer."""
        return ADAM if self.optimizer in ADAM_FAMILY else SGD

    @property
    def default_lr(self) -> float:
        """The default learning rate of the optimizer, as `default_rates` has it for whole runs."""
        if self.optimizer in ADAM_FAMILY:
            return DEFAULT_ADAM_LR
        if self.optimizer not in MOMENTUM_FAMILY:
            return DEFAULT_LR
        momentum = DEFAULT_MOMENTUM if self.momentum is None else self.momentum
        return DEFAULT_LR * (1.0 - min(momentum, MAX_MOMENTUM))

    @property
    def steps(self) -> int:
        """The steps of a trial."""
        horizon = UNKNOWN_HORIZON if self.horizon is None else self.horizon
        full = LONGEST / SHARE
        wanted = SHARE * horizon if horizon <= full else LONGEST * math.sqrt(horizon / full)
        return min(max(int(wanted), SHORTEST), horizon)


@dataclass(frozen=True)
class Trial:
    """A trial to make: its learning rate falls in a straight line to 0 over its steps."""

    learning_rate: float
    """The learning rate of the first update."""
    steps: int
    """The number of updates; 0: only the loss at the start is measured."""


@dataclass(frozen=True, kw_only=True)
class TrialResult:
    """A trial that was made."""

    learning_rate: float
    """The learning rate of the first update."""
    steps: int
    """The updates that were made."""
    loss: float
    """The mean loss after it, on batches that all trials share; not finite: it diverged."""


@dataclass(frozen=True)
class Found:
    """The end of a search."""

    learning_rate: float
    """The learning rate to begin the training with."""
    octaves: float
    """The standard deviation of its error, in octaves (factors of two)."""
    steps: int
    """The updates that all trials made together."""


def what_next(setup: SearchSetup, results: Sequence[TrialResult]) -> Trial | Found:
    """Return the trial to make after these results, or what they found.

    Args:
        setup: what the search depends on.
        results: the results of the trials that this function asked for, in order.
    """
    first = setup.initial_lr or setup.default_lr * 10.0**setup.family.first
    walk = _walk()
    asked = next(walk)
    for result in results:
        try:
            asked = walk.send(result.loss if math.isfinite(result.loss) else math.inf)
        except StopIteration as stop:
            offset, octaves = stop.value
            spent = sum(one.steps for one in results)
            return Found(_of_training(setup, first * 10.0**offset), _together(setup, octaves), spent)
    if asked is None:
        return Trial(first, 0)
    return Trial(first * 10.0 ** (SPACING * asked), setup.steps)


def _of_training(setup: SearchSetup, learning_rate: float) -> float:
    """Return the learning rate for the whole training, from the best one of the trials."""
    family = setup.family
    decades = family.shift + family.slope * math.log10(learning_rate / setup.default_lr)
    if setup.horizon is not None:
        decades -= EXPONENT * math.log10(max(SHARE * setup.horizon / setup.steps, 1.0))
    return float(setup.default_lr * 10.0**decades)


def _together(setup: SearchSetup, octaves: float) -> float:
    return math.hypot(setup.family.octaves, octaves)


def _walk() -> Generator[int | None, float, tuple[float, float]]:
    """Yield positions on the grid of learning rates, and take the loss after a trial at each.

    The first is `None`, for the loss at the start.

    Returns:
        The position of the minimum, in decades, and its own uncertainty, in octaves.
    """
    start = yield None
    seen = {0: _flattened((yield 0), start)}
    seen[1] = _flattened((yield 1), start)
    best, way = (1, 1) if seen[1] <= seen[0] and math.isfinite(seen[1]) else (0, -1)
    while len(seen) < MOST_TRIALS:
        beyond = best + way
        seen[beyond] = _flattened((yield beyond), start)
        if not _goes_on(seen[beyond], seen[best], way):
            break
        best = beyond
    if not any(map(math.isfinite, seen.values())):  # the lowest is the least likely to diverge
        return SPACING * min(seen), OCTAVES_PER_DECADE * SPACING * len(seen)
    best = min(seen, key=lambda position: (seen[position], -position))
    low, middle, high = (seen.get(best + side, math.inf) for side in (-1, 0, 1))
    bend = low - 2.0 * middle + high
    if math.isfinite(bend) and bend > 0.0:
        return SPACING * (best + 0.5 * (low - high) / bend), 0.0
    return SPACING * best, 0.0 if best - 1 in seen and best + 1 in seen else EDGE_OCTAVES


def _flattened(loss: float, start: float) -> float:
    """Return the loss after a trial, or the loss at the start if the two are the same but for noise."""
    if math.isfinite(start) and abs(loss - start) <= FLAT * abs(start):
        return start
    return loss


def _goes_on(beyond: float, best: float, way: int) -> bool:
    """Return whether trials go on in a direction; upwards also where nothing changes."""
    if way > 0:
        return beyond <= best and math.isfinite(beyond)
    return beyond < best or not math.isfinite(best)
