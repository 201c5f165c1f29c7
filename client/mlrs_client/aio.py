"""The client for asyncio; the same shape as `mlrs_client`, to be awaited.

    async with mlrs_client.aio.connect("localhost:50051") as advisor:
        async with advisor.run("resnet18-cifar10", horizon=10_000) as run:
            pending = run.observe(step, loss)   # returns at once
            lr = await pending.lr()

An advisor belongs to the event loop that it was made in. Arguments, errors and results are those of
the methods of the same names in `mlrs_client`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar, Unpack

from mlrs_client import _arguments as check
from mlrs_client import _calls as calls
from mlrs_client._access import TLS, access_of
from mlrs_client._advisor import (
    DEFAULT_TIMEOUT_S,
    RECORD_TIMEOUT_S,
    import_sweeps,
    opening_timeout_s,
    ranked,
)
from mlrs_client._aio_adapting import MetaAdvisor
from mlrs_client._aio_connection import Connection, Signal
from mlrs_client._aio_run import Opening, Pending, PendingAdaptation, Run
from mlrs_client._entries import Entry
from mlrs_client._fallback import FallbackLike, fallback_of
from mlrs_client._joining import deleted, opened
from mlrs_client._leading import follows
from mlrs_client._ledger import Ledger
from mlrs_client._meta_types import Meta
from mlrs_client._types import (
    ModelInfo,
    Optimizer,
    RankMode,
    RankReduction,
    RecordChunk,
    RunInfo,
    RunStatus,
    Schedule,
    SweepConfig,
)
from mlrs_client._views import given_fields

if TYPE_CHECKING:
    from mlrs_client._aio_sweep import Sweep

__all__ = ["Advisor", "Pending", "PendingAdaptation", "Run", "connect"]

T = TypeVar("T")


def connect(
    target: str | Sequence[str],
    *,
    timeout_s: float = DEFAULT_TIMEOUT_S,
    token: str | None = None,
    tls: TLS | bool | None = None,
    allow_insecure_token: bool = False,
) -> Advisor:
    """Return an advisor of the daemon at an address; to be called while an event loop runs.

    See `mlrs_client.connect`.
    """
    addresses = check.targets(target)
    access = access_of(addresses, token, tls, allow_insecure_token=allow_insecure_token)
    return Advisor(Connection(addresses, access, check.timeout_s(timeout_s)))


class Advisor(MetaAdvisor):
    """A connection to a daemon. May be shared by the tasks of one event loop.

    Close it, or use it as an asynchronous context manager. See `mlrs_client.Advisor`.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def run(
        self,
        id: str,  # noqa: A002 # what users call it
        *,
        model: str | None = None,
        policy: Schedule | str | None = None,
        base_lr: float | None = None,
        warmup: int | None = None,
        horizon: int | None = None,
        num_classes: int | None = None,
        scale: float | None = None,
        snapshot: int | None = None,
        optimizer: Optimizer | str | None = None,
        momentum: float | None = None,
        initial_lr: float | None = None,
        min_lr: float | None = None,
        max_lr: float | None = None,
        meta: Meta | bool | None = None,
        rank: int | None = None,
        world_size: int | None = None,
        rank_mode: RankMode | str | None = None,
        rank_reduction: RankReduction | str | None = None,
        straggler_timeout_s: float | None = None,
        quorum: float | None = None,
        mode: check.OpenMode = "open",
        resume_from: int | None = None,
        fallback: FallbackLike = "auto",
        timeout_s: float | None = None,
    ) -> Opening[Run]:
        """Open a training run, with `async with` or `await`. See `mlrs_client.Advisor.run`."""
        config = check.config(
            model=model,
            policy=policy,
            base_lr=base_lr,
            warmup=warmup,
            horizon=horizon,
            num_classes=num_classes,
            scale=scale,
            snapshot=snapshot,
            optimizer=optimizer,
            momentum=momentum,
            initial_lr=initial_lr,
            min_lr=min_lr,
            max_lr=max_lr,
            meta=meta,
        )
        config, own_rank, size = ranked(
            config, rank, world_size, rank_mode, rank_reduction, straggler_timeout_s, quorum
        )
        rewind = None if follows(config, own_rank) else resume_from
        call = calls.checked_open_run(id, config, mode, rewind, size)
        limit_s = self._limit_s(opening_timeout_s(timeout_s, resume_from))

        checked = fallback_of(fallback, [config])

        def ledger_of(runs: calls.Opened) -> Ledger[Entry]:
            entry = Entry if own_rank is None else Entry.of_rank
            ledger = Ledger(runs, Signal(), entry, given_fields(config), checked, own_rank)
            ledger.led = {} if follows(ledger.config, own_rank) else None
            return ledger

        async def opening() -> Run:
            procedure = opened(self._connection.session, [call], limit_s, ledger_of)
            ledger = await self._connection.perform(procedure)
            if ledger.led is not None:
                self._connection.follow(ledger, resume_from)
            return Run(self._connection, ledger)

        return Opening(opening)

    def sweep(
        self,
        ids: Sequence[str],
        *,
        mode: check.OpenMode = "open",
        resume_from: int | None = None,
        fallback: FallbackLike = "last",
        timeout_s: float | None = None,
        **config: Unpack[SweepConfig],
    ) -> Opening[Sweep]:
        """Open many training runs as one, with `async with` or `await`. See `mlrs_client.Advisor.sweep`."""
        run_ids, configs = check.sweep(ids, config)
        batches = calls.open_runs(run_ids, configs, *check.opening(mode, resume_from), group=run_ids[0])
        limit_s = RECORD_TIMEOUT_S if timeout_s is None else check.timeout_s(timeout_s)
        rows, flavour = import_sweeps("_aio_sweep")
        checked = fallback_of(fallback, configs)

        def ledger_of(runs: calls.Opened) -> Ledger[Any]:
            return Ledger(runs, Signal(), rows.Row, fallback=checked)

        async def opening() -> Sweep:
            procedure = opened(self._connection.session, batches, limit_s, ledger_of)
            sweep: Sweep = flavour.Sweep(self._connection, await self._connection.perform(procedure))
            return sweep

        return Opening(opening)

    async def runs(
        self,
        prefix: str = "",
        status: RunStatus | str | None = None,
        *,
        newest_first: bool = False,
        limit: int | None = None,
    ) -> AsyncIterator[RunInfo]:
        """Iterate over the runs, each once. See `mlrs_client.Advisor.runs`."""
        listing = calls.RunListing(prefix, status, limit, newest_first=newest_first)
        while call := listing.next_call():
            for run in listing.new_of(await self._invoke(call)):
                yield run

    async def get_run(self, id: str) -> RunInfo:  # noqa: A002 # what users call it
        """Return a run."""
        return await self._invoke(calls.get_run(id))

    async def delete_run(self, id: str) -> None:  # noqa: A002 # what users call it
        """Delete a run and its record."""
        session = self._connection.session
        await self._connection.perform(deleted(session, check.run_id(id), session.timeout_s))

    def watch(
        self,
        id: str,  # noqa: A002 # what users call it
        from_step: int = 0,
        *,
        follow: bool = False,
        timeout_s: float | None = None,
    ) -> AsyncIterator[RecordChunk]:
        """Iterate over the record of a run. See `mlrs_client.Advisor.watch`."""
        request = calls.watch_run(id, from_step, follow)
        if timeout_s is None:
            return self._connection.watch(request, None if follow else RECORD_TIMEOUT_S)
        return self._connection.watch(request, check.timeout_s(timeout_s))

    async def models(self) -> AsyncIterator[ModelInfo]:
        """Iterate over the models that runs can name."""
        async for model in self._pages(calls.list_models):
            yield model

    async def model(self, name: str) -> ModelInfo:
        """Return a model by name, alias or `name@digest`."""
        return await self._invoke(calls.get_model(name))

    async def close(self) -> None:
        """Let the stream end in good order, within the deadline; then drop the connection."""
        await self._connection.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def __repr__(self) -> str:
        return f"<Advisor of {self._connection.addresses}>"

    def _limit_s(self, timeout_s: float | None) -> float:
        return self._connection.timeout_s if timeout_s is None else check.timeout_s(timeout_s)

    async def _invoke(self, call: calls.Call[T]) -> T:
        return await self._connection.invoke(call, self._connection.timeout_s)

    async def _pages(self, page_at: Callable[[str], calls.Call[calls.Page[T]]]) -> AsyncIterator[T]:
        token = ""
        while True:
            page = await self._invoke(page_at(token))
            for item in page.items:
                yield item
            if not (token := page.next_token):
                return
