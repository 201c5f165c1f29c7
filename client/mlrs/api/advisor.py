"""The threaded client: `connect`, and the advisor that it returns."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar, Unpack

from mlrs.api.pushing import pushed
from mlrs.api.reading import Reading
from mlrs.api.run import Run
from mlrs.api.views import AdvisorView
from mlrs.local.target import target_of
from mlrs.protocol.joining import deleted
from mlrs.protocol.routing import Call
from mlrs.transport.access import TLS, access_of
from mlrs.transport.connection import Connection
from mlrs.values import arguments as check
from mlrs.values.meta_types import Adaptation
from mlrs.values.options import (
    DEFAULT_TIMEOUT_S,
    UPLOAD_TIMEOUT_S,
    RunOptions,
    SweepOptions,
)
from mlrs.values.types import RecordChunk, RunInfo
from mlrs.wire.list_calls import update_run
from mlrs.wire.meta_calls import adapt, adapt_gradients
from mlrs.wire.task_calls import forget_task
from mlrs.wire.unsent import default_folder

if TYPE_CHECKING:
    from mlrs.api.sweep import Sweep

T = TypeVar("T")


def connect(
    target: str | Sequence[str] | None = None,
    *,
    timeout_s: float = DEFAULT_TIMEOUT_S,
    token: str | None = None,
    tls: TLS | bool | None = None,
    allow_insecure_token: bool = False,
    unsent_dir: str | os.PathLike[str] | None = None,
) -> Advisor:
    """Return an advisor of a daemon: the one at an address, or this user's own on this machine.

    With an address it does not wait: the first call connects. Without one, and without `MLRS_TARGET`, it
    starts the user's daemon if it does not run, which takes seconds the first time. That daemon ends by
    itself after ten minutes without a call, and keeps everything; the next `connect` starts it again.

    Args:
        target: `host:port`, `[ipv6]:port` or `unix:path`. Several, as a list or separated by commas, are
            replicas over one database. Other replicas that these name are found automatically. Default: the
            environment variable `MLRS_TARGET`, else the user's daemon (`MLRS_AUTOSTART=0` forbids to start
            it).
        timeout_s: the deadline of calls that are given none, in seconds.
        token: authenticates the caller, where the daemon requires that. Default: the environment variable
            `MLRS_TOKEN`.
        tls: `True`, or a `TLS` with settings: connections are encrypted.
        allow_insecure_token: allow the token to be sent unencrypted to other machines.
        unsent_dir: the folder for observations that no daemon had received when a training ended: one file
            for each run, to be sent later with `push`. An empty string: nothing is written. Default: the
            environment variable `MLRS_UNSENT_DIR`, else `mlrs/unsent` in the user's state folder
            (`XDG_STATE_HOME`, or `~/.local/state`).

    Raises:
        InvalidArgumentError: an address names no port, the deadline is not positive, a file of `tls` cannot
            be read, or the token would be sent unencrypted.
        UnavailableError: the user's daemon could not be started; the message says why.
    """
    found = target_of(target)
    access = access_of(found.addresses, token, tls, allow_insecure_token=allow_insecure_token)
    folder, limit_s = (
        default_folder() if unsent_dir is None else os.fspath(unsent_dir),
        check.timeout_s(timeout_s),
    )
    started = () if found.starter is None else (found.starter.start(),)
    return Advisor(Connection(found.known(*started), access, limit_s, folder))


def connect_later() -> Advisor:
    """Return an advisor of the user's daemon, which did not start; calls try to start it again.

    Raises:
        UnavailableError: there is no place for a daemon on this machine.
    """
    found = target_of(None)
    access = access_of(found.addresses, None, None, allow_insecure_token=False)
    return Advisor(Connection(found.known(), access, DEFAULT_TIMEOUT_S, default_folder()))


class Advisor(AdvisorView[Connection], Reading):
    """A connection to a daemon. May be shared by threads, and not by forked processes.

    Close it, or use it as a context manager. An advisor that is open when Python exits is closed then.
    Every method raises `UnavailableError` if the daemon is unreachable, `DeadlineExceededError` if
    it does not answer in time, `ClosedError` after `close` and `ForkedError` in a forked child.
    """

    def run(self, task: str, **options: Unpack[RunOptions]) -> Run:
        """Return a training run: a new one, or the run with the given `id`.

        The daemon opens the run when its first step is known: at the first observation, or at once where
        `resume_from` is given. Errors about the run are raised there.

        Args:
            task: the name of what is trained: 1 to 200 letters, digits and any of `._-/:+=@`, beginning with
                a letter or digit. Each call makes a new run of the task, with an id such as
                `TASK/brisk-otter-3f9c2a`, which is printed once on standard error (unless `MLRS_QUIET=1`).
            model: a name, an alias or `name@digest`. Default: the daemon's.
            policy: a hand-designed schedule instead of a model: a `Schedule`, or its kind, such as `cosine`.
            base_lr: the LR that the schedule multiplies. Default: `initial_lr`, else the optimizer's default
                learning rate.
            warmup: the steps of the schedule's linear warmup. Default: 0.
            horizon: the total number of steps, if known. A run may continue beyond it: a model then
                advises as at the end, and a schedule holds its last learning rate. This logs one warning.
            num_classes: the number of classes of a classification loss.
            scale: the upper bound gamma of a paper-exact model's LR. Default: the model's rule.
            snapshot: the snapshot that a run without a horizon stays on. Default: the middle one.
            optimizer: `sgd`, `momentum`, `nesterov`, `adam`, `adamw` or `other`.
            momentum: its momentum (for Adam, beta 1), in [0, 1).
            initial_lr: the learning rate to start from, for models that take one. Default: the default
                learning rate of the optimizer's family. `mlr-snet` begins with a fifth of it, as a warmup.
            min_lr: the lower bound of every advice.
            max_lr: the upper bound of every advice.
            rescue: whether to watch the losses for a blow-up, and validation losses for overfitting. Advice
                then has the flag `restore`, and learning rates are halved or quartered from there on; the
                loop may put a saved state back in place, and says so with `restored` at the next observation.
                `AdvisedLR` does all that.
            lr_offset: octaves: every advice is times 2**lr_offset, before its bounds; -20 to 20.
            batch_size: the number of examples that a step trains on, over all ranks. Runs with other batch
                sizes get other learning rates from the memory of the task.
            memory: whether the run takes part in the memory of its task: it begins with what earlier runs of
                the task have shown, how it ends is remembered, and `run.why` says why it begins as it does. A
                run that is given `model`, `policy`, `meta`, `initial_lr`, `lr_offset`, `scale` or `snapshot`
                takes no part.
            explore: what a new run takes from the memory: `careful`, the best known learning rate, or one
                that is expected to end hardly worse and from which more is learned; `full`, whatever is most
                likely to improve on the best known; or `False`, the best known, for the run that counts.
            rank: the rank of this process in a distributed job, from 0, where all ranks share the run's one
                schedule: each rank observes its own loss of every step, the daemon reduces the losses to one,
                and all ranks get the same learning rate.
            world_size: the number of ranks from the next step on. Default: the run's present number, which
                is one for a new run.
            rank_reduction: `mean`, weighted by `samples`, or `median`.
            straggler_timeout_s: after this time, in seconds from the first loss of a step, the losses of a
                `quorum` of the ranks are enough. Default: the daemon waits for all ranks.
            quorum: the share of the ranks that is enough then, > 0 and <= 1. Default: 0.5.
            meta: `True`, or a `Meta` with settings: the run's network is adapted by the meta updates that
                `Run.adapt` sends.
            id: fixes the run's id, 1 to 256 of the same characters, for loops that continue a run by its id.
                The run begins at the step that is observed first; if that is not 0, the run must exist, and
                goes back to that step.
            on_existing: what to do if that run has steps already and the loop begins at step 0: `error`;
                `restart`, which drops its record and begins again, bit for bit like a new run; or `resume`,
                for loops that begin at `run.next_step`.
            resume_from: goes back to this step of the run, for a job that restarts from a checkpoint. The
                record from this step on is dropped.
            fallback: where learning rates come from when a deadline passes without advice, until the daemon
                is back: `last`, the last advice (before the first advice: `initial_lr`, if given); a
                `Schedule` that is a function of the step; or a function of the step. With `error` or `None`
                the error is raised. Losses are kept and sent later, and a warning is logged. `auto` is
                `last`; where ranks share the run it is `error`, because each rank would fall back, and
                return to the daemon's advice, at a different step.
            on_unavailable: what to do if no daemon answers until the deadline of opening: `error`; or
                `fallback`, which begins with the learning rate of `fallback`, else `initial_lr`, else the
                default learning rate of `optimizer`. The run is opened, and receives these steps, once the
                daemon is reachable. `auto` is `error`, and `fallback` under an adapter such as `AdvisedLR`.
            on_advice: a function that is told each step with its advice (`mlrs.types.AdvisedStep`), in order
                and in a background thread, as far as it keeps up: it never delays training, and its errors
                are only logged. `mlrs.writers` has some that write to experiment trackers.
            tags: tags of a new run, by name, at most 32, by which lists of runs can be filtered. A run that
                exists keeps its own (`update_run` changes them). They do not influence advice.
            note: a note on a new run, for people; at most 4096 characters.
            timeout_s: the deadline of opening the run, in seconds, also while a daemon is still starting.
                Default: the advisor's; one minute where a daemon that answers may need longer: it replays a
                run that goes back to a step, and compiles code, once for its machine, for `meta`, `rescue` or
                a `model` that is not its default. Each step has the advisor's deadline, or that of its call.

        Raises:
            InvalidArgumentError: an argument is of a wrong type or out of range.
            RunExistsError: a run with the given id has steps, and `on_existing` is `error`.
            RunNotFoundError: the run should go back to a step, and no run has the given id.
            RunFinishedError: the run is finished and cannot be resumed at its end.
            ConfigMismatchError: the run has another config.
            ModelNotFoundError: there is no such model.
        """
        run = Run(self._connection, self._new_run(task, options))
        return run if options.get("resume_from") is None else run.open()

    def sweep(self, ids: Sequence[str], **options: Unpack[SweepOptions]) -> Sweep:
        """Open many training runs that advance step by step together, such as a population under `vmap`.

            sweep = advisor.sweep([f"member-{i}" for i in range(256)], horizon=1000, initial_lr=rates)
            lrs = sweep.next_lrs(step, losses)   # arrays, (256,)

        Args:
            ids: the runs' ids, 1 to 65,536, all different.
            task: the name of what all the runs train. Default: each run is a task of its own.
            memory: as for `run`, for every run. Default: on if `task` is given.
            explore: as for `run`, for every run.
            on_existing: as for `run`, for every run. A sweep is opened at once.
            resume_from: as for `run`, for every run.
            tags: as for `run`, for every run; with the note at most 2048 bytes.
            note: as for `run`, for every run.
            fallback: as for `run`; a function may return an array of one learning rate for each run.
            timeout_s: the deadline of each call that opens a thousand runs, in seconds. Default: 60.
            config: options of `run`: one value for all runs, or a list or array of one value for each run.

        Raises:
            UsageError: NumPy is not installed.
            InvalidArgumentError: an argument is of a wrong type, length or range.
            MlrsError: as for `run`; the error names the run. Runs that were opened before stay open.
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
        """Send the observations that a training wrote to a file because no daemon answered.

        `connect(unsent_dir=)` names the folder of these files. Observations that the daemon already has
        change nothing, so a push that failed can be repeated.

        Args:
            path: the file. It is removed once everything in it is durable.
            id: a new id for the run, where another run has taken its id meanwhile.
            keep: do not remove the file.
            rewind: drop the run's record from the file's first step on, where it differs from the file.
            timeout_s: the deadline of the whole call, in seconds. Default: 60.

        Returns:
            The run, or the runs of a sweep.

        Raises:
            InvalidArgumentError: the file cannot be read.
            RunExistsError: another training has used the id since.
            RunNotFoundError: the run was opened before, and this daemon does not have it.
            StepError: the run's record differs from the file; nothing of the file was taken.
            MlrsError: as for `run`.
        """
        action = pushed(self._connection, path, id, timeout_s, keep=keep, rewind=rewind)
        return self._connection.act(action)

    def update_run(
        self,
        id: str,  # noqa: A002 # what users call it
        *,
        set_tags: Mapping[str, str] | None = None,
        remove_tags: Iterable[str] = (),
        note: str | None = None,
    ) -> RunInfo:
        """Change what is noted of a run, and return it. Nothing of it influences advice.

        Changes of one run by several callers are all kept. Repeating a change changes nothing.

        Args:
            id: the run's id.
            set_tags: tags to set, by name; other tags stay. A run has at most 32. Names: 1 to 64 letters,
                digits and any of `._-/`, beginning with a letter or digit; values: at most 256 characters.
            remove_tags: names of tags to remove. Names that it does not have are no error.
            note: the note, at most 4096 characters; empty removes it. Default: it stays.

        Raises:
            RunNotFoundError: there is no such run.
            InvalidArgumentError: the run would have too many tags, or a tag or the note is malformed.
        """
        return self._invoke(update_run(id, set_tags, remove_tags, note))

    def forget_task(self, name: str) -> int:
        """Forget how the runs of a task ended; return how many were remembered. The runs stay.

        Its next run begins as the first one did. Raises `TaskNotFoundError` if nothing is remembered.
        """
        return self._invoke(forget_task(name))

    def delete_run(self, id: str) -> None:  # noqa: A002 # what users call it
        """Delete a run and its record. Raises `RunNotFoundError` if there is none.

        With several addresses, an ambiguous call, whose answer was lost, is repeated at another one; if the
        run is missing there, it counts as deleted.
        """
        deleting = deleted(self._connection.session, check.run_id(id), self._connection.timeout_s)
        self._connection.perform(deleting, self._connection.timeout_s)

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
        return self._invoke(call, timeout_s)

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

    def _invoke(self, call: Call[T], timeout_s: float | None = None) -> T:
        limit_s = self._connection.timeout_s if timeout_s is None else check.timeout_s(timeout_s)
        return self._connection.invoke(call, limit_s)

    def _watched(self, request: Any, timeout_s: float | None) -> Iterator[RecordChunk]:
        return self._connection.watch(request, timeout_s)
