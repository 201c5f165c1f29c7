"""Conversion of the messages of a StreamAdvice stream."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import chain

from mlrs.ledger.answers import Adapted, Advised, Answer, Draining, Refusal
from mlrs.protocol.conversation import Batch
from mlrs.values.reasons import REASON_PREFIX
from mlrs.wire.convert import reason_from_proto
from mlrs.wire.extras import add_extras
from mlrs.wire.meta_convert import adaptation_from_proto
from mlrs_proto import v1 as pb


def batch_to_proto(batch: Batch) -> pb.StreamAdviceRequest:
    """Return the message of a batch of observations, or of meta updates."""
    handles, entries = batch.handles, batch.entries
    if not entries:
        updates = [
            pb.MetaUpdate(
                run_handle=handles[index],
                step=update.step,
                alignment=update.alignments[index],
                validation_loss=update.validation_losses[index],
            )
            for update, index in batch.updates
        ]
        return pb.StreamAdviceRequest(meta_updates=pb.MetaUpdates(updates=updates))
    message = pb.StreamAdviceRequest()
    observations = message.observations  # filled in index: a message handed over would be copied
    if len(entries) == 1:
        (entry,) = entries
        observations.run_handles.extend(handles)
        observations.steps.extend(entry.steps)
        observations.losses.extend(entry.losses)
        has_extras = entry.has_extras
    else:
        observations.run_handles.extend(handles * len(entries))
        observations.steps.extend(chain.from_iterable(entry.steps for entry in entries))
        observations.losses.extend(chain.from_iterable(entry.losses for entry in entries))
        has_extras = any(entry.has_extras for entry in entries)
    if has_extras:
        add_extras(observations, entries)
    if batch.ledger.rank is not None:
        columns = observations.rank_columns
        columns.ranks.extend([batch.ledger.rank] * len(entries))
        columns.sample_counts.extend(chain.from_iterable(entry.sample_counts for entry in entries))
    return message


def answer_from_proto(message: pb.StreamAdviceResponse) -> Answer | None:
    """Return the answer in a message; `None`: this version does not know its kind."""
    kind = message.WhichOneof("kind")
    if kind == "advice":
        columns = message.advice
        return Advised(
            columns.learning_rates,
            columns.durable_steps,
            columns.reasons,
            columns.ranks_reported,
            reason_from_proto,
            _refusals(columns.errors) if columns.errors else (),
            columns.restores,
        )
    if kind == "meta_results":
        results = message.meta_results
        return Adapted(results.results, adaptation_from_proto, _refusals(results.errors))
    return Draining(message.drain.message) if kind == "drain" else None


def _refusals(errors: Iterable[pb.EntryError]) -> list[Refusal]:
    return [
        Refusal(
            error.index,
            _reason_name(error.reason),
            error.message,
            error.next_step if error.HasField("next_step") else None,
        )
        for error in errors
    ]


def _reason_name(reason: pb.ErrorReason.ValueType) -> str:
    """Return a reason's name without its prefix; a newer daemon's unknown one as its number."""
    if reason not in pb.ErrorReason.values():
        return str(reason)
    return pb.ErrorReason.Name(reason).removeprefix(REASON_PREFIX)
