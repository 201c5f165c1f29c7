"""What past runs of a task say about the next one: which of them count, by which measure, and as what.

Runs of another optimizer family say nothing: their learning rates are of another kind. A task may change
under its name, and then runs end outside of what was expected of them. One such run asks for a search again;
two in a row, and the runs before them count no more.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np

from mlrs_core.config.recalled import Measure
from mlrs_core.memory.carrying import Setting, octave
from mlrs_core.memory.past_run import Ending, PastRun
from mlrs_core.memory.scores import Scale
from mlrs_core.memory.surface import WORST, Points
from mlrs_core.policy import Floats

TAILS = ("wsd", "linear")
"""The schedules that the memory chooses among."""
MOST = 24
"""The number of newest runs that count, of those that ended."""
MOST_UNDER_WAY = 16
"""The number of newest runs that count, of those under way."""
SAYING = 4
"""The measure that counts is the best one that any of so many newest runs has."""
HALF_LIFE = 16.0
"""A run counts half as much as one that came so many runs later."""
CARRIED = 0.25
"""How much a run of another horizon or batch size counts."""


@dataclass(frozen=True)
class Evidence:
    """The runs of a task that count for a run of one setting."""

    setting: Setting
    network: str
    """The reference of the model that a run follows if nothing else is decided."""
    runs: tuple[PastRun, ...]
    """Those that ended with a score, or diverged, the oldest first."""
    under_way: tuple[PastRun, ...]
    measure: Measure
    """What the scores are of; unspecified: no run has any."""
    scale: Scale
    surprise: PastRun | None
    """The newest run, if it ended far from what was expected and had not itself begun as a first run does."""

    @property
    def has_scores(self) -> bool:
        """Whether there is a run with a score."""
        return bool(self.lowest)

    @property
    def is_at_home(self) -> bool:
        """Whether a run of this very setting has a score."""
        return self.setting in self.lowest

    @property
    def is_under_way_at_home(self) -> bool:
        """Whether a run of this very setting is under way."""
        return any(run.setting == self.setting for run in self.under_way)

    def points(self, runs: Sequence[PastRun]) -> Points:
        """Return what runs were advised under."""
        rows = []
        for run in runs:
            of = run.setting
            level = self._levels[of]
            if run.learning_rate is None:
                rows.append((run.lr_offset, len(TAILS), 1, level))
            else:
                at = octave(run.learning_rate, of, self.setting) - self.centre
                rows.append((at, TAILS.index(run.policy), 0, level))
        return Points.of(rows)

    @cached_property
    def _levels(self) -> dict[Setting, int]:
        """The number of the level of each setting: 0 is that of the run's own."""
        settings = dict.fromkeys([self.setting, *(run.setting for run in (*self.runs, *self.under_way))])
        return {of: number for number, of in enumerate(settings)}

    @staticmethod
    def shape(line: int) -> int:
        """Return the curve that a line shares with others."""
        return int(line == len(TAILS))

    @cached_property
    def centre(self) -> float:
        """The octave that others are counted from: that of the newest run that a search began."""
        rates = [run for run in (*self.runs, *self.under_way) if run.learning_rate is not None]
        if not rates:
            return 0.0
        searched = [run for run in rates if run.searched]
        run = searched[-1] if searched else rates[0]
        assert run.learning_rate is not None  # noqa: S101  # as chosen above
        return octave(run.learning_rate, run.setting, self.setting)

    @cached_property
    def scores(self) -> Floats:
        """How much higher than the best of its setting each run ended, (n,), 0 to `WORST`."""
        best, scored = self.lowest, self._scored
        return np.array([WORST if score is None else min(score - best[of], WORST) for of, score in scored])

    @cached_property
    def lowest(self) -> dict[Setting, float]:
        """The lowest score of each setting."""
        lowest: dict[Setting, float] = {}
        for of, score in self._scored:
            if score is not None:
                lowest[of] = min(score, lowest.get(of, score))
        return lowest

    @cached_property
    def _scored(self) -> list[tuple[Setting, float | None]]:
        """The setting and the score of each run; `None`: it diverged."""
        values = [run.measured(self.measure) for run in self.runs]
        scores = [None if value is None else self.scale.score(value) for value in values]
        return list(zip([run.setting for run in self.runs], scores, strict=True))

    def weights(self) -> Floats:
        """Return how much each run counts, (n,)."""
        ages = np.arange(len(self.runs))[::-1]
        carried = np.array([1.0 if of == self.setting else CARRIED for of, _ in self._scored])
        return np.asarray(carried * 0.5 ** (ages / HALF_LIFE))


def evidence_of(past: Sequence[PastRun], setting: Setting, network: str) -> Evidence:
    """Return what past runs, the newest first, say about a run of a setting."""
    known = {*TAILS, network}
    family = [run for run in past if run.setting.family == setting.family and run.policy in known]
    newest = [run for run in family if run.ending in (Ending.REACHED, Ending.DIVERGED)][:MOST]
    under_way = [run for run in family if run.ending is Ending.UNDER_WAY][:MOST_UNDER_WAY]
    measure, higher = _measure(newest)
    counting = _since_change([run for run in reversed(newest) if _counts(run, measure, higher=higher)])
    values = [value for run in counting if (value := run.measured(measure)) is not None]
    return Evidence(
        setting=setting,
        network=network,
        runs=tuple(counting),
        under_way=tuple(under_way[::-1]),
        measure=measure,
        scale=Scale.of(values, higher_is_better=higher),
        surprise=counting[-1] if counting and _asks_for_search(counting[-1]) else None,
    )


def _measure(ended: Sequence[PastRun]) -> tuple[Measure, bool]:
    """Return the measure that counts, and whether higher is better; the newest runs come first."""
    saying = [run for run in ended if run.best_measure is not Measure.UNSPECIFIED][:SAYING]
    if not saying:
        return Measure.UNSPECIFIED, False
    newest = min(saying, key=lambda run: run.best_measure)  # the newest of several
    return newest.best_measure, newest.best_measure is Measure.METRIC and newest.higher_is_better


def _counts(run: PastRun, measure: Measure, *, higher: bool) -> bool:
    """Return whether a run can be compared by a measure."""
    if run.ending is Ending.DIVERGED:
        return True
    is_same = measure is not Measure.METRIC or run.higher_is_better == higher
    return is_same and run.measured(measure) is not None


def _since_change(ended: Sequence[PastRun]) -> list[PastRun]:
    """Return the runs since the task changed, the oldest first: from the last two surprises in a row on."""
    starts = [index for index, pair in enumerate(pairwise(ended)) if all(run.is_surprise for run in pair)]
    return list(ended[starts[-1] :]) if starts else list(ended)


def _asks_for_search(newest: PastRun) -> bool:
    """Return whether the newest run that ended makes the next one begin as a first run: not, if it did so."""
    return newest.is_surprise and newest.recalled is not None and newest.recalled.decided
