"""Counters of answers and meta updates: a few additions per message."""

from __future__ import annotations

from collections import Counter

import numpy as np

from mlrs_core.adapting import MetaOutcome
from mlrs_server.domain.ledger import REASON, AdviceReason
from mlrs_server.domain.updates import MetaUpdate
from mlrs_server.errors import Reason
from mlrs_server.live.answers import Answer
from mlrs_server.telemetry.latency import LatencyHistogram, now_s


class AdviceCounts:
    """Counters of answers. One thread writes them, any thread reads them."""

    def __init__(self) -> None:
        """Start at 0."""
        self.plain = 0
        """Answers in messages with fresh, not held, answers only."""
        self.others: Counter[AdviceReason] = Counter()
        """Answers in all other messages, by reason."""
        self.refused: Counter[Reason] = Counter()
        """Entries that could not be answered, by reason."""
        self.latency = LatencyHistogram()
        """How long messages took from their arrival to their answer, but not those of ranks, which wait."""
        self.updates: Counter[MetaOutcome] = Counter()
        """Meta updates that were applied or repeated, by outcome."""

    def note_update(self, update: MetaUpdate) -> None:
        """Count a meta update."""
        self.updates[MetaOutcome(update.outcome)] += 1

    def note(self, answer: Answer) -> None:
        """Count the answers of a message."""
        if answer.plain == len(answer.entries):
            self.plain += answer.plain
            return
        numbers = np.bincount(answer.entries.reasons & REASON, minlength=max(AdviceReason) + 1)
        for reason in AdviceReason:
            self.others[reason] += int(numbers[reason])
        for error in answer.errors.values():
            self.refused[error.reason] += 1

    def note_latency(self, answer: Answer, arrival_s: float) -> None:
        """Count how long a message took whose answer is about to be sent.

        Messages with reports of ranks are left out: how long these wait is for the other ranks to decide.

        Args:
            answer: its answer.
            arrival_s: when it arrived, on the clock of `latency.now_s`.
        """
        if not answer.reports:
            self.latency.note(now_s() - arrival_s)

    def by_reason(self) -> dict[AdviceReason, int]:
        """Return the number of answers, by reason."""
        counts = {reason: self.others[reason] for reason in AdviceReason}
        counts[AdviceReason.FRESH] += self.plain
        return counts
