"""Ledgers of runs that are open, for tests of what is made of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any
from unittest import mock

from mlrs.ledger.fallback import Fallback
from mlrs.ledger.ledger import Ledger
from mlrs.ledger.open_request import Start
from mlrs.ledger.open_result import Opened
from mlrs.wire.stream_messages import answer_from_proto
from mlrs_proto import v1 as pb


def opened_ledger(
    opened: Opened, entry: Callable[[int, Any], Any], fallback: Fallback | None = None
) -> Ledger[Any]:
    """Return a ledger of runs as a daemon has opened them."""
    configs = [run.info.config for run in opened.runs]
    start = Start(run_ids=opened.run_ids, configs=configs, task="task", timeout_s=1.0, on_existing="resume")
    ledger = Ledger(start, mock.Mock(), entry, fallback=fallback)
    ledger.open(opened)
    return ledger


def read(message: pb.StreamAdviceResponse) -> Any:
    """Return what a message of a stream says."""
    return answer_from_proto(message)


def advised(learning_rates: Sequence[float], durable_step: int = -1) -> Any:
    """Return an answer to observations; without reasons, every one is fresh."""
    columns = pb.AdviceColumns(
        learning_rates=learning_rates, durable_steps=[durable_step] * len(learning_rates)
    )
    return read(pb.StreamAdviceResponse(advice=columns))
