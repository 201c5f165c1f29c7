"""Sending what was kept in a file: the rules, for both flavours."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from mlrs_client import _arguments as check
from mlrs_client._exceptions import InvalidArgumentError, MlrsError, RunExistsError
from mlrs_client._ledger import Ledger, Wakeable
from mlrs_client._start import Start
from mlrs_client._unsent import load, save


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
        entry: Callable[[int], tuple[Callable[[int, Any], Any], Callable[[Sequence[float]], Any]]],
        timeout_s: float,
    ) -> None:
        """Read the file.

        Args:
            path: the file.
            run_id: what to call its run in place of its id, if that is given.
            changed: what its callers wait on.
            entry: returns, for a number of runs, what makes an entry of a step and what is observed, and what
                makes the latter of losses.
            timeout_s: how long opening the runs may take, in seconds.

        Raises:
            InvalidArgumentError: it cannot be read, or is of a sweep and an id was given, or the id is none.
        """
        self._path = Path(path)
        self._unsent = load(self._path)
        if run_id is not None:
            if len(self._unsent.run_ids) > 1:
                raise InvalidArgumentError(
                    f"id: {path} is of {len(self._unsent.run_ids)} runs, which keep their ids", field="id"
                )
            self._unsent = dataclasses.replace(self._unsent, run_ids=(check.run_id(run_id),), was_open=False)
        unsent = self._unsent
        start = Start(
            run_ids=unsent.run_ids,
            configs=list(unsent.configs),
            task=unsent.task,
            timeout_s=timeout_s,
            on_existing="resume" if unsent.was_open else "error",
            must_exist=unsent.was_open,
        )
        make, self._observed = entry(len(unsent.run_ids))
        self.finishes = unsent.finish
        self.ledger = Ledger(start, changed, make)
        self.ledger.remarks.silence()  # its user was told when it was observed
        self.ledger.first_step = self.ledger.next_step = unsent.first_step
        self._entries: list[Any] = []

    def enter(self, observe: Callable[..., Any], adapt: Callable[..., Any]) -> None:
        """Have everything sent, in order; waits for nothing.

        Raises:
            MlrsError: the file is of a run that it cannot be sent to.
        """
        unsent = self._unsent
        if not unsent.was_open and unsent.first_step:
            raise InvalidArgumentError(
                f"path: {self._path} begins with step {unsent.first_step}, as what came before was with the"
                " daemon, or too much to keep; only the run that it is of can take it",
                field="path",
            )
        updates = {update.step: update for update in unsent.updates}
        for step in range(unsent.first_step - 1, unsent.first_step + len(unsent.losses)):
            if step >= unsent.first_step:
                losses = self._observed(unsent.losses[step - unsent.first_step])
                self._entries.append(observe(self.ledger, step, losses)[0])
            if (update := updates.get(step)) is not None:
                adapt(self.ledger, step, update.alignments, update.validation_losses)

    def opened(self) -> None:
        """Enter that the daemon has opened the runs: the next try goes on with them."""
        self._unsent = dataclasses.replace(self._unsent, was_open=True)
        save(self._unsent, self._path.parent, self._path.name)

    def check(self) -> None:
        """Check that the daemon took everything.

        Raises:
            MlrsError: it did not; the error says why.
        """
        for entry in self._entries:
            if entry.error is not None:
                raise entry.error.with_traceback(None)

    def explained(self, error: MlrsError) -> MlrsError:
        """Return why it could not be sent, with the way out."""
        if isinstance(error, RunExistsError):
            return RunExistsError(
                f"run {self._unsent.run_ids[0]!r} was begun by another training since; to have this one as a"
                " run of its own, give it another id (`mlrs runs push --id`)",
                reason=error.reason,
                field="id",
            )
        return error

    def done(self) -> None:
        """Remove the file."""
        self._path.unlink(missing_ok=True)
