"""Runs in meta mode without a wire, and a plain account of what must come of them."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mlrs_core.config import MetaConfig, MetaOrder, RunConfig
from mlrs_core.policy import Floats
from mlrs_server.live.idle import _drop_idle
from mlrs_server.live.replay import Replay
from mlrs_server.meta.apply import Adaptation, Applied
from mlrs_server.runs.open_request import Opened
from tests.server.support import LOSSES, Harness, harness

META = RunConfig(horizon=400, num_classes=10, meta=MetaConfig(every=1, learning_rate=0.01))
"""A run in meta mode that learns fast."""
AFTER = RunConfig(
    horizon=400, num_classes=10, meta=MetaConfig(order=MetaOrder.AFTER_STEP, learning_rate=0.01)
)
"""Likewise, whose updates come after the real steps."""
EVERY = 3
"""Steps from one update to the next."""
STEPS = 90
"""Of a run that nothing happens to."""


def alignment_of(step: int) -> float:
    """Return the alignment that a test sends after a step."""
    return float(np.sin(step) * 3)


@dataclass
class Learning:
    """A run in meta mode, driven step by step, and what it was told."""

    harness: Harness
    opened: Opened
    adaptation: Adaptation
    lrs: list[float] = field(default_factory=list)
    """As first advised."""
    applied: list[Applied] = field(default_factory=list)

    async def go(self, losses: Sequence[float], start: int = 0) -> None:
        """Observe losses from a step on, one by one, with an update every `EVERY` steps."""
        for step, loss in enumerate(losses, start):
            answer = await self.harness.ask(self.opened.handle, step, loss)
            assert not answer.errors, answer.errors
            self.lrs.append(float(answer.lrs[0]))
            if step % EVERY == EVERY - 1:
                self.applied.append(await self.update(step))

    async def update(self, step: int, alignment: float | None = None, loss: float | None = None) -> Applied:
        """Make the update of a step."""
        sent = alignment_of(step) if alignment is None else alignment
        return await self.adaptation.apply(self.opened.handle, 0, step, sent, loss)


class Held:
    """Holds replays up, on whatever thread they are."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.begun, self.unblocked = threading.Event(), threading.Event()
        feed = Replay.feed

        def held(replay: Replay, *args: Any) -> Floats:
            self.begun.set()
            assert self.unblocked.wait(30)
            return feed(replay, *args)

        monkeypatch.setattr(Replay, "feed", held)


async def learning(there: Harness, run_id: str = "run", config: RunConfig = META) -> Learning:
    """Open a run that learns."""
    return Learning(there, await there.open(run_id, config), Adaptation(there.live, there.stored))


async def undisturbed(folder: Path, model: Path | None, config: RunConfig) -> list[float]:
    """Return what a run is told that nothing happens to."""
    async with harness(folder, model) as there:
        run = await learning(there, config=config)
        await run.go(LOSSES[:STEPS].tolist())
        return run.lrs


async def left_memory(there: Harness) -> None:
    """Have every run leave memory."""
    for group in list(there.live.groups):
        group.generation += 100
        assert await _drop_idle(there.live, group) > 0
    assert there.live.count() == 0
