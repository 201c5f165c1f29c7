"""The threaded client: `connect`, and the advisor that comes of it."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar, Unpack

from mlrs.api.pushing import pushed
from mlrs.api.run import Run
from mlrs.api.views import AdvisorView
from mlrs.protocol.joining import deleted
from mlrs.protocol.routing import Call
from mlrs.transport.access import TLS, access_of
from mlrs.transport.connection import Connection
from mlrs.values import arguments as check
from mlrs.values.meta_types import Adaptation
from mlrs.values.options import (
    DEFAULT_TIMEOUT_S,
    RECORD_TIMEOUT_S,
    UPLOAD_TIMEOUT_S,
    RunOptions,
    SweepOptions,
)
from mlrs.values.types import ModelInfo, RecordChunk, RunInfo, RunStatus
from mlrs.wire import calls
from mlrs.wire.meta_calls import adapt, adapt_gradients
from mlrs.wire.unsent import default_folder

if TYPE_CHECKING:
    from mlrs.api.sweep import Sweep

T = TypeVar("T")


def connect(
    target: str | Sequence[str],
    *,
    timeout_s: float = DEFAULT_TIMEOUT_S,
    token: str | None = None,
    tls: TLS | bool | None = None,
    allow_insecure_token: bool = False,
    unsent_dir: str | os.PathLike[str] | None = None,
) -> Advisor:
    """Return an advisor of the daemon at an address. Does not wait: the first call connects.

    Args:
        target: `host:port`, `[ipv6]:port` or `unix:path`; several, as a list or with commas between, are
            replicas over one database. Replicas that these name are found by themselves.
        timeout_s: the deadline of every call that names none, in seconds.
        token: says who calls, where the daemon wants that. Default: `MLRS_TOKEN` in the environment.
        tls: `True`, or a `TLS` that says more: connections are encrypted.
        allow_insecure_token: let the token travel in the clear beyond this machine.
        unsent_dir: the folder for what no daemon got by the end of a training, a file a run, to be sent with
            `push` later; empty: it is not kept. Default: `MLRS_UNSENT_DIR` in the environment, else
            `mlrs/unsent` in the user's state folder (`XDG_STATE_HOME`, or `~/.local/state`).

    Raises:
        InvalidArgumentError: an address names no port, the deadline is not positive, a file of `tls` cannot
            be read, or the token would travel in the clear.
    """
    addresses = check.targets(target)
    access = access_of(addresses, token, tls, allow_insecure_token=allow_insecure_token)
    folder = default_folder() if unsent_dir is None else os.fspath(unsent_dir)
    return Advisor(Connection(addresses, access, check.timeout_s(timeout_s), folder))


class Advisor(AdvisorView[Connection]):
    """A connection to a daemon. May be shared by threads, and not by forked processes.

    Close it, or use it as a context manager. One that was forgotten is closed when Python exits.
    Every method raises `UnavailableError` if the daemon is out of reach, `DeadlineExceededError` if
    it does not answer in time, `ClosedError` after `close` and `ForkedError` in a forked child.
    """

    def run(self, task: str, **options: Unpack[RunOptions]) -> Run:
        """Return a training run: a new one, unless `id` says which.

        It is opened when its first step is known: by the first observation, or at once where `resume_from` is
        given. What is wrong with it is raised there.

        Args:
            task: what is trained: 1 to 200 letters, digits and any of `._-/:+=@`, beginning with a letter or
                digit. Each call is a new run of it, with an id such as `TASK/brisk-otter-3f9c2a`, which is
                printed once on standard error (unless `MLRS_QUIET=1`).
            model: a name, an alias or `name@digest`. Default: the daemon's.
            policy: a schedule designed by hand in place of a model: a `Schedule`, or the kind of one, such
                as `cosine`.
            base_lr: the LR that the schedule multiplies. Default: `initial_lr`, else the usual one of the
                optimizer.
            warmup: the steps of the schedule's linear warmup. Default: 0.
            horizon: the total number of steps, if known. A run may go on beyond it: a model then
                advises as at the end, and a schedule holds its last learning rate. One warning says so.
            num_classes: the number of classes of a classification loss.
            scale: the upper bound gamma of a paper-exact model's LR. Default: the model's rule.
            snapshot: the snapshot that a run without a horizon stays on. Default: the middle one.
            optimizer: `sgd`, `momentum`, `nesterov`, `adam`, `adamw` or `other`.
            momentum: its momentum (for Adam, beta 1), in [0, 1).
            initial_lr: the learning rate to start from, for models that take one; by default the
                usual one of the optimizer's family. `mlr-snet` begins with a fifth of it, a warmup.
            min_lr: no advice is below this.
            max_lr: no advice is above this.
            rank: which process of a distributed job this is, from 0, where all share the run's one schedule:
                each observes its own loss of every step, the daemon reduces them to one, and all get the same
                learning rate.
            world_size: how many there are from the next step on. Default: as many as the run has; at
                first, one.
            rank_reduction: `mean`, weighted by `samples`, or `median`.
            straggler_timeout_s: how long after the first loss of a step a `quorum` of the ranks is
                enough. Default: all are waited for.
            quorum: that share of the ranks. Default: 0.5.
            meta: `True`, or a `Meta` that says more: the run's network goes on learning, from what
                `Run.adapt` is told.
            id: fixes the run's id, 1 to 256 of the same characters, for loops that go on with a run by its
                id. The run begins at the step that is observed first; if that is not 0, the run must exist,
                and goes back to it.
            on_existing: what to do if that run has steps already and the loop begins at step 0: `error`;
                `restart`, which drops its record and begins anew, bit for bit as a new run; or `resume`, for
                loops that begin at `run.next_step`.
            resume_from: goes back to this step of the run, for a job that restarts from a checkpoint. What
                was recorded from there on is dropped.
            fallback: what the run goes on with when a deadline passes without advice, until the daemon is
                back: `last`, the last advice (before there is any: `initial_lr`, or else the error); a
                `Schedule` that is a function of the step; a function of the step; or `None` or `error`,
                and the error is raised. Losses are kept and sent again; a warning is logged. `auto` is
                `last`, but `error` where ranks share the run: each would fall back, and come back, at a
                step of its own.
            on_unavailable: what to do if no daemon answers until the deadline of opening: `error`; or
                `fallback`, which begins with the learning rate of `fallback`, or else `initial_lr`, or else
                the usual one of `optimizer`; the run is opened, and filled in, once the daemon is there.
                `auto` is `error`, and `fallback` where an adapter such as `AdvisedLR` has the run.
            timeout_s: the deadline of opening the run, in seconds; a daemon that is still starting is waited
                for. Default: the advisor's; where the run goes back to a step a minute, since the daemon
                computes it anew up to there. Each step has the advisor's deadline, or that of its call.

        Raises:
            InvalidArgumentError: an argument is of a wrong type or out of range.
            RunExistsError: a run with the given id has steps, and nothing says what to do about it.
            RunNotFoundError: there is no run with the given id that could go back to a step.
            RunFinishedError: it is finished, and to go on where it is.
            ConfigMismatchError: it has another config.
            ModelNotFoundError: there is no such model.
        """
        run = Run(self._connection, self._new_run(task, options))
        return run if options.get("resume_from") is None else run.open()

    def sweep(self, ids: Sequence[str], **options: Unpack[SweepOptions]) -> Sweep:
        """Open many training runs that take their steps together, such as those of a vmapped population.

            sweep = advisor.sweep([f"member-{i}" for i in range(256)], horizon=1000, initial_lr=rates)
            lrs = sweep.next_lrs(step, losses)   # arrays, (256,)

        Args:
            ids: the runs' ids, 1 to 65,536, all different.
            on_existing: as for `run`, for every run. A sweep is opened at once.
            resume_from: as for `run`, for every run.
            fallback: as for `run`; a function may return an array, one learning rate a run.
            timeout_s: the deadline of each call that opens a thousand runs, in seconds. Default: 60.
            config: what `run` takes: each a value for all runs, or a list or array of one a run.

        Raises:
            UsageError: NumPy is not installed.
            InvalidArgumentError: an argument is of a wrong type, length or range.
            MlrsError: as for `run`; the error names the run. Runs that were opened before it stay open.
        """
        ledger = self._new_sweep(ids, options)
        from mlrs.api.sweep import Sweep  # which imports NumPy

        self._connection.wait(self._opened(ledger))
        return Sweep(self._connection, ledger)

    def push(
        self,
        path: str | os.PathLike[str],
        *,
        id: str | None = None,  # noqa: A002 # what users call it
        keep: bool = False,
        rewind: bool = False,
        timeout_s: float | None = None,
    ) -> tuple[RunInfo, ...]:
        """Send what a training left in a file because no daemon answered (`connect(unsent_dir=)`).

        What the daemon has already changes nothing, so a push that failed can be made again.

        Args:
            path: the file. It is removed once everything in it is durable.
            id: what to call its run in place of the id that it has, where that was taken meanwhile.
            keep: do not remove it.
            rewind: drop what the run has from the file's first step on, where it went on otherwise.
            timeout_s: the deadline of the whole, in seconds. Default: 60.

        Returns:
            The run, or the runs of a sweep.

        Raises:
            InvalidArgumentError: the file cannot be read.
            RunExistsError: the run is another training's by now.
            RunNotFoundError: it was opened, and is not at this daemon any more.
            StepError: it went on otherwise than the file has it; nothing of the file was taken then.
            MlrsError: as for `run`.
        """
        action = pushed(self._connection, path, id, timeout_s, keep=keep, rewind=rewind)
        return self._connection.act(action)

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

    def adapt(
        self,
        id: str,  # noqa: A002 # what users call it
        step: int,
        alignment: float,
        *,
        validation_loss: float | None = None,
        timeout_s: float | None = None,
    ) -> Adaptation:
        """Make a meta update of a run that another process observes.

        That process does not send it again after a crash of the daemon: let it wait for the update before it
        observes the next step. The process that observes has `Run.adapt`.

        Args:
            id: the run's id.
            step: the step that was observed last.
            alignment: as for `Run.adapt`.
            validation_loss: as for `Run.adapt`.
            timeout_s: the deadline, in seconds. Default: the advisor's.

        Raises:
            MlrsError: as `Run.adapt`; the daemon's refusal where the run is not in meta mode.
        """
        call = adapt(id, step, alignment, validation_loss)
        return self._connection.invoke(call, self._limit_s(timeout_s))

    def adapt_gradients(
        self,
        id: str,  # noqa: A002 # what users call it
        step: int,
        validation_gradient: Any,
        direction: Any,
        *,
        data_type: str | None = None,
        validation_loss: float | None = None,
        timeout_s: float = UPLOAD_TIMEOUT_S,
    ) -> Adaptation:
        """Send both vectors of a meta update, for the daemon to compute the alignment.

        Args:
            id: the run's id.
            step: the step that was observed last.
            validation_gradient: of the validation loss at w'; a buffer, such as an array of NumPy, or a list
                of them, of float32 or float16. Leave them as they are until the call returns.
            direction: d, as many buffers of the same sizes.
            data_type: what the elements of raw bytes are: `float32`, `float16` or `bfloat16`.
            validation_loss: as for `Run.adapt`.
            timeout_s: the deadline, in seconds. Default: 60.

        Returns:
            What it did, with the `alignment` that was computed.

        Raises:
            InvalidArgumentError: a vector is none, or they are not of one size.
            MlrsError: as for `adapt`.
        """
        call = adapt_gradients(id, step, validation_gradient, direction, data_type, validation_loss)
        return self._connection.invoke(call, check.timeout_s(timeout_s))

    def close(self) -> None:
        """Let the stream end in good order, within the deadline; then drop the connection."""
        self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _invoke(self, call: Call[T]) -> T:
        return self._connection.invoke(call, self._connection.timeout_s)
