"""The memory of tasks: what a new run begins with because of how runs before it ended.

What is decided becomes part of the new run's config, so no run depends on another once it is open.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial
from weakref import WeakValueDictionary

import structlog

from mlrs_core.config import RunConfig, ScheduleKind
from mlrs_core.config.schedule import MAX_BASE_LR, MIN_BASE_LR
from mlrs_core.memory import MOST, Arm, Decision, Ending, Expected, Explore, Fit, PastRun, evidence_of, recall
from mlrs_server.domain.ledger import RunStatus
from mlrs_server.domain.tails import tail
from mlrs_server.errors import AdvisorError, no_task
from mlrs_server.live.policies import new_run
from mlrs_server.live.stored_runs import StoredRuns
from mlrs_server.models.catalog import ModelCatalog, ModelsNow
from mlrs_server.models.files import reference
from mlrs_server.runs.open_request import OpenRequest
from mlrs_server.runs.past import NOTHING_SAID, ended, past_run_of
from mlrs_server.storage import NewRun, RememberedTask, RunKey, Store, StoredRun
from mlrs_server.storage.past_runs import task_of
from mlrs_server.tenancy import bare, full_name, tenant_of

log = structlog.get_logger()

ABANDONED_AFTER_S = 86_400.0
"""A run that has not been heard of for so long, in seconds, is no longer under way."""
ROUND_S = 300.0
"""The interval between rounds in which the ends of silent runs are stored, in seconds."""
AT_ONCE = 64
"""The number of runs of a round."""
KEPT = 1024
"""The number of runs at their horizon whose ends are kept in memory, as nobody has finished them."""
SHOWN = 100
"""The number of past runs that a reader gets."""
DECIDED_BY_CALLER = ("schedule", "meta", "initial_lr", "lr_offset", "scale", "snapshot")
"""The fields of a config that leave no choice to the memory, as a model does."""


@dataclass(frozen=True, kw_only=True)
class TaskView:
    """What is remembered of a task."""

    task: RememberedTask
    runs: Sequence[PastRun]
    """The newest, the newest first; at most `SHOWN`."""
    fit: Fit | None
    """What was fitted to them, for a run like the newest one; `None`: too little is known."""
    curve: Sequence[Expected]
    next: Decision
    """What a run like the newest one would begin with."""


@dataclass(frozen=True)
class Leaving:
    """A run that is about to be deleted or replaced."""

    run: StoredRun
    past: PastRun | None
    """How it ended, as far as that is known."""
    is_stored: bool
    """Whether there is nothing to store of that: it is stored, or the run has not ended."""

    @property
    def ended(self) -> list[tuple[RunKey, PastRun]]:
        """How it ended, if that is to be stored."""
        return [] if self.is_stored or self.past is None else [(self.run, self.past)]


class TaskMemory:
    """The memory of tasks. Used from one event loop."""

    def __init__(
        self, stored: StoredRuns, catalog: ModelCatalog, *, abandoned_after_s: float = ABANDONED_AFTER_S
    ) -> None:
        """Remember what `stored` has; `catalog` has the models of runs."""
        self._stored = stored
        self._catalog = catalog
        self._abandoned_after_s = abandoned_after_s
        self._locks = WeakValueDictionary[str, asyncio.Lock]()
        self._ended = dict[tuple[int, int, float], PastRun]()  # of runs at their horizon

    # ------------------------------------------------------------------------------ deciding

    @asynccontextmanager
    async def deciding(
        self, requests: Sequence[OpenRequest], found: Mapping[str, StoredRun | RunKey]
    ) -> AsyncIterator[None]:
        """Hold the tasks of requests while their runs are decided on and created, so that these differ.

        `found` are the runs that exist, by id.
        """
        asking = [request for request in requests if request.explore is not None]
        async with AsyncExitStack() as held:
            for task in sorted({_task_of(request, found.get(request.run_id)) for request in asking}):
                await held.enter_async_context(self._locks.setdefault(task, asyncio.Lock()))
            yield

    async def recalled(self, new: Sequence[tuple[OpenRequest, NewRun]], models: ModelsNow) -> list[NewRun]:
        """Return new runs with what the memory of their tasks decides, if they take part in it."""
        decided, known = list[NewRun](), dict[str, list[PastRun]]()
        own = {bare(run.run_id) for _, run in new}  # one that is completed is under way itself
        for request, run in new:
            if not takes_part(request, run.config):
                decided.append(run)
                continue
            # One at a time on the store's thread, which between them does what others wait for.
            decided.append(
                await self._stored.in_store(partial(self._decided, request, run, known, own, models))
            )
        return decided

    def _decided(
        self,
        request: OpenRequest,
        run: NewRun,
        known: dict[str, list[PastRun]],
        own: Collection[str],
        models: ModelsNow,
        store: Store,
    ) -> NewRun:
        """Return a run as the memory decides, after those before it in its call; on the store's thread."""
        assert request.explore is not None  # noqa: S101  # as `takes_part` says
        task = task_of(run)
        if task not in known:
            past = self._past(store, task, MOST, past_run_of(run, Ending.UNDER_WAY).setting.family)
            known[task] = [one for one in past if one.ending is not Ending.UNDER_WAY or one.run_id not in own]
        decided = with_decision(run, _decision(run, known[task], request.explore), models)
        known[task].insert(0, past_run_of(decided, Ending.UNDER_WAY))
        return decided

    # -------------------------------------------------------------------------------- ending

    async def leaving(self, run_ids: Collection[str]) -> dict[str, Leaving]:
        """Return runs, by id, that are about to go, of those that take part in the memory and can be read."""
        found = dict[str, Leaving]()
        if not run_ids:
            return found
        for run in await self._stored.in_store(lambda store: _readable(store, run_ids)):
            if run.config.recalled is not None:
                found[run.run_id] = await self._stored.in_store(partial(self._leaving, run))
        return found

    def _leaving(self, run: StoredRun, store: Store) -> Leaving:
        if run.snapshot.status == RunStatus.FINISHED:
            return Leaving(run, store.past_run(run), is_stored=True)
        past = self._not_finished(run, store)
        return Leaving(run, past, is_stored=past.ending not in (Ending.REACHED, Ending.DIVERGED))

    async def keep_settled(
        self, *, held_shards: Callable[[], Collection[int]] | None = None, round_s: float = ROUND_S
    ) -> None:
        """Store how runs ended that have not been heard of for `abandoned_after_s`; until cancelled.

        `held_shards` returns the shards whose runs may be written; `None`: all.
        """
        while True:
            await asyncio.sleep(round_s)
            try:
                await self.settle(held_shards and held_shards())
            except AdvisorError as error:  # the journal logs the failing store as an error
                log.warning("memory_waits", problem=str(error))
            except Exception as error:  # a defect: the next round may succeed
                log.error("memory_failed", exc_info=error)

    async def settle(self, shards: Collection[int] | None = None) -> int:
        """Store how silent runs of some shards, or of any, ended; return their number."""
        before = time.time() - self._abandoned_after_s
        silent = await self._stored.in_store(
            lambda store: store.silent(before=before, shards=shards, limit=AT_ONCE)
        )
        for run in silent:
            past = await self._stored.in_store(partial(self._not_finished, run))
            await self._stored.in_store(partial(_store_ending, run, past))
        return len(silent)

    # ------------------------------------------------------------------------------- reading

    async def tasks(self, tenant: str, *, after: str, limit: int) -> Sequence[RememberedTask]:
        """Return a tenant's tasks by name, from the first beyond `after`."""
        return await self._stored.in_store(lambda store: store.tasks(tenant, after=after, limit=limit))

    async def task(self, tenant: str, name: str) -> TaskView:
        """Return what is remembered of a task.

        Raises:
            AdvisorError: nothing is.
        """
        full = full_name(tenant, name)
        task = await self._stored.in_store(lambda store: store.task(full))
        past = await self._stored.in_store(lambda store: self._past(store, full, SHOWN))
        if task is None or not past:
            raise no_task(name)
        names = await self._stored.in_store(self._catalog.names_in)
        digest, model = names.meaning("", tenant)
        return await asyncio.to_thread(_view, task, past, reference(model, digest))

    async def forget(self, tenant: str, name: str) -> int:
        """Forget a task; return how many runs were remembered.

        Raises:
            AdvisorError: nothing is remembered of it.
        """
        full = full_name(tenant, name)
        if not (count := await self._stored.in_store(lambda store: store.forget(full))):
            raise no_task(name)
        log.info("task_forgotten", task=full, runs=count)
        return count

    def _past(self, store: Store, task: str, limit: int, family: str | None = None) -> list[PastRun]:
        """Return the runs of a task, the newest first; on the store's thread."""
        found = store.past_runs(task, limit, family)
        return [one if isinstance(one, PastRun) else self._not_finished(one, store) for one in found]

    def _not_finished(self, run: StoredRun, store: Store) -> PastRun:
        """Return a run that is not finished as the memory takes it; many loops leave theirs at its end."""
        if run.snapshot.next_step >= (run.config.after_search().horizon or math.inf):
            return self._reached(store, run)
        if run.snapshot.status == RunStatus.DIVERGED:
            ending = Ending.DIVERGED
        elif time.time() - run.update_time > self._abandoned_after_s:
            ending = Ending.STOPPED
        else:
            ending = Ending.UNDER_WAY
        return past_run_of(run, ending, at=run.update_time)

    def _reached(self, store: Store, run: StoredRun) -> PastRun:
        """Return how a run ended that is at its horizon; its record is read once."""
        at = run.key, run.snapshot.next_step, run.update_time  # it may have been rewound
        if at not in self._ended:
            if len(self._ended) >= KEPT:
                self._ended.clear()
            self._ended[at] = ended(store, run, run.snapshot.status, NOTHING_SAID, at=run.update_time)
        return self._ended[at]


def takes_part(request: OpenRequest, config: RunConfig) -> bool:
    """Return whether a new run takes part in the memory of its task."""
    decided = request.model or any(getattr(config, name) is not None for name in DECIDED_BY_CALLER)
    return request.explore is not None and config.horizon is not None and not decided


def _task_of(request: OpenRequest, run: StoredRun | RunKey | None) -> str:
    """Return the full name of the task of a request, whose run may exist."""
    if isinstance(run, StoredRun):
        return task_of(run)
    return full_name(tenant_of(request.run_id), request.task or bare(request.run_id))


def _store_ending(run: StoredRun, past: PastRun, store: Store) -> None:
    """Store how a silent run ended, unless it was finished meanwhile."""
    if store.past_run(run) is None:
        store.finish([], [(run, past)])


def _readable(store: Store, run_ids: Iterable[str]) -> list[StoredRun]:
    """Return the runs of some ids that exist and can be read."""
    found = list[StoredRun]()
    for run_id in run_ids:
        try:
            found += store.get([run_id]).values()
        except AdvisorError as error:
            log.warning("run_unreadable", run_id=run_id, problem=str(error))
    return found


def _decision(run: NewRun, past: Sequence[PastRun], explore: Explore) -> Decision:
    """Return what the memory decides for a run."""
    config = run.config
    low = MIN_BASE_LR if config.min_lr is None else max(config.min_lr, MIN_BASE_LR)
    high = MAX_BASE_LR if config.max_lr is None else min(config.max_lr, MAX_BASE_LR)
    own = past_run_of(run, Ending.UNDER_WAY)
    return recall(past, own.setting, explore, network=own.policy, bounds=(low, high))


def with_decision(run: NewRun, decision: Decision, models: ModelsNow) -> NewRun:
    """Return a new run as the memory has decided."""
    arm, config = decision.arm, replace(run.config, recalled=decision.recalled)
    if arm is None:
        return replace(run, config=config)
    if arm.learning_rate is None:
        return replace(run, config=replace(config, lr_offset=arm.lr_offset or None))
    assert config.horizon is not None  # noqa: S101  # as `takes_part` says
    schedule = tail(ScheduleKind[arm.policy.upper()], config.horizon, arm.learning_rate)
    made = new_run(run.run_id, replace(config, schedule=schedule), "", models, task=run.task)
    return replace(made, shard=run.shard, world_size=run.world_size, feeder=run.feeder)


def keeps_decision(request: OpenRequest, run: NewRun, before: Leaving) -> bool:
    """Return whether a run that replaces one of its id keeps what was decided for that one.

    It does if both are of the same kind, and that one has not diverged.
    """
    has_diverged = before.past is not None and before.past.ending is Ending.DIVERGED
    if not takes_part(request, run.config) or has_diverged:
        return False
    mine, theirs = (past_run_of(one, Ending.UNDER_WAY).setting for one in (run, before.run))
    bounds = [(one.config.min_lr, one.config.max_lr) for one in (run, before.run)]
    return mine == theirs and bounds[0] == bounds[1]


def begun_again(run: NewRun, replaced: StoredRun, models: ModelsNow) -> NewRun:
    """Return a run that replaces one of its id, with what the memory had decided for that one."""
    before = replaced.config
    assert before.recalled is not None  # noqa: S101  # as `TaskMemory.readable` returns it
    arm = None
    if before.recalled.decided:
        schedule = before.schedule
        arm = Arm(
            policy="" if schedule is None else schedule.kind.spelling,
            learning_rate=None if schedule is None else schedule.base_lr,
            lr_offset=before.lr_offset or 0.0,
        )
    return with_decision(run, Decision(recalled=before.recalled, arm=arm), models)


def _view(task: RememberedTask, past: Sequence[PastRun], network: str) -> TaskView:
    setting = past[0].setting
    evidence = evidence_of(past[:MOST], setting, network)
    fit = Fit(evidence) if evidence.has_scores else None
    return TaskView(
        task=task,
        runs=past,
        fit=fit,
        curve=fit.curve() if fit else (),
        next=recall(past, setting, Explore.CAREFUL, network=network),
    )
