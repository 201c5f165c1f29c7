"""Runs of one task that take part in its memory, without a wire."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mlrs_core.config import Optimizer, RunConfig
from mlrs_core.memory import Explore, PastRun
from mlrs_core.policy import Floats
from mlrs_server.domain.extras import LOSS, STEP, none_sent
from mlrs_server.runs.open_request import Opened, OpenRequest
from mlrs_server.runs.past import Outcome
from mlrs_server.runs.remembering import TaskView
from tests.server.support import LOSSES, Harness

HORIZON = 40
CONFIG = RunConfig(horizon=HORIZON, optimizer=Optimizer.ADAM, batch_size=8)
"""What runs have unless told otherwise."""


def asked(
    run_id: str, config: RunConfig = CONFIG, *, explore: Explore | None = Explore.CAREFUL, **request: Any
) -> OpenRequest:
    """Return the request to open a run of the task `task`."""
    return OpenRequest(run_id=run_id, asked=config, explore=explore, **{"task": "task", **request})


async def begin(here: Harness, run_id: str, config: RunConfig = CONFIG, **request: Any) -> Opened:
    """Open a run of the task `task`."""
    return await here.open_one(asked(run_id, config, **request))


async def observe(
    here: Harness,
    handle: int,
    losses: Sequence[float] | Floats,
    *,
    start: int = 0,
    validations: Mapping[int, float] | None = None,
) -> Floats:
    """Send losses, some with validation losses by their step; return the learning rates."""
    steps = range(start, start + len(losses))
    extras = none_sent(len(losses))
    for step, loss in (validations or {}).items():
        extras[step - start, [LOSS, STEP]] = loss, step
    sent = await here.ask([handle] * len(losses), steps, losses, extras)
    assert not sent.errors, sent.errors
    return sent.lrs.copy()


async def end(here: Harness, run_id: str, **told: Any) -> None:
    """Finish a run with what its caller says of it."""
    await here.ending.finish_many([run_id], [], [Outcome(**told)])


async def train(
    here: Harness,
    run_id: str,
    config: RunConfig = CONFIG,
    *,
    losses: Sequence[float] | Floats | None = None,
    validations: Mapping[int, float] | None = None,
    explore: Explore | None = Explore.CAREFUL,
    task: str = "task",
    **told: Any,
) -> RunConfig:
    """Open a run, send losses, by default as many as its horizon, and finish it; return its config."""
    opened = await begin(here, run_id, config, explore=explore, task=task)
    if losses is None:
        losses = LOSSES[: opened.view.config.after_search().horizon]
    await observe(here, opened.handle, losses, validations=validations)
    await end(here, run_id, **told)
    return opened.view.config


async def known(here: Harness, tenant: str = "", task: str = "task") -> TaskView:
    """Return what is remembered of a task."""
    return await here.memory.task(tenant, task)


async def newest(here: Harness) -> PastRun:
    """Return the newest run of the task `task`, as the memory has it."""
    return (await known(here)).runs[0]
