"""The engine: answers observations as they come, and lets no message starve another.

The kernels take runs one by one, so there is nothing to gain by waiting for company (ADR 0014): a message is
answered where it is read. A long one is answered in slices, and whatever else has arrived comes in between.
"""

from __future__ import annotations

import asyncio

import numpy as np

from mlrs_core.policy import Floats, Steps
from mlrs_server.answers import Answer, Answerer
from mlrs_server.journal import Journal
from mlrs_server.ledger import Handles
from mlrs_server.runs import RunGroup

SLICE = 512
"""Entries answered at a time: one or two milliseconds under the models that come with mlrs."""


class Engine:
    """Answers observations, from one event loop."""

    def __init__(self, groups: list[RunGroup], journal: Journal) -> None:
        """`groups` is the live list of groups, which may grow."""
        self._answerer = Answerer(groups, journal)

    async def answer(self, handles: Handles, steps: Steps, losses: Floats) -> Answer:
        """Answer observations, in their order; all (n,) with n > 0."""
        n = len(handles)
        if n <= SLICE:
            return self._answerer.answer(handles, steps, losses)
        whole = Answer(np.empty(n), np.empty(n, np.uint8), np.empty(n, np.int64))
        for start in range(0, n, SLICE):
            part = slice(start, start + SLICE)
            whole.put(np.arange(n)[part], self._answerer.answer(handles[part], steps[part], losses[part]))
            await asyncio.sleep(0)
        return whole
