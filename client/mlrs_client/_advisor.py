"""The threaded client: `connect`, and the advisor that comes of it."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from importlib import import_module
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar, Unpack

from mlrs_client import _arguments as check
from mlrs_client import _calls as calls
from mlrs_client._access import TLS, access_of
from mlrs_client._adapting import MetaAdvisor
from mlrs_client._connection import Connection
from mlrs_client._entries import Entry
from mlrs_client._exceptions import UsageError
from mlrs_client._fallback import FallbackLike, fallback_of
from mlrs_client._joining import deleted, opened
from mlrs_client._leading import follows
from mlrs_client._ledger import Ledger
from mlrs_client._meta_types import Meta
from mlrs_client._run import Run
from mlrs_client._signal import Signal
from mlrs_client._types import (
    ModelInfo,
    Optimizer,
    RankMode,
    RankReduction,
    RecordChunk,
    RunConfig,
    RunInfo,
    RunStatus,
    Schedule,
    SweepConfig,
)
from mlrs_client._views import given_fields

if TYPE_CHECKING:
    from mlrs_client._sweep import Sweep

T = TypeVar("T")
DEFAULT_TIMEOUT_S = 2.0
"""How long a call waits for the daemon, in seconds, unless told otherwise."""
RECORD_TIMEOUT_S = 60.0
"""How long reading a record, or rewinding to a step of it, may take, in seconds."""


def opening_timeout_s(timeout_s: float | None, resume_from: int | None) -> float | None:
    """Return how long opening a run may take; `None`: as long as any call."""
    return RECORD_TIMEOUT_S if timeout_s is None and resume_from is not None else timeout_s


def ranked(config: RunConfig, *given: object) -> tuple[RunConfig, int | None, int | None]:
    """Return a config with what was given of ranks, checked; which rank this is, and how many there are.

    Raises:
        InvalidArgumentError: something of it is wrong.
    """
    checked = check.ranks(*given)
    if checked is None:
        return config, None, None
    ranks, rank, world_size = checked
    return dataclasses.replace(config, ranks=ranks), rank, world_size


def import_sweeps(flavour: str) -> tuple[Any, Any]:
    """Return the modules of sweeps, which import NumPy; the rest of the client does without.

    Raises:
        UsageError: NumPy is not installed.
    """
    try:
        return import_module("mlrs_client._rows"), import_module(f"mlrs_client.{flavour}")
    except ModuleNotFoundError as error:
        raise UsageError(
            "sweeps work on NumPy arrays, and NumPy is not installed: pip install numpy"
        ) from error


def connect(
    target: str | Sequence[str],
    *,
    timeout_s: float = DEFAULT_TIMEOUT_S,
    token: str | None = None,
    tls: TLS | bool | None = None,
    allow_insecure_token: bool = False,
) -> Advisor:
    """Return an advisor of the daemon at an address. Does not wait: the first call connects.

    Args:
        target: `host:port`, `[ipv6]:port` or `unix:path`; several, as a list or with commas between, are
            replicas over one database. Replicas that these name are found by themselves.
        timeout_s: the deadline of every call that names none, in seconds.
        token: says who calls, where the daemon wants that. Default: `MLRS_TOKEN` in the environment.
        tls: `True`, or a `TLS` that says more: connections are encrypted.
        allow_insecure_token: let the token travel in the clear beyond this machine.

    Raises:
        InvalidArgumentError: an address names no port, the deadline is not positive, a file of `tls` cannot
            be read, or the token would travel in the clear.
    """
    addresses = check.targets(target)
    access = access_of(addresses, token, tls, allow_insecure_token=allow_insecure_token)
    return Advisor(Connection(addresses, access, check.timeout_s(timeout_s)))


class Advisor(MetaAdvisor):
    """A connection to a daemon. May be shared by threads, and not by forked processes.

    Close it, or use it as a context manager. One that was forgotten is closed when Python exits.
    Every method raises `UnavailableError` if the daemon is out of reach, `DeadlineExceededError` if
    it does not answer in time, `ClosedError` after `close` and `ForkedError` in a forked child.
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
    ) -> Run:
        """Open a training run: create it, or resume it if it exists.

        Args:
            id: 1 to 256 letters, digits and any of `._-/:+=@`, beginning with a letter or digit.
            model: a name, an alias or `name@digest`. Default: the daemon's.
            policy: a schedule designed by hand in place of a model: a `Schedule`, or the kind of one, such
                as `cosine`.
            base_lr: the LR that the schedule multiplies. Default: `initial_lr`, else the usual one of the
                optimizer.
            warmup: the steps of the schedule's linear warmup. Default: 0.
            horizon: the total number of steps, if known. A run may go on beyond it: a model then
                advises as at the end, and a schedule holds its last learning rate.
            num_classes: the number of classes of a classification loss.
            scale: the upper bound gamma of a paper-exact model's LR. Default: the model's rule.
            snapshot: the snapshot that a run without a horizon stays on. Default: the middle one.
            optimizer: `sgd`, `momentum`, `nesterov`, `adam`, `adamw` or `other`.
            momentum: its momentum (for Adam, beta 1), in [0, 1).
            initial_lr: the learning rate to start from, for models that take one; by default the
                usual one of the optimizer's family. `mlr-snet` begins with a fifth of it, a warmup.
            min_lr: no advice is below this.
            max_lr: no advice is above this.
            rank: which process of a distributed job this is, from 0, where all share the run's one schedule.
            world_size: how many there are from the next step on. Default: as many as the run has; at
                first, one.
            rank_mode: `all`, every rank observes its own loss of each step, the daemon reduces them to
                one, and each gets the same learning rate; or `leader`: rank 0 alone is listened to, and the
                others get what it was advised, once that is stored; their `resume_from` rewinds nothing.
            rank_reduction: `mean`, weighted by `samples`, or `median`.
            straggler_timeout_s: how long after the first loss of a step a `quorum` of the ranks is
                enough. Default: all are waited for.
            quorum: that share of the ranks. Default: 0.5.
            meta: `True`, or a `Meta` that says more: the run's network goes on learning, from what
                `Run.adapt` is told.
            mode: `open`, or `create` if the run must be new, or `resume` if it must exist. With several
                addresses, a run that a try created whose answer was lost counts as new if it can be told.
            resume_from: rewinds the run to this step, for a job that restarts from a checkpoint. What
                was recorded from there on is dropped.
            fallback: what the run goes on with when a deadline passes without advice, until the daemon is
                back: `last`, the last advice (before there is any: `initial_lr`, or else the error); a
                `Schedule` that is a function of the step; a function of the step; or `None` or `error`,
                and the error is raised. Losses are kept and sent again; a warning is logged. `auto` is
                `last`, but `error` where ranks share the run: each would fall back, and come back, at a
                step of its own.
            timeout_s: the deadline, in seconds. Default: the advisor's; with `resume_from` a minute,
                since the daemon computes the run anew up to there.

        Raises:
            InvalidArgumentError: an argument is of a wrong type or out of range.
            ConfigMismatchError: the run exists with another config.
            RunExistsError: `mode` is `create` and the id is taken.
            RunNotFoundError: `mode` is `resume` and there is none.
            RunFinishedError: the run is finished.
            ModelNotFoundError: there is no such model.
        """
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

        opening = opened(self._connection.session, [call], limit_s, ledger_of)
        ledger = self._connection.perform(opening, limit_s)
        if ledger.led is not None:
            self._connection.follow(ledger, resume_from)
        return Run(self._connection, ledger)

    def sweep(
        self,
        ids: Sequence[str],
        *,
        mode: check.OpenMode = "open",
        resume_from: int | None = None,
        fallback: FallbackLike = "last",
        timeout_s: float | None = None,
        **config: Unpack[SweepConfig],
    ) -> Sweep:
        """Open many training runs that take their steps together, such as those of a vmapped population.

            sweep = advisor.sweep([f"member-{i}" for i in range(256)], horizon=1000, initial_lr=rates)
            lrs = sweep.next_lrs(step, losses)   # arrays, (256,)

        Args:
            ids: the runs' ids, 1 to 65,536, all different.
            mode: as for `run`.
            resume_from: as for `run`, for every run.
            fallback: as for `run`; a function may return an array, one learning rate a run.
            timeout_s: the deadline of each call that opens a thousand runs, in seconds. Default: 60.
            config: what `run` takes: each a value for all runs, or a list or array of one a run.

        Raises:
            UsageError: NumPy is not installed.
            InvalidArgumentError: an argument is of a wrong type, length or range.
            MlrsError: as for `run`; the error names the run. Runs that were opened before it stay open.
        """
        run_ids, configs = check.sweep(ids, config)
        limit_s = RECORD_TIMEOUT_S if timeout_s is None else check.timeout_s(timeout_s)
        rows, flavour = import_sweeps("_sweep")
        batches = calls.open_runs(run_ids, configs, *check.opening(mode, resume_from), group=run_ids[0])
        checked = fallback_of(fallback, configs)

        def ledger_of(runs: calls.Opened) -> Ledger[Any]:
            return Ledger(runs, Signal(), rows.Row, fallback=checked)

        opening = opened(self._connection.session, batches, limit_s, ledger_of)
        whole_s = limit_s * -(-len(run_ids) // calls.MAX_BATCH)
        sweep: Sweep = flavour.Sweep(self._connection, self._connection.perform(opening, whole_s))
        return sweep

    def runs(
        self,
        prefix: str = "",
        status: RunStatus | str | None = None,
        *,
        newest_first: bool = False,
        limit: int | None = None,
    ) -> Iterator[RunInfo]:
        """Iterate over the runs, each once.

        Args:
            prefix: only runs whose ids begin with this.
            status: only runs of this status.
            newest_first: list the run first whose observations were stored last. Default: by id.
            limit: at most this many. Default: all.
        """
        listing = calls.RunListing(prefix, status, limit, newest_first=newest_first)
        while call := listing.next_call():
            yield from listing.new_of(self._invoke(call))

    def get_run(self, id: str) -> RunInfo:  # noqa: A002 # what users call it
        """Return a run. Raises `RunNotFoundError` if there is none."""
        return self._invoke(calls.get_run(id))

    def delete_run(self, id: str) -> None:  # noqa: A002 # what users call it
        """Delete a run and its record. Raises `RunNotFoundError` if there is none.

        With several addresses a try whose answer was lost is made again elsewhere; where the run is gone
        then, it was deleted.
        """
        deleting = deleted(self._connection.session, check.run_id(id), self._connection.timeout_s)
        self._connection.perform(deleting, self._connection.timeout_s)

    def watch(
        self,
        id: str,  # noqa: A002 # what users call it
        from_step: int = 0,
        *,
        follow: bool = False,
        timeout_s: float | None = None,
    ) -> Iterator[RecordChunk]:
        """Iterate over the record of a run.

        Args:
            id: the run's id.
            from_step: the first step wanted.
            follow: whether to go on with the run until it is finished. With several addresses it goes on,
                from the next step, where the run does.
            timeout_s: the deadline of the whole, in seconds. Default: 60; with `follow`, none.
        """
        request = calls.watch_run(id, from_step, follow)
        if timeout_s is None:
            return self._connection.watch(request, None if follow else RECORD_TIMEOUT_S)
        return self._connection.watch(request, check.timeout_s(timeout_s))

    def models(self) -> Iterator[ModelInfo]:
        """Iterate over the models that runs can name."""
        token = ""
        while True:
            page = self._invoke(calls.list_models(token))
            yield from page.items
            if not (token := page.next_token):
                return

    def model(self, name: str) -> ModelInfo:
        """Return a model by name, alias or `name@digest`. Raises `ModelNotFoundError`."""
        return self._invoke(calls.get_model(name))

    def close(self) -> None:
        """Let the stream end in good order, within the deadline; then drop the connection."""
        self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Advisor of {self._connection.addresses}>"

    def _limit_s(self, timeout_s: float | None) -> float:
        return self._connection.timeout_s if timeout_s is None else check.timeout_s(timeout_s)

    def _invoke(self, call: calls.Call[T]) -> T:
        return self._connection.invoke(call, self._connection.timeout_s)
