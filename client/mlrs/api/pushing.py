"""Send observations that were written to a file (`Advisor.push`), for threads and asyncio.

The daemon may have more of the runs than when the file was written, as another process may have continued or
restarted them. So the steps that the daemon already has are sent first and must be equal; then the rest.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from mlrs.api.actions import C, marked_finished, read
from mlrs.api.new_ledger import import_rows
from mlrs.errors import (
    InvalidArgumentError,
    MlrsError,
    RunExistsError,
    RunFinishedError,
    StepError,
)
from mlrs.ledger.entries import Entry, Observation
from mlrs.ledger.ledger import Ledger, Wakeable
from mlrs.ledger.open_request import Start
from mlrs.protocol.waiting import Action, opened, settled
from mlrs.values import arguments as check
from mlrs.values.checks import MAX_STEPS
from mlrs.values.options import RECORD_TIMEOUT_S
from mlrs.values.signals import Validation
from mlrs.values.types import RunInfo
from mlrs.wire.unsent import load, save
from mlrs.wire.unsent_format import NO_OUTCOME


def pushed(
    connection: C,
    path: str | os.PathLike[str],
    run_id: str | None,
    timeout_s: float | None,
    *,
    keep: bool,
    rewind: bool,
) -> Action[tuple[RunInfo, ...]]:
    """Send what a file holds; see `Advisor.push`, whose arguments these are."""
    limit_s = RECORD_TIMEOUT_S if timeout_s is None else check.timeout_s(timeout_s)
    push = Push(path, run_id, connection.signal(), limit_s, rewind=rewind)
    session, ledger, deadline = connection.session, push.ledger, connection.deadline(limit_s)
    try:
        yield opened(session, ledger, deadline)
        has = push.opened()
        for first, end in ((0, has), (has, MAX_STEPS)):
            push.enter(first, end, connection.observe, connection.adapt)
            yield settled(session, ledger, deadline)
            push.check()
        if push.finishes:
            infos = yield from marked_finished(connection, ledger, deadline)
        else:
            infos = yield from read(connection, ledger)
    except RunFinishedError:
        infos = yield from read(connection, ledger)
        if not all(map(push.is_done, infos)):
            raise
        if push.tells_outcome:
            ledger.next_step = push.end
            infos = yield from marked_finished(connection, ledger, deadline)
    except MlrsError as error:
        raise push.explained(error) from error
    finally:
        connection.leave(ledger)
    if not keep:
        push.done()
    return infos


class Push:
    """A file whose observations are being sent.

    Attributes:
        ledger: what the file holds, to be sent as anything is that is observed.
        finishes: whether the runs are finished with it.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        run_id: object,
        changed: Wakeable,
        timeout_s: float,
        *,
        rewind: bool,
    ) -> None:
        """Read the file.

        Args:
            path: the file.
            run_id: a new id for its run, if that is given.
            changed: what its callers wait on.
            timeout_s: how long opening the runs may take, in seconds.
            rewind: whether to drop what the runs have from the file's first step on.
        """
        if not isinstance(path, (str, os.PathLike)):
            raise InvalidArgumentError(f"path must name a file; is {path!r:.100}", field="path")
        self._path = Path(path)
        self._unsent = unsent = load(self._path)
        is_whole = not unsent.was_open and not unsent.first_step
        if run_id is not None:
            if len(unsent.run_ids) > 1:
                raise InvalidArgumentError(
                    f"id: {path} is of {len(unsent.run_ids)} runs, which keep their ids", field="id"
                )
            if unsent.first_step:
                raise InvalidArgumentError(
                    f"id: {path} begins with step {unsent.first_step}, so it is no run of its own", field="id"
                )
            is_whole = True
            self._unsent = unsent = dataclasses.replace(
                unsent, run_ids=(check.run_id(run_id),), was_open=False, created_at=None
            )
        start = Start(
            run_ids=unsent.run_ids,
            configs=list(unsent.configs),
            task=unsent.task,
            timeout_s=timeout_s,
            on_existing="error" if is_whole and not rewind else "resume",
            must_exist=not is_whole,
            resume_from=unsent.first_step if rewind else None,
            tags=unsent.tags,
            note=unsent.note,
        )
        entry: Callable[[int, Any], Any] = Entry.of
        self._read_losses: Callable[[Sequence[float], int], Any] = lambda losses, _: losses[0]
        if len(unsent.run_ids) > 1:
            entry, self._read_losses = import_rows()
        self._signals = {one.step: one.signals for one in unsent.signals}
        self._validations = {one.observed_step: Validation(one.step, one.loss) for one in unsent.validations}
        self.finishes = unsent.finish
        self.ledger = Ledger(start, changed, entry)
        self.ledger.first_step = self.ledger.next_step = unsent.first_step
        self.ledger.outcome = unsent.outcome
        self._entries: list[Any] = []

    @property
    def end(self) -> int:
        """The step after the last one of the file."""
        return self._unsent.first_step + len(self._unsent.losses)

    @property
    def tells_outcome(self) -> bool:
        """Whether the file says how good the runs came out, which finished runs take, too."""
        return self._unsent.outcome != NO_OUTCOME

    def opened(self) -> int:
        """Take in that the daemon has opened the runs; return the step that they expect."""
        created_at, was = self.ledger.created_at, self._unsent.created_at
        if was is not None and created_at != was:
            raise RunExistsError(
                f"run {self._unsent.run_ids[0]!r} was begun anew since this was written, by another training",
                field="id",
            )
        self._unsent = dataclasses.replace(self._unsent, was_open=True, created_at=created_at)
        save(self._unsent, self._path.parent, self._path.name)
        return self.ledger.next_step

    def enter(self, first: int, end: int, observe: Callable[..., Any], adapt: Callable[..., Any]) -> None:
        """Send the steps `first` to `end - 1`, in order; does not wait."""
        unsent, updates = self._unsent, {update.step: update for update in self._unsent.updates}
        begin = max(first, unsent.first_step)
        for step in range(begin - 1, min(end, unsent.first_step + len(unsent.losses))):
            if step >= begin:
                losses = self._read_losses(unsent.losses[step - unsent.first_step], self.ledger.size)
                signals, validation = self._signals.get(step), self._validations.get(step)
                restored = step in unsent.restored
                if signals or validation or restored:
                    losses = Observation(losses, signals=signals, validation=validation, restored=restored)
                self._entries.append(observe(self.ledger, step, losses)[0])
            if (update := updates.get(step)) is not None and (step >= begin or step == unsent.first_step - 1):
                adapt(self.ledger, step, update.alignments, update.validation_losses)

    def check(self) -> None:
        """Check that the daemon took everything that was entered."""
        for entry in self._entries:
            if entry.error is not None:
                raise entry.error.with_traceback(None)
        self._entries.clear()

    def is_done(self, info: RunInfo) -> bool:
        """Return whether a run that is finished has everything of the file."""
        unsent = self._unsent
        is_it = unsent.created_at in (None, info.create_time.timestamp())
        return self.finishes and is_it and info.next_step == self.end

    def explained(self, error: MlrsError) -> MlrsError:
        """Return why it could not be sent, with the way out."""
        own = (
            ""
            if self._unsent.first_step
            else "; to have this one as a run of its own, give it another id (--id)"
        )
        if isinstance(error, RunExistsError):
            what = (
                str(error) if error.reason is None else f"there is a run {self._unsent.run_ids[0]!r} already"
            )
            return RunExistsError(f"{what}{own}", reason=error.reason, field="id")
        if isinstance(error, StepError):
            return type(error)(
                f"{error}. The run went on otherwise than {self._path} has it; to drop what it has from step"
                f" {self._unsent.first_step} on, as this training would have, push with --rewind{own}",
                next_step=error.next_step,
                reason=error.reason,
            )
        return error

    def done(self) -> None:
        """Remove the file."""
        self._path.unlink(missing_ok=True)
