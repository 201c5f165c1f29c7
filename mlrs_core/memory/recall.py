"""What the next run of a task begins with: the best known arm, or one that is worth trying.

An arm is what a run is advised under: a learning rate and the tail of its schedule, or an offset on the
learning rates of a network. The decision is a pure function of the past runs.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from mlrs_core.config import MAX_OFFSET
from mlrs_core.config.recalled import Recalled
from mlrs_core.memory.carrying import Setting, octave, rate
from mlrs_core.memory.evidence import TAILS, Evidence, evidence_of
from mlrs_core.memory.past_run import PastRun
from mlrs_core.memory.surface import Points, Surface, fitted
from mlrs_core.policy import Floats

Chosen = npt.NDArray[np.bool_]

GRID = 0.25
"""Arms are so many octaves apart."""
CAUTION = 0.5
"""The best known arm has the lowest expected score plus so many of its standard deviations."""
SURE, MARGIN = 0.8, 0.02
"""A careful run ends, with this probability, no higher than this above the score of the best known arm."""
CAREFUL_REACH, FULL_REACH = 1.0, 2.0
"""How far beyond what was tried a careful run may go, and how far from the best a full one, in octaves."""
WORTH = 0.001
"""An arm that improves the score by less, as is expected, is not worth trying."""
EXPECTED_WITHIN, LEAST_SURPRISE = 4.0, 0.25
"""A run that ends further from what was expected, in standard deviations and in its score, is a surprise."""


FAR_OFF = 1.5
"""The same for a run far from those that were tried, or with another horizon or batch size, in its score."""


class Explore(enum.IntEnum):
    """What a run may be used for. The numbers are those of the contract."""

    CAREFUL = 1
    FULL = 2
    NONE = 3


@dataclass(frozen=True, kw_only=True)
class Arm:
    """What a run is advised under."""

    policy: str
    """The kind of a schedule, or the reference of a model."""
    learning_rate: float | None = None
    """The base LR of the schedule; `None` for a model."""
    lr_offset: float = 0.0
    """The octaves by which a model's learning rates are multiplied."""

    def __str__(self) -> str:
        """Return the arm in words."""
        if self.learning_rate is None:
            offset = f" with its learning rates times 2**{self.lr_offset:g}" if self.lr_offset else ""
            return f"the model{offset}"
        return f"a learning rate of {self.learning_rate:.3g} ({self.policy} schedule)"


@dataclass(frozen=True, kw_only=True)
class Expected:
    """How a run under an arm is expected to end, by the task's measure."""

    arm: Arm
    value: float
    low: float
    """The value one standard deviation below, without the noise of a single run."""
    high: float


@dataclass(frozen=True, kw_only=True)
class Decision:
    """What a run begins with."""

    recalled: Recalled
    arm: Arm | None = None
    """`None`: nothing is decided, and the run begins as one without memory."""
    expected: Expected | None = None
    """How a run under the arm is expected to end."""


def recall(
    past: Sequence[PastRun],
    setting: Setting,
    explore: Explore,
    *,
    network: str = "",
    bounds: tuple[float, float] = (0.0, math.inf),
) -> Decision:
    """Return what the next run of a task begins with.

    Args:
        past: the task's runs, the newest first.
        setting: the run's.
        explore: what it may be used for.
        network: the reference of the model that it follows if nothing is decided.
        bounds: the learning rates that it may begin with.
    """
    evidence = evidence_of(past, setting, network)
    if not evidence.has_scores:
        return Decision(recalled=Recalled(why=_nothing_known(past)))
    fit = Fit(evidence, bounds)
    if evidence.surprise is not None and explore is not Explore.NONE:
        why = f"run {evidence.surprise.run_id} ended far from what was expected: begins as a first run does"
        return Decision(recalled=fit.expectation(fit.best, why, decided=False))
    is_first = not evidence.is_at_home and not evidence.is_under_way_at_home
    index = fit.best if is_first or explore is Explore.NONE else fit.worth_trying(explore)
    count = len(evidence.runs)
    known = f"the best known after {count} {'run' if count == 1 else 'runs'}"
    if not evidence.is_at_home:
        known += " with another horizon, batch size or optimizer"
    if index == fit.best:
        return fit.decided(index, f"{fit.arm(index)}, {known}")
    return fit.decided(index, f"tries {fit.arm(index)}; {known} is {fit.arm(fit.best)}")


def _nothing_known(past: Sequence[PastRun]) -> str:
    """Return why nothing is decided for a run of a task with these past runs."""
    if not past:
        return "the first run of its task with this kind of optimizer"
    return "no run of the task with this kind of optimizer has reached its end: begins as a first run does"


class Fit:
    """The surface of a task's runs at the arms that can be chosen; `evidence` has scores."""

    def __init__(self, evidence: Evidence, bounds: tuple[float, float] = (0.0, math.inf)) -> None:
        """Fit the runs."""
        self.evidence = evidence
        self._bounds = bounds
        self._runs = evidence.points(evidence.runs)
        self._tried = self._ranges()
        self.points = self._candidates()
        """The arms that can be chosen, as points."""
        self._within = self._is_tried()

    @cached_property
    def surface(self) -> Surface:
        """The scores of the candidates, each run under way taken for one that ends as expected."""
        evidence = self.evidence
        scores, weights = evidence.scores, evidence.weights()
        if not evidence.under_way:
            return fitted(self._runs, scores, weights, self.points)
        going = evidence.points(evidence.under_way)
        believed = fitted(self._runs, scores, weights, going).mean
        both = evidence.points((*evidence.runs, *evidence.under_way))
        return fitted(
            both,
            np.concatenate([scores, believed]),
            np.concatenate([weights, np.ones(len(believed))]),
            self.points,
        )

    @cached_property
    def best(self) -> int:
        """The best known arm: of those between the ones that were tried."""
        surface = self.surface
        values = surface.mean + CAUTION * surface.deviation
        return int(np.argmin(np.where(self._within, values, np.inf)))

    @cached_property
    def _is_safe(self) -> Chosen:
        """Which candidates end, as good as surely, no worse than the best known, (m,)."""
        means, deviations = self.surface.against(self.best)
        sure = self.surface.shares @ _below((MARGIN - means) / deviations)
        return np.asarray(sure >= SURE, np.bool_)

    def worth_trying(self, explore: Explore) -> int:
        """Return the arm that is expected to improve most on the best known; that one, if none is worth it.

        An arm that a run under way has is left to it, if there is another. Expected improvement as of Jones
        et al. 1998, equation 15, over the best known arm's own score.
        """
        means, deviations = self.surface.against(self.best)
        ratios = -means / deviations
        gains = deviations * (ratios * _below(ratios) + np.exp(-0.5 * ratios**2) / math.sqrt(2 * math.pi))
        gain = self.surface.shares @ gains
        allowed = self._within_reach(explore)
        if explore is Explore.CAREFUL:
            allowed &= self._is_safe
        taken = self._is_taken()
        is_best_taken = taken[self.best]
        taken[self.best] = True
        free = np.where(allowed & ~taken, gain, -1.0)
        index = int(np.argmax(free))
        return index if free[index] >= (0.0 if is_best_taken else WORTH) else self.best

    def arm(self, index: int) -> Arm:
        """Return a candidate as an arm."""
        line, at = int(self.points.lines[index]), float(self.points.octaves[index])
        if line == len(TAILS):
            return Arm(policy=self.evidence.network, lr_offset=at)
        return Arm(policy=TAILS[line], learning_rate=self._rate(at))

    def decided(self, index: int, why: str) -> Decision:
        """Return the decision for a candidate."""
        recalled = self.expectation(index, why, decided=True)
        return Decision(recalled=recalled, arm=self.arm(index), expected=self.expected(index))

    def expectation(self, index: int, why: str, *, decided: bool) -> Recalled:
        """Return what is expected of a run under a candidate.

        Nobody knows how much better than expected a run may end whose arm is far from those that were tried,
        or whose horizon or batch size is another; only that it is not far worse, if it is a careful one.
        """
        lowest, surface = self.evidence.lowest, self.surface
        spread = max(
            EXPECTED_WITHIN * math.hypot(float(surface.deviation[index]), surface.noise), LEAST_SURPRISE
        )
        worst, best = spread, -spread
        if not self._is_near_tried(index):
            is_careful = self._is_safe[index] and self._within_reach(Explore.CAREFUL)[index]
            worst, best = FAR_OFF if is_careful else math.inf, -math.inf
        if (least := lowest.get(self.evidence.setting)) is None:
            least, worst, best = max(lowest.values()), FAR_OFF, -math.inf
        middle, scale = least + float(surface.mean[index]), self.evidence.scale
        ends = [scale.value(middle + off) if math.isfinite(off) else math.inf for off in (best, worst)]
        low, high = (one if math.isfinite(one) else None for one in (ends[::-1] if scale.falls else ends))
        return Recalled(
            why=why,
            decided=decided,
            measure=self.evidence.measure,
            expected_low=low,
            expected_high=high,
        )

    def curve(self) -> list[Expected]:
        """Return what is expected of every candidate that is no further than a careful run may go."""
        return [
            self.expected(index) for index in np.flatnonzero(self._within_reach(Explore.CAREFUL)).tolist()
        ]

    def expected(self, index: int) -> Expected:
        """Return what is expected of a candidate; where its setting has no run, at the level of another's."""
        lowest, value = self.evidence.lowest, self.evidence.scale.value
        least = lowest.get(self.evidence.setting, max(lowest.values()))
        middle, spread = least + float(self.surface.mean[index]), float(self.surface.deviation[index])
        low, high = sorted((value(middle - spread), value(middle + spread)))
        return Expected(arm=self.arm(index), value=value(middle), low=low, high=high)

    # -------------------------------------------------------------------------- candidates

    def _ranges(self) -> dict[int, tuple[float, float]]:
        """Return the lowest and the highest octave that was tried, by shape; diverged runs included."""
        ranges = {}
        for shape in sorted(set(self._runs.shapes.tolist())):
            octaves = self._runs.octaves[self._runs.shapes == shape]
            ranges[shape] = float(octaves.min()), float(octaves.max())
        return ranges

    def _candidates(self) -> Points:
        """Return the arms on the grid that are in reach of what was tried."""
        rows = []
        for line in range(len(TAILS) + 1):
            shape = self.evidence.shape(line)
            if shape in self._tried:
                low, high = self._tried[shape]
                first, last = math.ceil((low - FULL_REACH) / GRID), math.floor((high + FULL_REACH) / GRID)
                octaves = [GRID * k for k in range(first, last + 1)]
                rows += [(at, line, shape, 0) for at in self._bounded(line, octaves)]
        return Points.of(rows)

    def _bounded(self, line: int, octaves: list[float]) -> list[float]:
        """Return the octaves whose learning rates are within bounds; if none is, the nearest."""
        if line == len(TAILS):
            return [at for at in octaves if abs(at) <= MAX_OFFSET]
        low, high = (self._octave(bound) for bound in self._bounds)
        within = [at for at in octaves if low <= at <= high]
        if within:
            return within
        nearest = min(octaves, key=lambda at: max(low - at, at - high))
        return [min(max(nearest, low), high)]

    def _octave(self, bound: float) -> float:
        """Return the octave of a bound of the learning rate, from the common one."""
        if bound in (0.0, math.inf):
            return -math.inf if bound == 0.0 else math.inf
        return octave(bound, self.evidence.setting, self.evidence.setting) - self.evidence.centre

    def _rate(self, at: float) -> float:
        return rate(at + self.evidence.centre, self.evidence.setting)

    def _is_tried(self) -> Chosen:
        """Return which candidates lie between those that were tried, or are the nearest to them, (m,)."""
        outside = self._outside(0.0)
        return np.asarray(outside <= max(float(outside.min()), GRID / 2), np.bool_)

    def _is_near_tried(self, index: int) -> bool:
        """Return whether an arm of a candidate's line that is next to it on the grid was tried."""
        mine = self._runs.octaves[self._runs.lines == self.points.lines[index]]
        return bool(np.any(np.abs(mine - self.points.octaves[index]) <= GRID))

    def _is_taken(self) -> Chosen:
        """Return which candidates a run under way has, (m,)."""
        going = self.evidence.points(self.evidence.under_way)
        near = np.abs(going.octaves[:, None] - self.points.octaves[None, :]) < GRID / 2
        same = (going.lines[:, None] == self.points.lines[None, :]) & (going.levels[:, None] == 0)
        return np.asarray((near & same).any(axis=0), np.bool_)

    def _outside(self, reach: float) -> Floats:
        """Return how far beyond what was tried, and `reach`, the candidates are, in octaves, (m,)."""
        low, high = np.array([self._tried[shape] for shape in self.points.shapes.tolist()]).T
        beyond = np.maximum(low - self.points.octaves, self.points.octaves - high)
        return np.asarray(np.maximum(beyond - reach, 0.0))

    def _within_reach(self, explore: Explore) -> Chosen:
        """Return which candidates a run may try, (m,)."""
        if explore is Explore.CAREFUL:
            return np.asarray(self._outside(CAREFUL_REACH) == 0.0, np.bool_)
        carried = np.where(self._runs.levels == 0, 0.0, math.inf)  # their best says less
        scores = self.evidence.scores + (carried if np.isfinite(carried).any() else 0.0)
        centres = np.zeros(2)
        for shape in self._tried:
            mine = self._runs.shapes == shape
            centres[shape] = self._runs.octaves[mine][np.argmin(scores[mine])]
        return np.asarray(np.abs(self.points.octaves - centres[self.points.shapes]) <= FULL_REACH, np.bool_)


def _below(values: Floats) -> Floats:
    """Return the probability that a standard normal number is below values, within 7.5e-8.

    Abramowitz and Stegun 1964, equation 26.2.17.
    """
    size = np.abs(values)
    t = 1.0 / (1.0 + 0.2316419 * size)
    series = t * (0.319381530 + t * (-0.356563782 + t * (1.781477937 + t * (-1.821255978 + t * 1.330274429))))
    tail = np.exp(-0.5 * size**2) / math.sqrt(2 * math.pi) * series
    return np.where(values > 0.0, 1.0 - tail, tail)
