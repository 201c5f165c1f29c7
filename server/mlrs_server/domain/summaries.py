"""A run's record in buckets: what the smallest, the greatest and the mean value of each is."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mlrs_core.policy import SIGNALS, Floats
from mlrs_server.domain.extras import LOSS, RESTORED, STEP, Extras, SparseExtras, none_sent
from mlrs_server.domain.ledger import REASON, RESTORE, AdviceReason
from mlrs_server.domain.observations import Bytes

WIDEST = 2**20
"""The most steps of a bucket."""
NAMED_STEPS = 1000
"""The most steps that are named of those that asked to restore a state, and of those that came after one."""
Counts = npt.NDArray[np.int64]


def width_for(first_step: int, end: int, most: int) -> int:
    """Return the smallest power of two with which [first_step, end) touches at most `most` buckets.

    Buckets begin at multiples of their width. It is at most `WIDEST`, also where there are more buckets then.
    """
    width = 1
    while width < WIDEST and -(-end // width) - first_step // width > most:
        width *= 2
    return width


class Spread:
    """The smallest, the greatest and the mean finite value of each of k buckets, as values come in."""

    def __init__(self, count: int, width: int) -> None:
        self._width = width
        self._low, self._high = np.full(count, np.inf), np.full(count, -np.inf)
        self._total, self._count = np.zeros(count), np.zeros(count, np.int64)

    def add(self, first: int, starts: Counts, values: Floats) -> None:
        """Take values, (n,), of consecutive buckets from `first` on, which begin at positions `starts`."""
        finite = np.isfinite(values)
        at = slice(first, first + len(starts))
        low = np.minimum.reduceat(np.where(finite, values, np.inf), starts)
        high = np.maximum.reduceat(np.where(finite, values, -np.inf), starts)
        np.minimum(self._low[at], low, out=self._low[at])
        np.maximum(self._high[at], high, out=self._high[at])
        # Divided first, by a power of two, so that the sum of large values does not overflow.
        self._total[at] += np.add.reduceat(np.where(finite, values / self._width, 0.0), starts)
        self._count[at] += np.add.reduceat(finite.astype(np.int64), starts)

    def columns(self, count: int) -> tuple[Floats, Floats, Floats]:
        """Return the smallest, the greatest and the mean of each of the first buckets; NaN: none."""
        some, low, high = self._count[:count], self._low[:count], self._high[:count]
        none = some == 0
        with np.errstate(over="ignore"):
            mean = self._total[:count] * (self._width / np.maximum(some, 1))
        mean = np.clip(mean, low, high, where=~none, out=mean)  # which rounding may leave
        low, high, mean = (np.where(none, np.nan, column) for column in (low, high, mean))
        return low, high, mean


@dataclass(frozen=True)
class Summary:
    """Consecutive buckets of a record, in columns, (k,) each."""

    first_step: int
    """The first step of the first bucket, a multiple of `width`."""
    width: int
    """The number of steps of a bucket; the last may have fewer."""
    end: int
    """The step after the last one."""
    losses: tuple[Floats, Floats, Floats]
    """The smallest, the greatest and the mean finite losses; NaN: the bucket has none."""
    lrs: tuple[Floats, Floats, Floats]
    """The smallest, the greatest and the mean learning rates."""
    held: Counts
    """How many steps were held."""
    extras: SparseExtras
    """By bucket: the means of the finite signals, and the last validation loss."""
    restores: list[int]
    """The first steps whose advice asked to restore a saved state."""
    restored: list[int]
    """The first steps whose observation said that one was restored."""


class Buckets:
    """Buckets of a record, filled by consecutive parts of it, of any length."""

    def __init__(self, first_step: int, width: int, count: int) -> None:
        """Begin with `count` empty buckets of `width` steps; `first_step` is a multiple of that."""
        self._first_step, self._width = first_step, width
        self.end = first_step
        """The step after the last one that came in."""
        self._losses, self._lrs = Spread(count, width), Spread(count, width)
        self._held = np.zeros(count, np.int64)
        self._signals, self._told = np.zeros((count, len(SIGNALS))), np.zeros((count, len(SIGNALS)), np.int64)
        self._validations = np.full((count, 2), np.nan)  # the step and the loss of each bucket's last
        self._restores, self._restored = list[int](), list[int]()

    def add(self, losses: Floats, lrs: Floats, reasons: Bytes, extras: SparseExtras) -> None:
        """Take the next steps, (n,) each, and what came with them."""
        if not len(losses):
            return
        offset = self.end - self._first_step
        first, last = offset // self._width, (offset + len(losses) - 1) // self._width
        starts = np.maximum(np.arange(first, last + 1) * self._width - offset, 0)
        self._losses.add(first, starts, losses)
        self._lrs.add(first, starts, lrs)
        held = (reasons & REASON) == int(AdviceReason.HELD)
        self._held[first : last + 1] += np.add.reduceat(held.astype(np.int64), starts)
        _name(self._restores, self.end + np.flatnonzero(reasons & RESTORE))
        if len(extras):
            self._add_extras((offset + extras.positions) // self._width, extras.values)
            has = ~np.isnan(extras.values[:, RESTORED])
            _name(self._restored, self.end + extras.positions[has])
        self.end += len(losses)

    def _add_extras(self, buckets: Counts, values: Extras) -> None:
        """Take the extras of some steps, (m, WIDTH), given the bucket of each, (m,), ascending."""
        signals = values[:, : len(SIGNALS)]
        finite = np.isfinite(signals)
        np.add.at(self._signals, buckets, np.where(finite, signals / self._width, 0.0))
        np.add.at(self._told, buckets, finite)
        has = ~np.isnan(values[:, STEP])
        self._validations[buckets[has]] = values[has][:, [STEP, LOSS]]  # the last of a bucket counts

    def summary(self) -> Summary:
        """Return the buckets that have steps."""
        count = -(-(self.end - self._first_step) // self._width)
        return Summary(
            first_step=self._first_step,
            width=self._width,
            end=self.end,
            losses=self._losses.columns(count),
            lrs=self._lrs.columns(count),
            held=self._held[:count],
            extras=self._extras(count),
            restores=self._restores,
            restored=self._restored,
        )

    def _extras(self, count: int) -> SparseExtras:
        """Return the means of the signals, and the last validation losses, of the first buckets."""
        told = self._told[:count]
        extras = none_sent(count)
        means = self._signals[:count] * (self._width / np.maximum(told, 1))
        extras[:, : len(SIGNALS)] = np.where(told == 0, np.nan, means)
        extras[:, [STEP, LOSS]] = self._validations[:count]
        has = np.flatnonzero(told.any(axis=1) | ~np.isnan(extras[:, STEP]))
        return SparseExtras(has, extras[has])


def _name(named: list[int], steps: Counts) -> None:
    """Add steps to a list of at most `NAMED_STEPS`."""
    named.extend(steps[: NAMED_STEPS - len(named)].tolist())
