"""Conversion of observations and advice."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mlrs_proto import v1 as pb
from mlrs_server.domain.ledger import REASON, RESTORE
from mlrs_server.domain.observations import Entries
from mlrs_server.errors import AdvisorError, invalid_field
from mlrs_server.live.answers import Answer
from mlrs_server.rpc.convert.extras import extras_from_proto
from mlrs_server.rpc.convert.runs import step_from_proto
from mlrs_server.rpc.status import code_number
from mlrs_server.tenancy import spoken

MAX_ENTRIES = 65_536
"""The most entries in a StreamAdvice message."""


def entries_from_proto(message: pb.Observations) -> Entries:
    """Return a message's columns as entries.

    Raises:
        AdvisorError: there are 0 or too many entries, columns differ in length, or a step is out of range.
    """
    handles, steps, losses = message.run_handles, message.steps, message.losses
    n = len(steps)
    if len(handles) != n or len(losses) != n:
        raise invalid_field(
            "steps",
            "run_handles, steps and losses must be of equal length, are "
            f"{len(handles)}, {n} and {len(losses)}",
        )
    ranks = _ranks_from_proto(message.rank_columns, n) if message.HasField("rank_columns") else ()
    has_extras = message.HasField("signals") or message.HasField("validations") or bool(message.restored)
    if n == 1:
        step = step_from_proto(steps[0], "steps")
        extras = extras_from_proto(message, np.array([step])) if has_extras else None
        return Entries.of_one(handles[0], step, losses[0], ranks[0] if ranks else 0, extras)
    if not 1 <= n <= MAX_ENTRIES:
        raise invalid_field("steps", f"a message holds 1 to {MAX_ENTRIES} entries, this one {n}; split it")
    whole = np.array(steps, np.uint64)
    step_from_proto(int(whole.max()), "steps")
    entries = Entries.of(np.array(handles, np.uint64), whole.astype(np.int64), np.array(losses, np.float64))
    if ranks:
        entries.table["rank"] = np.array(ranks, np.uint32)
    if has_extras:
        entries.extras = extras_from_proto(message, entries.steps)
    return entries


def _ranks_from_proto(columns: pb.RankColumns, n: int) -> Sequence[int]:
    """Check the lengths of the rank columns; return the ranks of n entries, (n,), or an empty sequence."""
    for name, column in (("ranks", columns.ranks), ("sample_counts", columns.sample_counts)):
        if len(column) not in (0, n):
            raise invalid_field(name, f"must be as long as steps, {n}, or empty; is of length {len(column)}")
    return columns.ranks


def columns_to_proto(answer: Answer, tenant: str = "") -> pb.StreamAdviceResponse:
    """Return an answer as a message; a tenant's error messages have its bare names."""
    entries = answer.entries
    message = pb.StreamAdviceResponse()
    advice = message.advice
    advice.learning_rates.extend(entries.lrs.tolist())
    advice.durable_steps.extend(entries.durable_steps.tolist())
    if answer.plain < len(entries):
        advice.reasons.extend((entries.reasons & REASON).tolist())
        advice.restores.extend(np.flatnonzero(entries.reasons & RESTORE).tolist())
    if answer.ranks_reported:
        advice.ranks_reported.extend([answer.ranks_reported.get(index, 0) for index in range(len(entries))])
    for index, error in sorted(answer.errors.items()):
        advice.errors.append(entry_error(index, error, tenant))
    return message


def entry_error(index: int, error: AdvisorError, tenant: str) -> pb.EntryError:
    """Return the error of an entry as a message with the tenant's bare names."""
    return pb.EntryError(
        index=index,
        code=code_number(error.reason),
        reason=pb.ErrorReason.ValueType(error.reason),
        message=spoken(str(error), tenant),
        next_step=error.next_step,
    )


def advice_to_proto(step: int, answer: Answer) -> pb.AdviseResponse:
    """Return the only advice of an answer as a message."""
    durable_step, reason = int(answer.entries.durable_steps[0]), int(answer.entries.reasons[0])
    return pb.AdviseResponse(
        step=step,
        learning_rate=float(answer.entries.lrs[0]),
        reason=pb.AdviceReason.ValueType(reason & REASON),
        durable_step=durable_step if durable_step >= 0 else None,
        restore=bool(reason & RESTORE),
    )
