"""Ranks that follow: their leader's record is read, in the background, and answers what they observe."""

from __future__ import annotations

from typing import Any

from mlrs_client import _calls as calls
from mlrs_client._exceptions import ClosedError, MlrsError, RunFinishedError
from mlrs_client._ledger import Ledger
from mlrs_client._session import DENIALS, PASSING
from mlrs_client._types import RankMode, RecordChunk
from mlrs_proto.v1 import advisor_pb2 as pb

BEFORE = 64
"""How many steps before the run's next one a follower is told of."""


def follows(config: Any, rank: int | None) -> bool:
    """Return whether a rank of a run, with a config as the daemon resolved it, is not listened to."""
    return bool(rank) and config.ranks is not None and config.ranks.mode == RankMode.LEADER


class Follower:
    """Where a follower is in its leader's record. Does no input or output."""

    def __init__(self, ledger: Ledger[Any], resume_from: int | None) -> None:
        self._ledger = ledger
        start = max(ledger.next_step - BEFORE, 0)
        self._step = start if resume_from is None else min(resume_from, ledger.next_step)
        if resume_from is not None:
            ledger.next_step = resume_from

    def request(self) -> pb.WatchRunRequest:
        """Return the request that goes on where this is."""
        return calls.watch_run(self._ledger.run_ids[0], self._step, follow=True)

    def take(self, chunk: RecordChunk) -> None:
        """Take in what the leader was advised."""
        self._ledger.lead(chunk.first_step, chunk.learning_rates, chunk.reasons, chunk.run.durable_step)
        self._step = chunk.first_step + len(chunk.learning_rates)
        self._ledger.changed.notify_all()

    def fail(self, error: MlrsError) -> bool:
        """Take in that reading failed; return whether to go on reading after a pause."""
        if self._ledger.left or isinstance(error, ClosedError):
            return False
        if isinstance(error, (*PASSING, *DENIALS)) or error.reason in {"NOT_OWNER", "DRAINING"}:
            return True
        self._ledger.refuse_all(error)
        self._ledger.changed.notify_all()
        return False

    def end(self) -> None:
        """Take in that the leader has finished the run."""
        self._ledger.refuse_all(RunFinishedError(f"{self._ledger.label} was finished at step {self._step}"))
        self._ledger.changed.notify_all()
