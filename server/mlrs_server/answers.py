"""What an observation gets: advice, its answer again, or a refusal.

Nothing here awaits, so nothing can come between reading a run's state and writing it, and there is
no lock.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from mlrs_core.policy import Floats, Steps
from mlrs_server.errors import AdvisorError, Reason
from mlrs_server.journal import Entry, Journal
from mlrs_server.ledger import GROUP_BITS, ROW_BITS, Bytes, Handles, Verdict, common_group
from mlrs_server.runs import Pass, RunGroup


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
    plain: bool = False
    """Whether it is known that every entry is fresh, and none is held."""

    def put(self, entries: npt.NDArray[np.intp], part: Answer) -> None:
        """Put the answer of some entries, (k,), where it belongs."""
        self.lrs[entries] = part.lrs
        self.reasons[entries] = part.reasons
        self.durable_steps[entries] = part.durable_steps
        self.errors |= {int(entries[index]): error for index, error in part.errors.items()}
        self.recalls += [replace(recall, index=int(entries[recall.index])) for recall in part.recalls]


class Answerer:
    """Answers observations of live runs, with one kernel call per group."""

    def __init__(self, groups: list[RunGroup], journal: Journal) -> None:
        """`groups` is the live list of groups, which may grow."""
        self._groups = groups
        self._journal = journal

    def answer(self, handles: Handles, steps: Steps, losses: Floats) -> Answer:
        """Answer observations now, in their order; all (n,) with n > 0."""
        common = common_group(handles)
        if 0 <= common < len(self._groups):
            return self._answer_group(self._groups[common], handles, steps, losses)
        answer = Answer(
            np.full(len(handles), np.nan), np.zeros(len(handles), np.uint8), np.full(len(handles), -1)
        )
        numbers = (handles >> np.uint64(ROW_BITS)).astype(np.int64) & (2**GROUP_BITS - 1)
        for number in np.unique(numbers):
            entries = np.flatnonzero(numbers == number)
            if number < len(self._groups):
                part = self._answer_group(
                    self._groups[number], handles[entries], steps[entries], losses[entries]
                )
                answer.put(entries, part)
            else:
                answer.errors |= {int(entry): _stale_handle() for entry in entries}
        return answer

    def _answer_group(self, group: RunGroup, handles: Handles, steps: Steps, losses: Floats) -> Answer:
        """Answer entries of one group."""
        done = group.answer(handles, steps, losses)
        answer = Answer(done.lrs, done.reasons, done.durable_steps, plain=done.plain == len(handles))
        if done.fresh == len(handles):
            self._journal.add(Entry(group, done.rows, steps, losses, done.lrs, done.reasons))
            return answer
        if done.fresh:
            fresh = done.verdicts == Verdict.FRESH
            self._journal.add(
                Entry(
                    group, done.rows[fresh], steps[fresh], losses[fresh], done.lrs[fresh], done.reasons[fresh]
                )
            )
        for entry in np.flatnonzero(done.verdicts > Verdict.REPLAY).tolist():
            _refuse_or_recall(answer, entry, group, done, int(steps[entry]), float(losses[entry]))
        return answer


def _refuse_or_recall(
    answer: Answer, entry: int, group: RunGroup, done: Pass, step: int, loss: float
) -> None:
    """Say what is wrong with an entry that is neither fresh nor its run's newest, or that it is recalled."""
    verdict, row = Verdict(int(done.verdicts[entry])), int(done.rows[entry])
    if verdict == Verdict.STALE_HANDLE:
        answer.errors[entry] = _stale_handle()
        return
    run_id, expected = group.run_ids[row], int(done.expected[entry])
    match verdict:
        case Verdict.RECALL:
            answer.recalls.append(Recall(entry, run_id, step, loss))
        case Verdict.OTHER_LOSS if expected == group.records["next_step"][row]:
            recorded = float(group.records["last_loss"][row])
            answer.errors[entry] = stale_step(run_id, step, recorded, expected)
        case Verdict.OTHER_LOSS:  # the run went on in this very message: the store knows by which loss
            answer.recalls.append(Recall(entry, run_id, step, loss))
        case Verdict.FINISHED:
            answer.errors[entry] = finished_run(run_id)
        case _:
            answer.errors[entry] = AdvisorError(
                Reason.STEP_AHEAD,
                f"step: {step} skips ahead; run {run_id!r} expects step {expected} next: send every step "
                "once, counting from 0",
                field="step",
                expected_step=expected,
            )


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
