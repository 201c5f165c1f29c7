"""Answers to observations: new advice, recorded advice, or an error."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from mlrs_core.policy import Floats
from mlrs_server.domain.ledger import Verdict
from mlrs_server.domain.observations import Entries
from mlrs_server.errors import AdvisorError, finished_run, invalid_field, stale_handle, stale_step, step_ahead
from mlrs_server.live.arrays import RunGroup


class Recall(NamedTuple):
    """Entries of one group whose answers are recorded, in the group's log or in the store."""

    group: RunGroup
    positions: npt.NDArray[np.intp]
    """Their positions in the message, (k,)."""


@dataclass(slots=True)
class Answer:
    """The answer to a message."""

    entries: Entries
    """The entries of the message, filled where they were answered."""
    errors: dict[int, AdvisorError] = field(default_factory=dict)
    """The errors of entries that cannot be answered, by index."""
    recalls: list[Recall] = field(default_factory=list)
    """The entries whose answers are recorded."""
    plain: int = 0
    """The number of entries that are new, neither held nor with the flag `RESTORE`."""
    reports: list[int] = field(default_factory=list)
    """The indexes of entries that are reports of ranks."""
    ranks_reported: dict[int, int] = field(default_factory=dict)
    """How many ranks' losses were reduced for the answers to reports of ranks, by index."""


def refuse(answer: Answer, position: int, group: RunGroup, entry: np.void) -> None:
    """Enter the error of an entry that has no answer, or note that it is a report of a rank."""
    verdict, row = Verdict(int(entry["verdict"])), int(entry["row"])
    if verdict == Verdict.STALE_HANDLE:
        answer.errors[position] = stale_handle()
        return
    run_id, expected = group.run_ids[row], int(entry["expected"])
    step = int(entry["step"])
    match verdict:
        case Verdict.RANK_REPORT:
            answer.reports.append(position)
        case Verdict.OTHER_LOSS:
            recorded = float(group.records["last_loss"][row])
            answer.errors[position] = stale_step(run_id, step, recorded, expected)
        case Verdict.FINISHED:
            answer.errors[position] = finished_run(run_id)
        case Verdict.NO_RANKS:
            answer.errors[position] = invalid_field(
                "ranks",
                f"run {run_id!r} takes observations of rank 0 alone, and this one is of rank "
                f"{int(entry['rank'])}; follow it with WatchRun, or open another with config.ranks.mode all",
            )
        case _:
            answer.errors[position] = step_ahead(run_id, step, expected)


def same_losses(left: Floats, right: Floats) -> npt.NDArray[np.bool_]:
    """Return, elementwise, whether losses are equal; NaNs are equal. All (n,)."""
    same: npt.NDArray[np.bool_] = (left == right) | (np.isnan(left) & np.isnan(right))
    return same
