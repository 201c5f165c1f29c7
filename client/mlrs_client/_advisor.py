"""The threaded client: `connect`, and the advisor, runs and pending advice that come of it."""

from __future__ import annotations

from collections.abc import Iterator
from types import TracebackType
from typing import Self, TypeVar

from mlrs_client import _arguments as check
from mlrs_client import _calls as calls
from mlrs_client._connection import Connection
from mlrs_client._ledger import Entry, Ledger
from mlrs_client._session import Deadline
from mlrs_client._types import Advice, ModelInfo, Optimizer, RecordChunk, RunInfo, RunStatus, Schedule
from mlrs_client._views import PendingView, RunView, given_fields

T = TypeVar("T")
DEFAULT_TIMEOUT_S = 2.0
"""How long a call waits for the daemon, in seconds, unless told otherwise."""
RECORD_TIMEOUT_S = 60.0
"""How long reading a record, or rewinding to a step of it, may take, in seconds."""


def opening_timeout_s(timeout_s: float | None, resume_from: int | None) -> float | None:
    """Return how long opening a run may take; `None`: as long as any call."""
    return RECORD_TIMEOUT_S if timeout_s is None and resume_from is not None else timeout_s


def connect(target: str, *, timeout_s: float = DEFAULT_TIMEOUT_S) -> Advisor:
    """Return an advisor of the daemon at an address. Does not wait: the first call connects.

    Args:
        target: `host:port`, `[ipv6]:port` or `unix:path`.
        timeout_s: the deadline of every call that names none, in seconds.

    Raises:
        InvalidArgumentError: the address names no port, or the deadline is not positive.
    """
    return Advisor(Connection(check.target(target), check.timeout_s(timeout_s)))


class Advisor:
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
        mode: check.OpenMode = "open",
        resume_from: int | None = None,
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
            mode: `open`, or `create` if the run must be new, or `resume` if it must exist.
            resume_from: rewinds the run to this step, for a job that restarts from a checkpoint. What
                was recorded from there on is dropped.
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
        )
        call = calls.checked_open_run(id, config, mode, resume_from)
        opened = self._invoke(call, opening_timeout_s(timeout_s, resume_from))
        ledger = Ledger(opened, self._connection.new_signal(), given_fields(config))
        self._connection.join(ledger)
        return Run(self._connection, ledger)

    def runs(self, prefix: str = "", status: RunStatus | str | None = None) -> Iterator[RunInfo]:
        """Iterate over the runs by id, optionally only those of a prefix or a status."""
        prefix, status, token = check.prefix(prefix), check.status(status), ""
        while True:
            page = self._invoke(calls.list_runs(prefix, status, token))
            yield from page.items
            if not (token := page.next_token):
                return

    def get_run(self, id: str) -> RunInfo:  # noqa: A002 # what users call it
        """Return a run. Raises `RunNotFoundError` if there is none."""
        return self._invoke(calls.get_run(id))

    def delete_run(self, id: str) -> None:  # noqa: A002 # what users call it
        """Delete a run and its record. Raises `RunNotFoundError` if there is none."""
        self._invoke(calls.delete_run(id))

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
            follow: whether to go on with the run until it is finished.
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
        return f"<Advisor of {self._connection.target}>"

    def _invoke(self, call: calls.Call[T], timeout_s: float | None = None) -> T:
        limit_s = self._connection.timeout_s if timeout_s is None else check.timeout_s(timeout_s)
        return self._connection.invoke(call, limit_s)


class Run(RunView):
    """An open training run. Leaving its `with` block detaches from it and does not finish it."""

    def __init__(self, connection: Connection, ledger: Ledger) -> None:
        super().__init__(ledger)
        self._connection = connection

    def observe(self, step: int, loss: float) -> Pending:
        """Send the loss of a step and return at once.

        Args:
            step: the run's next step, or one observed before, with the same loss.
            loss: any real number. NaN and infinities are legal: the last learning rate is held.

        Raises:
            InvalidArgumentError: the step or the loss is none.
            StepAheadError: the step is beyond the next one.
            StaleStepError: the step was observed with another loss.
            ClosedError, ForkedError: see `Advisor`.
        """
        self._check_attached()
        entry, is_new = self._connection.observe(self._ledger, check.step(step), check.loss(loss))
        return Pending(self._connection, self._ledger, entry, replayed=not is_new)

    def next_lr(self, step: int, loss: float, *, timeout_s: float | None = None) -> float:
        """Return the learning rate for the update of a step; waits for it.

        Raises:
            MlrsError: as `observe` and `Pending.lr`.
        """
        self._check_attached()
        deadline = _deadline(self._connection, timeout_s)
        return self._connection.exchange(self._ledger, check.step(step), check.loss(loss), deadline).lr()

    def finish(self, *, timeout_s: float | None = None) -> RunInfo:
        """Mark the run as finished: it takes no more observations, and all of its record is durable."""
        self._check_attached()
        deadline = _deadline(self._connection, timeout_s)
        return self._connection.perform(self._connection.session.finish(self._ledger, deadline), deadline)

    def detach(self) -> None:
        """Leave the run without finishing it, as the end of its `with` block does."""
        self._detached = True
        self._connection.leave(self._ledger)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.detach()

    def _complete(self, **config: object) -> None:
        """Tell the daemon what the caller did not: fields of the config, read off the training loop."""
        self._check_attached()
        if missing := self._completion(**config):
            deadline = _deadline(self._connection, None)
            checked = check.config(**missing)
            self._connection.perform(self._connection.session.complete(self._ledger, checked), deadline)


class Pending(PendingView):
    """An observation that was sent; its advice is here or on its way."""

    def __init__(self, connection: Connection, ledger: Ledger, entry: Entry, *, replayed: bool) -> None:
        super().__init__(entry, replayed=replayed)
        self._connection = connection
        self._ledger = ledger

    def lr(self, *, timeout_s: float | None = None) -> float:
        """Return the learning rate for the update of the step. See `advice`."""
        self._wait(timeout_s)
        return self._entry.lr()

    def advice(self, *, timeout_s: float | None = None) -> Advice:
        """Return the advice; waits for it, and joins the daemon again if the connection broke.

        Args:
            timeout_s: the deadline, in seconds. Default: the advisor's.

        Raises:
            DeadlineExceededError: it did not come in time. The observation is kept: ask again.
            UnavailableError: the daemon was out of reach all the time. As above.
            MlrsError: the daemon refused the observation; the error says why.
        """
        self._wait(timeout_s)
        return self._result()

    def _wait(self, timeout_s: float | None) -> None:
        if not self._entry.done:
            deadline = _deadline(self._connection, timeout_s)
            procedure = self._connection.session.answered(self._ledger, self._entry, deadline)
            self._connection.perform(procedure, deadline)


def _deadline(connection: Connection, timeout_s: float | None) -> Deadline:
    return Deadline(connection.timeout_s if timeout_s is None else check.timeout_s(timeout_s))
