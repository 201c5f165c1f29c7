"""What an observation gets: advice, its answer again, or a refusal.

Nothing here awaits, so nothing can come between reading a run's state and writing it, and there is
no lock.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from mlrs_core.policy import Floats, Steps
from mlrs_server.errors import AdvisorError, Reason
from mlrs_server.journal import Entry, Journal
from mlrs_server.runs import (
    AdviceReason,
    Bytes,
    Handles,
    Rows,
    RunGroup,
    RunStatus,
    split_handles,
)


@dataclass(frozen=True)
class Recall:
    """An entry that was answered long ago: its answer is in the store."""

    index: int
    run_id: str
    step: int
    loss: float


@dataclass
class Answer:
    """Advice for n observations, in their order."""

    lrs: Floats
    """(n,); NaN where there is no answer."""
    reasons: Bytes
    """(n,) `AdviceReason`; 0 where there is no answer."""
    durable_steps: Steps
    """(n,)."""
    errors: dict[int, AdvisorError] = field(default_factory=dict)
    """What is wrong with the entries that cannot be answered, by index."""
    recalls: list[Recall] = field(default_factory=list)
    """The entries whose answers are in the store."""


class Answerer:
    """Answers observations of live runs, with one kernel call per model and turn."""

    def __init__(self, groups: list[RunGroup], journal: Journal) -> None:
        """`groups` is the live list of groups, which may grow."""
        self._groups = groups
        self._journal = journal

    def answer(self, handles: Handles, steps: Steps, losses: Floats) -> Answer:
        """Answer observations now; all (n,). Several of one run are taken in their order."""
        answer = blank_answer(len(handles))
        groups, rows = split_handles(handles)
        for number in np.unique(groups):
            entries = np.flatnonzero(groups == number)
            group = self._groups[number] if number < len(self._groups) else None
            live = _live(group, rows[entries], handles[entries])
            _each(entries[~live], answer, _stale_handle)
            if group is not None:
                known = entries[live]
                for turn in _turns(rows[known]):
                    part = _Part(answer, known[turn], group, rows[known[turn]])
                    self._answer_group(part, steps, losses)
        return answer

    def _answer_group(self, part: _Part, steps: Steps, losses: Floats) -> None:
        """Answer at most one entry for each of some rows of a group."""
        group, rows, entries = part.group, part.rows, part.entries
        expected = group.next_step[rows]
        finished = group.status[rows] == RunStatus.FINISHED
        fresh = (steps[entries] == expected) & ~finished
        if fresh.any():
            self._advance(part.take(fresh), steps, losses)
        past = steps[entries] < expected
        if not (fresh | past).all():
            self._refuse(part.take(~fresh & ~past), steps)
        if past.any():
            self._replay(part.take(past), steps, losses)
        part.answer.durable_steps[entries] = group.durable_step[rows]

    def _advance(self, part: _Part, steps: Steps, losses: Floats) -> None:
        group, rows, entries = part.group, part.rows, part.entries
        done = group.advance(rows, steps[entries], losses[entries])
        part.answer.lrs[entries] = done.lrs
        part.answer.reasons[entries] = done.reasons
        self._journal.add(Entry(group, rows, steps[entries], losses[entries], done.lrs, done.reasons))

    def _replay(self, part: _Part, steps: Steps, losses: Floats) -> None:
        """Answer observations of steps already answered, from memory or else by a recall."""
        group, rows, entries = part.group, part.rows, part.entries
        newest = steps[entries] == group.next_step[rows] - 1
        same = newest & same_losses(group.last_loss[rows], losses[entries])
        part.answer.lrs[entries[same]] = group.last_lr[rows[same]]
        part.answer.reasons[entries[same]] = AdviceReason.REPLAYED
        for entry, row, is_newest in zip(entries[~same], rows[~same], newest[~same], strict=True):
            step = int(steps[entry])
            if is_newest:
                part.answer.errors[int(entry)] = stale_step(
                    group.run_ids[row], step, float(group.last_loss[row]), int(group.next_step[row])
                )
            else:
                recall = Recall(int(entry), group.run_ids[row], step, float(losses[entry]))
                part.answer.recalls.append(recall)

    def _refuse(self, part: _Part, steps: Steps) -> None:
        """Refuse observations of finished runs, and of steps that skip ahead."""
        for entry, row in zip(part.entries, part.rows, strict=True):
            run_id, expected = part.group.run_ids[row], int(part.group.next_step[row])
            if part.group.status[row] == RunStatus.FINISHED:
                error = finished_run(run_id)
            else:
                error = AdvisorError(
                    Reason.STEP_AHEAD,
                    f"step: {int(steps[entry])} skips ahead; run {run_id!r} expects step {expected} next: "
                    "send every step once, counting from 0",
                    field="step",
                    expected_step=expected,
                )
            part.answer.errors[int(entry)] = error


@dataclass(frozen=True)
class _Part:
    """Some entries of an answer that are distinct rows of one group."""

    answer: Answer
    entries: npt.NDArray[np.intp]
    group: RunGroup
    rows: Rows

    def take(self, mask: npt.NDArray[np.bool_]) -> _Part:
        return _Part(self.answer, self.entries[mask], self.group, self.rows[mask])


def finished_run(run_id: str) -> AdvisorError:
    """Return the error of an observation, or a resume, of a run that is finished."""
    return AdvisorError(
        Reason.RUN_FINISHED,
        f"run {run_id!r} is finished; use another run_id, or reopen it with resume_from",
        field="run_id",
    )


def stale_step(run_id: str, step: int, recorded: float, expected: int) -> AdvisorError:
    """Return the error of a step that was answered for another loss."""
    return AdvisorError(
        Reason.STALE_STEP,
        f"step: {step} of run {run_id!r} was answered for the loss {recorded!r}; it expects step "
        f"{expected} next. To go back, open the run with resume_from={step}",
        field="step",
        expected_step=expected,
    )


def same_losses(left: Floats, right: Floats) -> npt.NDArray[np.bool_]:
    """Return where losses are the same; any two NaNs are."""
    same: npt.NDArray[np.bool_] = (left == right) | (np.isnan(left) & np.isnan(right))
    return same


def _stale_handle() -> AdvisorError:
    return AdvisorError(
        Reason.STALE_HANDLE,
        "run_handles: the handle is not of this daemon process, or its run was rewound or deleted; "
        "call CreateRun again",
        field="run_handles",
    )


def _each(entries: npt.NDArray[np.intp], answer: Answer, make: Callable[[], AdvisorError]) -> None:
    for entry in entries:
        answer.errors[int(entry)] = make()


def _live(group: RunGroup | None, rows: Rows, handles: Handles) -> npt.NDArray[np.bool_]:
    """Return which rows exist and have these handles."""
    if group is None:
        return np.zeros(len(rows), np.bool_)
    capacity = len(group.handles)
    if not capacity:
        return np.zeros(len(rows), np.bool_)
    known = group.handles[np.minimum(rows, capacity - 1)] == handles
    live: npt.NDArray[np.bool_] = known & (rows < capacity) & (handles != 0)
    return live


def _turns(rows: Rows) -> Iterator[npt.NDArray[np.intp]]:
    """Yield indices such that each turn holds a row at most once, and all turns hold every index."""
    if len(np.unique(rows)) == len(rows):
        yield np.arange(len(rows))
        return
    turns = occurrences(rows)
    order = np.argsort(turns, kind="stable")
    yield from np.split(order, np.flatnonzero(np.diff(turns[order])) + 1)


def occurrences(values: Rows | Handles) -> npt.NDArray[np.intp]:
    """Return how often each value occurred before it."""
    order = np.argsort(values, kind="stable")
    ordered = values[order]
    starts = np.flatnonzero(np.append(True, ordered[1:] != ordered[:-1]))
    lengths = np.diff(np.append(starts, len(ordered)))
    result = np.empty(len(values), np.intp)
    result[order] = np.arange(len(ordered)) - np.repeat(starts, lengths)
    return result


def blank_answer(n: int) -> Answer:
    """Return the answer of n observations before any is answered."""
    return Answer(np.full(n, np.nan), np.zeros(n, np.uint8), np.full(n, -1, np.int64))
