"""How much was advised, and why: a few additions a message."""

from __future__ import annotations

from collections import Counter

import numpy as np

from mlrs_core.adapting import MetaOutcome
from mlrs_server.domain.ledger import AdviceReason
from mlrs_server.domain.updates import MetaUpdate
from mlrs_server.errors import Reason
from mlrs_server.live.answers import Answer


class AdviceCounts:
    """Counts of answers. Written by one thread, read by any."""

    def __init__(self) -> None:
        """Begin at none."""
        self.plain = 0
        """Fresh answers that were not held, in messages that got nothing else."""
        self.others: Counter[AdviceReason] = Counter()
        """Answers in all other messages, by reason."""
        self.refused: Counter[Reason] = Counter()
        """Entries that could not be answered, by reason."""

        self.updates: Counter[MetaOutcome] = Counter()
        """Meta updates that were made, or repeated, by what they did."""

    def note_update(self, update: MetaUpdate) -> None:
        """Count a meta update."""
        self.updates[MetaOutcome(update.outcome)] += 1

    def note(self, answer: Answer) -> None:
        """Count what a message got."""
        if answer.plain == len(answer.entries):
            self.plain += answer.plain
            return
        numbers = np.bincount(answer.entries.reasons, minlength=max(AdviceReason) + 1)
        for reason in AdviceReason:
            self.others[reason] += int(numbers[reason])
        for error in answer.errors.values():
            self.refused[error.reason] += 1

    def by_reason(self) -> dict[AdviceReason, int]:
        """Return how many answers were given, by reason."""
        counts = {reason: self.others[reason] for reason in AdviceReason}
        counts[AdviceReason.FRESH] += self.plain
        return counts
