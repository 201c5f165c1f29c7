"""Replays are long work: they leave the event loop alone."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mlrs_core.config import MetaConfig, RunConfig
from mlrs_core.networks import ARCHITECTURES
from mlrs_core.networks.serving import adaptive_policy_of, policy_of
from mlrs_core.policy import Policy
from mlrs_server.live.replay import Replay
from tests.server.meta.support import META
from tests.server.support import LOSSES, harness

STEPS = 400_000
"""Of a replay: far longer than this thread may wait for the interpreter."""


def _policies() -> dict[str, Policy]:
    random = np.random.default_rng(0)
    made: dict[str, Policy] = {}
    for kind, architecture in ARCHITECTURES.items():
        spec = architecture()
        shapes = spec.weight_shapes().items()
        weights = {name: random.normal(0, 0.1, shape).astype(np.float32) for name, shape in shapes}
        made[kind] = policy_of(spec, [weights])
        made[f"{kind} in meta mode"] = adaptive_policy_of(spec, [weights], MetaConfig())
    return made


class Watched:
    """A policy that says when it begins to advance runs, and when it has ended."""

    def __init__(self, policy: Policy, began: threading.Event, ended: threading.Event) -> None:
        self._policy, self._began, self._ended = policy, began, ended

    def __getattr__(self, name: str) -> Any:
        return getattr(self._policy, name)

    def background(self) -> Any:
        """Return the same of the policy's twin."""
        return Watched(self._policy.background(), self._began, self._ended)

    def advance(self, *arguments: Any) -> None:
        """Advance runs."""
        self._began.set()
        self._policy.advance(*arguments)
        self._ended.set()


@pytest.mark.parametrize("kind", _policies())
def test_a_replay_lets_other_threads_go_on(kind: str) -> None:
    """While a thread computes a long record in one piece, another goes on all the time."""
    began, ended = threading.Event(), threading.Event()
    policy: Any = Watched(_policies()[kind], began, ended)
    replay = Replay(policy, RunConfig(horizon=STEPS, num_classes=10))
    replay.feed(LOSSES[:1])  # its machine code is made, or loaded
    began.clear()
    ended.clear()
    losses = np.resize(LOSSES, STEPS)
    replaying = threading.Thread(target=replay.feed, args=(losses,))
    replaying.start()
    assert began.wait(60)
    rounds = 0
    while not ended.is_set():
        time.sleep(0.001)
        rounds += 1
    replaying.join()
    assert rounds > 10


@pytest.mark.parametrize("event", ["rewind", "rewind in meta mode", "restore in meta mode"])
async def test_no_replay_runs_on_the_event_loop(
    tmp_path: Path, model_file: Path, monkeypatch: pytest.MonkeyPatch, event: str
) -> None:
    """Whatever has a run replayed, its steps are computed on another thread than the event loop's."""
    seen: set[int] = set()
    feed = Replay.feed

    def watched(self: Replay, *arguments: object) -> object:
        seen.add(threading.get_ident())
        return feed(self, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(Replay, "feed", watched)
    config = RunConfig(meta=META.meta) if "meta" in event else RunConfig()
    async with harness(tmp_path / "d", model_file) as here:
        opened = await here.open("a", config)
        await here.follow(opened.handle, LOSSES[:50])
        if event.startswith("rewind"):
            await here.open("a", resume_from=20)
        else:
            await here.live.journal.flush()
            here.live.drop_rows(group := here.live.groups[0], [here.row(opened.handle)])
            assert group.is_empty()
            await here.open("a", config)
    assert seen
    assert threading.get_ident() not in seen
