"""The batching engine: one pass over everything that arrived since the last.

Observations wait until the event loop comes round; then one pass answers all of them, over all
streams, with one kernel call per model.

A run's steps cannot be computed side by side: each in a message costs a turn, a kernel call of its
own. A message with many of them (a replay after a reconnect) is therefore answered over several
passes, and other streams in between.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from mlrs_core.policy import Floats, Steps
from mlrs_server.answers import Answer, Answerer, Recall, blank_answer, occurrences
from mlrs_server.errors import AdvisorError, Reason, invalid_field
from mlrs_server.journal import Journal
from mlrs_server.runs import Handles, RunGroup

MAX_TURNS = 256
"""The most steps of one run that a pass answers."""


@dataclass(frozen=True)
class _Cut:
    """Where a part of a message belongs."""

    whole: Answer
    """The answer of the message, as far as it is."""
    entries: npt.NDArray[np.intp]
    """Which entries of the message these are."""
    last: bool
    """Whether they complete it."""


@dataclass(frozen=True)
class _Waiting:
    """A message that waits for its answer, or the part of one that is left."""

    handles: Handles
    steps: Steps
    losses: Floats
    answer: asyncio.Future[Answer]
    cut: _Cut | None = None

    def split(self, late: npt.NDArray[np.bool_]) -> tuple[_Waiting, _Waiting]:
        """Return the part for this pass, and the late part."""
        n = len(self.handles)
        cut = self.cut or _Cut(blank_answer(n), np.arange(n), last=True)
        now, later = (
            _Waiting(
                self.handles[mask],
                self.steps[mask],
                self.losses[mask],
                self.answer,
                _Cut(cut.whole, cut.entries[mask], last=last),
            )
            for mask, last in ((~late, False), (late, True))
        )
        return now, later

    def settle(self, answer: Answer) -> None:
        """Take an answer; hand it to the caller once it is complete, if the caller is still there."""
        if self.cut is not None:
            _fill(self.cut.whole, self.cut.entries, answer)
            answer = self.cut.whole
        if (self.cut is None or self.cut.last) and not self.answer.done():
            self.answer.set_result(answer)


class Engine:
    """Answers observations in batches, from one event loop."""

    def __init__(self, groups: list[RunGroup], journal: Journal, *, max_waiting: int) -> None:
        """`groups` is the live list of groups, which may grow."""
        self._answerer = Answerer(groups, journal)
        self._max_waiting = max_waiting
        self._queue: list[_Waiting] = []
        self._count = 0

    def submit(self, handles: Handles, steps: Steps, losses: Floats) -> asyncio.Future[Answer]:
        """Queue observations for the next pass; all (n,).

        Raises:
            AdvisorError: the queue is full, or could never hold as many.
        """
        if len(handles) > self._max_waiting:
            raise invalid_field(
                "steps",
                f"a message holds at most {self._max_waiting} entries here (max_waiting), this one "
                f"{len(handles)}; split it",
            )
        if self._count + len(handles) > self._max_waiting:
            raise AdvisorError(
                Reason.QUEUE_FULL,
                f"{self._count} observations are waiting and {len(handles)} more would pass the limit "
                f"of {self._max_waiting} (max_waiting); send them again shortly",
            )
        loop = asyncio.get_running_loop()
        if not self._queue:
            loop.call_soon(self._pass)
        future: asyncio.Future[Answer] = loop.create_future()
        self._queue.append(_Waiting(handles, steps, losses, future))
        self._count += len(handles)
        return future

    def _pass(self) -> None:
        """Answer everything that waits, but of no run more than `MAX_TURNS` steps."""
        queue, self._queue, self._count = self._queue, [], 0
        try:
            queue, late = _cut(queue)
            if len(queue) == 1:
                (only,) = queue
                answers = [self._answerer.answer(only.handles, only.steps, only.losses)]
            else:
                whole = self._answerer.answer(
                    np.concatenate([waiting.handles for waiting in queue]),
                    np.concatenate([waiting.steps for waiting in queue]),
                    np.concatenate([waiting.losses for waiting in queue]),
                )
                answers = list(_split(whole, [len(waiting.handles) for waiting in queue]))
        except Exception as error:  # noqa: BLE001  # a defect: every caller must hear of it, none may wait
            for waiting in queue:
                if not waiting.answer.done():
                    waiting.answer.set_exception(error)
            return
        for waiting, answer in zip(queue, answers, strict=True):
            waiting.settle(answer)
        if late:  # before whatever comes next: a run's steps stay in their order
            self._queue, self._count = late, sum(len(waiting.handles) for waiting in late)
            asyncio.get_running_loop().call_soon(self._pass)


def _cut(queue: list[_Waiting]) -> tuple[list[_Waiting], list[_Waiting]]:
    """Return what a pass answers, and what is left for later; both in the order of the queue."""
    sizes = [len(waiting.handles) for waiting in queue]
    if sum(sizes) <= MAX_TURNS:
        return queue, []
    late = occurrences(np.concatenate([waiting.handles for waiting in queue])) >= MAX_TURNS
    if not late.any():
        return queue, []
    now, later = [], []
    for waiting, mask in zip(queue, np.split(late, np.cumsum(sizes)[:-1]), strict=True):
        if mask.any():
            first, second = waiting.split(mask)
            now.append(first)
            later.append(second)
        else:
            now.append(waiting)
    return now, later


def _fill(whole: Answer, entries: npt.NDArray[np.intp], part: Answer) -> None:
    """Put the answer of some entries where it belongs."""
    whole.lrs[entries] = part.lrs
    whole.reasons[entries] = part.reasons
    whole.durable_steps[entries] = part.durable_steps
    whole.errors |= {int(entries[index]): error for index, error in part.errors.items()}
    whole.recalls += [replace(recall, index=int(entries[recall.index])) for recall in part.recalls]


def _split(whole: Answer, sizes: list[int]) -> Iterator[Answer]:
    """Yield the parts of an answer, of these sizes."""
    start = 0
    for size in sizes:
        end = start + size
        part = Answer(whole.lrs[start:end], whole.reasons[start:end], whole.durable_steps[start:end])
        if whole.errors:
            part.errors = {
                index - start: error for index, error in whole.errors.items() if start <= index < end
            }
        if whole.recalls:
            part.recalls = [
                Recall(recall.index - start, recall.run_id, recall.step, recall.loss)
                for recall in whole.recalls
                if start <= recall.index < end
            ]
        yield part
        start = end
