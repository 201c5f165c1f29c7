"""What an observation gets: advice, its answer again, or a refusal."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from mlrs_core.policy import Floats
from mlrs_server.entries import Entries
from mlrs_server.errors import AdvisorError, Reason, invalid_field
from mlrs_server.ledger import Verdict
from mlrs_server.runs import RunGroup


class Recall(NamedTuple):
    """Entries of one group that were answered before: their answers are in its log, or in the store."""

    group: RunGroup
    places: npt.NDArray[np.intp]
    """Where in the message they are, (k,)."""


@dataclass(slots=True)
class Answer:
    """What the entries of a message get."""

    entries: Entries
    """Filled as far as they were answered."""
    errors: dict[int, AdvisorError] = field(default_factory=dict)
    """What is wrong with the entries that cannot be answered, by index."""
    recalls: list[Recall] = field(default_factory=list)
    """The entries that were answered before."""
    plain: int = 0
    """How many entries are known to be fresh and not held."""
    reports: list[int] = field(default_factory=list)
    """The entries that wait for other ranks of their runs, by index."""
    ranks_reported: dict[int, int] = field(default_factory=dict)
    """Of how many ranks' losses the answers were made that were gathered, by index."""


def refuse(answer: Answer, place: int, group: RunGroup, entry: np.void) -> None:
    """Say what is wrong with an entry that has no answer, or that it waits for other ranks."""
    verdict, row = Verdict(int(entry["verdict"])), int(entry["row"])
    if verdict == Verdict.STALE_HANDLE:
        answer.errors[place] = stale_handle()
        return
    run_id, expected = group.run_ids[row], int(entry["expected"])
    step = int(entry["step"])
    match verdict:
        case Verdict.GATHER:
            answer.reports.append(place)
        case Verdict.OTHER_LOSS:
            recorded = float(group.records["last_loss"][row])
            answer.errors[place] = stale_step(run_id, step, recorded, expected)
        case Verdict.FINISHED:
            answer.errors[place] = finished_run(run_id)
        case Verdict.NO_RANKS:
            answer.errors[place] = invalid_field(
                "ranks",
                f"run {run_id!r} takes observations of rank 0 alone, and this one is of rank "
                f"{int(entry['rank'])}; follow it with WatchRun, or open another with config.ranks.mode all",
            )
        case _:
            answer.errors[place] = step_ahead(run_id, step, expected)


def step_ahead(run_id: str, step: int, expected: int) -> AdvisorError:
    """Return the error of a step beyond the next one."""
    return AdvisorError(
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


def stale_handle() -> AdvisorError:
    """Return the error of a handle that names no run."""
    return AdvisorError(
        Reason.STALE_HANDLE,
        "run_handles: the handle is not of this daemon process, or its run was rewound, deleted, opened by "
        "another process, or left memory as nobody observed it; call OpenRun again",
        field="run_handles",
    )
