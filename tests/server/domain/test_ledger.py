"""The exactly-once rules: the compiled loops against a plain reference of the same rules."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from mlrs_core.config import RunConfig
from mlrs_core.policy import NO_SIGNALS, Floats, Networks, Rows, RunTable, Signals, States, Steps, table_of
from mlrs_server.domain.ledger import (
    DIVERGED_AFTER,
    RECORD,
    AdviceReason,
    Records,
    RunStatus,
    Verdict,
    admit,
    settle,
    undo,
)
from mlrs_server.domain.observations import ANSWERED, Entries, Handles

RUNS = 3
NONE = np.zeros((RUNS, 0), np.float32)
"""The networks of runs that have none of their own."""
LOSSES = st.sampled_from([0.5, 1.0, 2.0, math.nan, math.inf])
ENTRIES = st.tuples(st.integers(-1, RUNS - 1), st.sampled_from([0, 0, 0, -1, -2, 1]), LOSSES)
"""A run, or none; how far its step is from the next one; and a loss."""
MESSAGES = st.lists(st.tuples(st.booleans(), st.lists(ENTRIES, min_size=1, max_size=14)), max_size=4)
"""Whether the first run is finished before it; and its entries."""


class Counting:
    """A policy whose learning rate is a hundredth of the loss plus its number of steps so far."""

    def advance(
        self,
        states: States,
        networks: Networks,
        table: RunTable,
        rows: Rows,
        steps: Steps,
        losses: Floats,
        signals: Signals,
        lrs: Floats,
    ) -> None:
        """Advance the runs."""
        del networks, table, steps, signals
        for entry, row in enumerate(rows):
            if math.isfinite(losses[entry]):
                states[row, 0] += 1
                lrs[entry] = states[row, 0] + losses[entry] / 100


@dataclass
class Account:
    """One run by the rules, written plainly."""

    next_step: int = 0
    last_loss: float = math.nan
    last_lr: float = math.nan
    bad: int = 0
    moved: int = 0
    finished: bool = False

    def take(self, step: int, loss: float) -> tuple[Verdict, float, int]:
        """Return an observation's verdict, learning rate and reason."""
        if step == self.next_step - 1 and same(loss, self.last_loss):
            return Verdict.REPLAY, self.last_lr, AdviceReason.REPLAYED
        if step < self.next_step:
            return Verdict.OTHER_LOSS if step == self.next_step - 1 else Verdict.RECALL, math.nan, 0
        if self.finished or step > self.next_step:
            return Verdict.FINISHED if self.finished else Verdict.AHEAD, math.nan, 0
        self.next_step, self.last_loss = step + 1, loss
        if not math.isfinite(loss):
            self.bad += 1
            self.last_lr = 0.0 if math.isnan(self.last_lr) else self.last_lr
            return Verdict.FRESH, self.last_lr, AdviceReason.HELD
        self.bad, self.moved = 0, self.moved + 1
        self.last_lr = self.moved + loss / 100
        return Verdict.FRESH, self.last_lr, AdviceReason.FRESH


def blank() -> tuple[Records, RunTable, States, Handles]:
    """Return the records of runs before their first step, and their handles."""
    records = np.zeros(RUNS, RECORD)
    records["handle"] = (np.arange(RUNS, dtype=np.uint64) + 1) << np.uint64(32) | np.arange(
        RUNS, dtype=np.uint64
    )
    records["last_loss"] = records["last_lr"] = np.nan
    records["durable_step"], records["status"] = -1, RunStatus.ACTIVE
    return records, table_of([RunConfig()] * RUNS), np.zeros((RUNS, 1), np.float32), records["handle"].copy()


def same(left: float, right: float) -> bool:
    """Return whether two numbers are equal, or both NaN."""
    return left == right or (math.isnan(left) and math.isnan(right))


@settings(max_examples=100)
@given(messages=MESSAGES)
def test_loops_do_as_the_rules_say(messages: list[tuple[bool, list[tuple[int, int, float]]]]) -> None:
    """Messages of any entries, of known and unknown runs, get the reference's verdict, rate and reason."""
    records, table, states, handles = blank()
    accounts = [Account() for _ in range(RUNS)]
    for finishes, entries in messages:
        if finishes:
            records["status"][0], accounts[0].finished = RunStatus.FINISHED, True
        which, expected, steps, losses = [run for run, _, _ in entries], [], [], []
        for run, offset, loss in entries:
            step = max(0, accounts[run].next_step + offset)
            steps.append(step)
            losses.append(loss)
            expected.append(
                (Verdict.STALE_HANDLE, math.nan, 0) if run < 0 else accounts[run].take(step, loss)
            )
        n = len(which)
        named = np.array([int(handles[run]) if run >= 0 else 7 << 32 for run in which], np.uint64)
        message = Entries.of(named, np.array(steps), np.array(losses))
        fresh = admit(records, message.table, 0)
        mask, some = message.verdicts == Verdict.FRESH, np.full(fresh, 99.0)
        Counting().advance(
            states,
            NONE,
            table,
            message.rows[mask],
            message.steps[mask],
            message.losses[mask],
            NO_SIGNALS,
            some,
        )
        message.lrs[:] = 99.0
        message.lrs[mask] = some
        log = np.zeros(n + 1, ANSWERED)
        plain = settle(records, table, message.table, log, 1, 7)
        verdicts, lrs, reasons = message.verdicts, message.lrs, message.reasons
        assert log[1 : 1 + fresh]["lr"].tobytes() == lrs[mask].tobytes()
        assert (log[1 : 1 + fresh]["step"] == message.steps[mask]).all()
        assert fresh == mask.sum()
        assert plain == (reasons == AdviceReason.FRESH).sum()
        for entry, (verdict, lr, reason) in enumerate(expected):
            assert (Verdict(int(verdicts[entry])), int(reasons[entry])) == (verdict, reason)
            assert same(float(lrs[entry]), lr)
    for record, account in zip(records, accounts, strict=True):
        assert record["next_step"] == account.next_step
        assert same(record["last_loss"], account.last_loss)
        assert same(record["last_lr"], account.last_lr)
        if not account.finished:
            diverged = account.bad >= DIVERGED_AFTER
            assert record["status"] == (RunStatus.DIVERGED if diverged else RunStatus.ACTIVE)


@given(entries=st.lists(st.tuples(st.integers(0, RUNS - 1), LOSSES), min_size=1, max_size=12))
def test_undo_reverts_admit(entries: list[tuple[int, float]]) -> None:
    """When the policy fails, the records are as they were before the message, bit for bit."""
    records, _, _, handles = blank()
    records["next_step"], records["last_loss"] = 5, [1.0, np.nan, 3.0]
    before = records.tobytes()
    which = [run for run, _ in entries]
    steps = np.array([5 + which[:entry].count(run) for entry, run in enumerate(which)])
    message = Entries.of(handles[which], steps, np.array([loss for _, loss in entries]))
    assert admit(records, message.table, 0) == len(which)
    undo(records, message.table)
    assert records.tobytes() == before
