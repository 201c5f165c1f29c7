"""Runs and an engine without a wire, and a daemon with one."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from mlrs_core.config import RunConfig
from mlrs_core.policy import Floats, Policy
from mlrs_proto import v1 as pb
from mlrs_server.config import MAX_UNFLUSHED, ServerConfig
from mlrs_server.daemon import running_daemon
from mlrs_server.domain.handles import row_of
from mlrs_server.domain.observations import Entries
from mlrs_server.domain.ownership import Ownership
from mlrs_server.errors import AdvisorError, Reason
from mlrs_server.live.answers import Answer
from mlrs_server.live.engine import Engine
from mlrs_server.live.journal import Journal
from mlrs_server.live.live_runs import LiveRuns
from mlrs_server.live.recall import Recaller
from mlrs_server.live.replay import Replay
from mlrs_server.live.stored_runs import StoredRuns
from mlrs_server.live.views import RunView
from mlrs_server.models.catalog import ModelCatalog
from mlrs_server.models.files import asking
from mlrs_server.ranks.reports import RankReducer
from mlrs_server.runs.changes import RunChanges
from mlrs_server.runs.ending import RunEnding
from mlrs_server.runs.open_request import Opened, OpenMode, OpenRequest
from mlrs_server.runs.opener import RunOpener
from mlrs_server.runs.records import RunRecords
from mlrs_server.runs.remembering import ABANDONED_AFTER_S, TaskMemory
from mlrs_server.runs.searching import RunSearches
from mlrs_server.runs.watchers import Watchers
from mlrs_server.storage import Observations, Store, open_store
from tests.support.stubs import Stub

LOSSES: Floats = np.abs(np.random.default_rng(7).normal(2.0, 0.6, 400)) + 0.01
"""Losses of a run, for tests that need any."""


class FailingStore:
    """A store that can be told to fail, and to wait."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.failing: set[str] = set()
        """The methods that raise."""
        self.unblocked = threading.Event()
        """Calls wait until it is set."""
        self.unblocked.set()
        self.passing: set[str] = set()
        """The methods that do not wait."""
        self.calls: list[str] = []

    @property
    def engine_name(self) -> str:
        """That of the store."""
        return self._store.engine_name  # type: ignore[attr-defined,no-any-return]  # of SQL stores

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._store, name)

        def call(*args: Any, **kwargs: Any) -> Any:
            self.calls.append(name)
            assert name in self.passing or self.unblocked.wait(30)
            if name in self.failing:
                raise AdvisorError(Reason.STORE, "the disk is full")
            return method(*args, **kwargs)

        return call


class Asked:
    """What some observations got, by columns."""

    def __init__(self, answer: Answer) -> None:
        self.errors = answer.errors
        self.lrs: Floats = answer.entries.lrs
        self.reasons = answer.entries.reasons
        self.durable_steps = answer.entries.durable_steps


def observed(handles: Any, steps: Any, losses: Any, extras: Any = None) -> Entries:
    """Return observations, one or (n,) of them, as entries; with extras, (n, WIDTH), or without."""
    entries = Entries.of(
        np.atleast_1d(np.asarray(handles, np.uint64)),
        np.atleast_1d(np.asarray(steps, np.int64)),
        np.atleast_1d(np.asarray(losses, np.float64)),
    )
    entries.extras = None if extras is None else np.atleast_2d(extras)
    return entries


@dataclass(frozen=True)
class Harness:
    """Runs and an engine over a store."""

    live: LiveRuns
    stored: StoredRuns
    opener: RunOpener
    ending: RunEnding
    changes: RunChanges
    records: RunRecords
    searches: RunSearches
    recaller: Recaller
    engine: Engine
    catalog: ModelCatalog
    store: FailingStore
    rank_reducer: RankReducer
    memory: TaskMemory

    async def open(
        self,
        run_id: str,
        config: RunConfig | None = None,
        *,
        model: str = "",
        mode: OpenMode = "open",
        resume_from: int | None = None,
        world_size: int | None = None,
    ) -> Opened:
        """Open a run."""
        request = OpenRequest(
            run_id=run_id,
            asked=config or RunConfig(),
            model=model,
            mode=mode,
            resume_from=resume_from,
            world_size=world_size,
        )
        return await self.open_one(request)

    async def open_one(self, request: OpenRequest) -> Opened:
        """Open a run as a request says."""
        (opened,) = await self.opener.open_many([request])
        return opened

    async def finish(self, run_id: str, next_step: int | None = None) -> RunView:
        """Finish a run."""
        (view,) = await self.ending.finish_many([run_id], [] if next_step is None else [next_step])
        return view

    async def ask(self, handles: Any, steps: Any, losses: Any, extras: Any = None) -> Asked:
        """Have observations answered, those from the store included."""
        answer = await self.engine.answer(observed(handles, steps, losses, extras))
        await asyncio.sleep(0)  # as a stream does between two messages
        await self.recaller.recall(answer)
        return Asked(answer)

    async def report(
        self,
        handle: int,
        entries: Sequence[tuple[int, int, float]],
        samples: Sequence[float] = (),
        extras: Any = None,
    ) -> Answer:
        """Have a message of (step, rank, loss) of a run answered, as a stream does."""
        steps, ranks, losses = zip(*entries, strict=True)
        message = observed([handle] * len(entries), steps, losses, extras)
        message.table["rank"] = ranks
        answer = await self.engine.answer(message)
        await self.recaller.recall(answer)
        await self.rank_reducer.reduce(answer, samples, 0)
        return answer

    def row(self, handle: int) -> int:
        """Return the row of a run's group that a handle names."""
        return int(row_of(handle))

    async def follow(self, handle: int, losses: Sequence[float] | Floats, *, start: int = 0) -> Floats:
        """Return the learning rates of losses from a step on, sent one by one."""
        lrs = []
        for step, loss in enumerate(losses, start):
            answer = await self.ask(handle, step, loss)
            assert not answer.errors, answer.errors
            lrs.append(float(answer.lrs[0]))
        return np.array(lrs)

    async def history(self, run_id: str, from_step: int = 0) -> Observations:
        """Return a run's record from a step on."""
        parts = [part async for _, _, part in self.records.watch(run_id, from_step, follow=False)]
        return Observations(
            np.concatenate([part.losses for part in parts]),
            np.concatenate([part.lrs for part in parts]),
            np.concatenate([part.reasons for part in parts]),
        )


def harness_of(
    store: FailingStore,
    executor: Executor,
    catalog: ModelCatalog,
    watchers: Watchers,
    *,
    flush_interval_s: float,
    max_unflushed: int = MAX_UNFLUSHED,
    ownership: Ownership | None = None,
    abandoned_after_s: float = ABANDONED_AFTER_S,
) -> Harness:
    """Put together what answers calls over a store."""
    journal = Journal(
        store,
        executor,
        interval_s=flush_interval_s,
        on_flushed=watchers.wake,
        max_unflushed=max_unflushed,
    )
    live, changes = LiveRuns(catalog, journal), RunChanges(journal)
    stored = StoredRuns(store, executor, catalog, live, ownership)
    memory = TaskMemory(stored, catalog, abandoned_after_s=abandoned_after_s)
    opener = RunOpener(live, stored, watchers, catalog, changes, memory=memory)
    ending = RunEnding(live, stored, watchers, changes, memory)
    engine, records = Engine(live.groups, journal), RunRecords(live, stored, watchers)
    searches = RunSearches(live, stored, catalog, changes)
    recaller = Recaller(stored)
    rank_reducer = RankReducer(live, engine, recaller)
    return Harness(
        live,
        stored,
        opener,
        ending,
        changes,
        records,
        searches,
        recaller,
        engine,
        catalog,
        store,
        rank_reducer,
        memory,
    )


@asynccontextmanager
async def harness(
    data_dir: Path,
    model: Path | str | None,
    *,
    flush_interval_s: float = 30.0,
    max_unflushed: int = MAX_UNFLUSHED,
    store: str | None = None,
    abandoned_after_s: float = ABANDONED_AFTER_S,
) -> AsyncIterator[Harness]:
    """Open the runs of a folder, or of a store's URL, as a daemon would; close it without a word to callers.

    The flush interval is long, so that a test decides what is stored when.
    """
    data_dir.mkdir(parents=True, exist_ok=True)  # noqa: ASYNC240  # a test may block its loop
    with ThreadPoolExecutor(1) as executor:
        opened = executor.submit(open_store, store or data_dir / "mlrs.sqlite3").result()
        failing = FailingStore(opened)
        try:
            default = None if model is None else str(model)
            catalog = ModelCatalog(asking(failing, executor), default=default)
            made = harness_of(
                failing,
                executor,
                catalog,
                Watchers(),
                flush_interval_s=flush_interval_s,
                max_unflushed=max_unflushed,
                abandoned_after_s=abandoned_after_s,
            )
            yield made
            failing.unblocked.set()
            failing.failing.clear()
            await made.changes.close()
        finally:
            failing.unblocked.set()
            executor.submit(opened.close).result()


async def until(reached: Callable[[], bool]) -> None:
    """Let other tasks run until a condition holds."""
    while not reached():  # noqa: ASYNC110  # what is waited for tells nobody
        await asyncio.sleep(0)


def replayed(policy: Policy, config: RunConfig, losses: Sequence[float] | Floats) -> Floats:
    """Return the learning rates of a run that was alone in the world."""
    return Replay(policy, config).feed(np.asarray(losses, np.float64))


@contextmanager
def raises(reason: Reason, *, field: str | None = None, match: str = "") -> Iterator[None]:
    """Expect an `AdvisorError` of a reason, about a field."""
    with pytest.raises(AdvisorError, match=match or None) as caught:
        yield
    assert caught.value.reason == reason
    assert field in (None, caught.value.field)


# ------------------------------------------------------------------------------------ the wire


@asynccontextmanager
async def service(data_dir: Path, model: Path, **settings: Any) -> AsyncIterator[tuple[Stub, str]]:
    """Run a daemon in this process; yield a stub, and the address."""
    settings = {"listen": "127.0.0.1:0", **settings}
    config = ServerConfig(data_dir=data_dir, model=str(model), **settings)
    async with running_daemon(config) as address, channel(address) as stub:
        yield stub, address


@asynccontextmanager
async def channel(address: str) -> AsyncIterator[Stub]:
    """Connect to a daemon."""
    options = [("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)]
    async with grpc.aio.insecure_channel(address, options=options) as connection:
        yield Stub(connection)


async def create(stub: Any, run_id: str, **config: Any) -> int:
    """Open a run over the wire; return its handle."""
    request = pb.OpenRunRequest(run_id=run_id, config=pb.RunConfig(**config))
    response = await stub.OpenRun(request, timeout=20)
    return int(response.run_handle)


async def advised(stub: Any, run_id: str, losses: Sequence[float] | Floats, *, start: int = 0) -> list[float]:
    """Return the learning rates of losses from a step on, by unary calls."""
    return [
        (await stub.Advise(pb.AdviseRequest(run_id=run_id, step=step, loss=loss), timeout=20)).learning_rate
        for step, loss in enumerate(losses, start)
    ]


def columns(*entries: tuple[int, int, float]) -> pb.StreamAdviceRequest:
    """Return a message of (handle, step, loss) entries."""
    handles, steps, losses = zip(*entries, strict=True) if entries else ((), (), ())
    return pb.StreamAdviceRequest(
        observations=pb.Observations(run_handles=handles, steps=steps, losses=losses)
    )


@dataclass(frozen=True)
class Refusal:
    """What a failed call told the client."""

    code: grpc.StatusCode
    message: str
    reason: str
    field: str


def refusal_of(error: Any) -> Refusal:
    """Read a failed call."""
    trailing = dict(error.trailing_metadata() or ())
    return Refusal(
        error.code(), error.details() or "", trailing.get("mlrs-reason", ""), trailing.get("mlrs-field", "")
    )


async def refused(call: Any) -> Refusal:
    """Return how a call fails, unary or stream."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await (drained(call) if hasattr(call, "read") else call)
    return refusal_of(caught.value)


async def drained(call: Any) -> None:
    """Read a stream to its end."""
    while await call.read() is not grpc.aio.EOF:
        pass
