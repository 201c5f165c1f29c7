"""Records in buckets, against buckets that are computed one by one from the whole record."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlrs_core.policy import SIGNALS
from mlrs_server.domain.extras import LOSS, RESTORED, STEP, WIDTH, Extras, SparseExtras, none_sent
from mlrs_server.domain.ledger import RESTORE, AdviceReason
from mlrs_server.domain.summaries import NAMED_STEPS, WIDEST, Buckets, Summary, width_for
from mlrs_server.storage import Observations


@dataclass(frozen=True)
class Recorded:
    """A whole record."""

    record: Observations

    @classmethod
    def of(cls, losses: Sequence[float], seed: int = 0) -> Recorded:
        """Return a record of losses, with learning rates and extras that a generator chooses."""
        rng, n = np.random.default_rng(seed), len(losses)
        column = np.array(losses, np.float64)
        reasons = np.where(np.isfinite(column), AdviceReason.FRESH, AdviceReason.HELD).astype(np.uint8)
        reasons[rng.random(n) < 0.1] |= RESTORE
        extras = none_sent(n)
        extras[rng.random((n, WIDTH)) < 0.2] = 2.5
        extras[:, : len(SIGNALS)] *= rng.normal(size=(n, len(SIGNALS)))
        extras[rng.random(n) < 0.1, 0] = math.inf
        extras[:, STEP] = np.where(np.isnan(extras[:, STEP]), np.nan, np.arange(n))
        extras[:, RESTORED] = np.where(np.isnan(extras[:, RESTORED]), np.nan, 1.0)
        has = np.flatnonzero(~np.isnan(extras).all(axis=1))
        return cls(Observations(column, rng.random(n), reasons, extras=SparseExtras(has, extras[has])))

    def summary(self, first_step: int, width: int, ends: Sequence[int]) -> Summary:
        """Return the buckets from a step on, filled by parts of the record that end at these steps."""
        count = -(-(max([first_step, *ends]) - first_step) // width)
        buckets = Buckets(first_step, width, count)
        for end in ends:
            part = self.record.cut(buckets.end, end - buckets.end)
            buckets.add(part.losses, part.lrs, part.reasons, part.extras)
        return buckets.summary()


LOSSES = st.lists(
    st.one_of(
        st.floats(-1e6, 1e6),
        st.sampled_from([math.nan, math.inf, -math.inf, 1.7e308, -1.7e308]),
    ),
    max_size=70,
)
WIDTHS = st.sampled_from([1, 2, 4, 16, 64, 128])


@given(losses=LOSSES, width=WIDTHS, cuts=st.lists(st.integers(0, 70), max_size=6), data=st.data())
def test_buckets_are_those_of_the_whole_record(
    losses: list[float], width: int, cuts: list[int], data: st.DataObject
) -> None:
    """However the record is cut into parts, each bucket says what its steps say together."""
    n = len(losses)
    first = data.draw(st.integers(0, n // width)) * width
    ends = sorted({cut for cut in cuts if first <= cut <= n} | {max(n, first)})
    recorded = Recorded.of(losses)
    found = recorded.summary(first, width, ends)
    record = recorded.record
    starts = range(first, n, width)
    assert (found.first_step, found.width, found.end, len(found.held)) == (
        first,
        width,
        max(n, first),
        len(starts),
    )
    for index, start in enumerate(starts):
        part = record.cut(start, width)
        check_spread([column[index] for column in found.losses], part.losses)
        check_spread([column[index] for column in found.lrs], part.lrs)
        assert found.held[index] == np.count_nonzero(~np.isfinite(part.losses))
    dense = found.extras.dense(len(starts))
    check_extras(none_sent(len(starts)) if dense is None else dense, record, starts, width)
    restores = np.flatnonzero(record.reasons & RESTORE)
    assert found.restores == [step for step in restores.tolist() if step >= first]
    restored = record.extras.positions[~np.isnan(record.extras.values[:, RESTORED])]
    assert found.restored == [step for step in restored.tolist() if step >= first]


def check_spread(found: Sequence[float], values: np.ndarray) -> None:
    """Check the smallest, the greatest and the mean value of a bucket."""
    finite = values[np.isfinite(values)]
    if not len(finite):
        assert all(map(math.isnan, found))
        return
    low, high, mean = found
    assert (low, high) == (finite.min(), finite.max())
    assert low <= mean <= high
    scale = np.abs(finite).max()
    wanted = math.fsum((finite / len(finite)).tolist())
    assert mean == pytest.approx(wanted, abs=1e-12 * scale)


def check_extras(found: Extras, record: Observations, starts: Sequence[int], width: int) -> None:
    """Check the means of the signals, and the last validation loss, of each bucket."""
    for index, start in enumerate(starts):
        sent = record.extras.cut(start, width).values
        for at in range(len(SIGNALS)):
            finite = sent[np.isfinite(sent[:, at]), at]
            wanted = finite.mean() if len(finite) else math.nan
            assert found[index, at] == pytest.approx(wanted, rel=1e-9, abs=1e-12, nan_ok=True)
        told = sent[~np.isnan(sent[:, STEP])]
        wanted = told[-1][[STEP, LOSS]] if len(told) else [math.nan, math.nan]
        np.testing.assert_array_equal(found[index, [STEP, LOSS]], wanted)


@given(first=st.integers(0, 5000), length=st.integers(0, 5000), most=st.integers(1, 4096))
def test_the_width_is_the_smallest_that_fits(first: int, length: int, most: int) -> None:
    """The buckets that a part touches are at most as many as asked for, and twice finer ones would not be."""
    width, end = width_for(first, first + length, most), first + length

    def touched(width: int) -> int:
        return -(-end // width) - first // width

    assert width & (width - 1) == 0
    assert touched(width) <= most
    assert width == 1 or touched(width // 2) > most


def test_buckets_are_never_wider_than_a_call_reads() -> None:
    """Of a longer record there are more buckets than asked for."""
    assert width_for(0, 10**12, 1) == WIDEST


def test_only_the_first_steps_are_named() -> None:
    """A record in which each step asked to restore a state names as many as the contract says."""
    reasons = np.full(3000, AdviceReason.FRESH | RESTORE, np.uint8)
    recorded = Recorded(Observations(np.ones(3000), np.ones(3000), reasons))
    assert recorded.summary(0, 4096, [700, 1500, 3000]).restores == list(range(NAMED_STEPS))
