"""Proto messages of meta mode to the client's values and back."""

from __future__ import annotations

from typing import Any

from mlrs.values.meta_types import (
    Adaptation,
    Meta,
    MetaOrder,
    MetaOutcome,
    MetaRecord,
    MetaScope,
    MetaStatus,
)
from mlrs_proto import v1 as pb

_SCOPES: dict[pb.AdaptScope.ValueType, MetaScope] = {
    pb.ADAPT_SCOPE_UNSPECIFIED: MetaScope.RUN,
    pb.ADAPT_SCOPE_RUN: MetaScope.RUN,
    pb.ADAPT_SCOPE_MODEL: MetaScope.MODEL,
}
_ORDERS: dict[pb.MetaOrder.ValueType, MetaOrder] = {
    pb.META_ORDER_UNSPECIFIED: MetaOrder.BEFORE_STEP,
    pb.META_ORDER_BEFORE_STEP: MetaOrder.BEFORE_STEP,
    pb.META_ORDER_AFTER_STEP: MetaOrder.AFTER_STEP,
}
_OUTCOMES: dict[pb.MetaOutcome.ValueType, MetaOutcome] = {
    pb.META_OUTCOME_APPLIED: MetaOutcome.APPLIED,
    pb.META_OUTCOME_IDLE: MetaOutcome.IDLE,
}
_SCOPES_TO_PROTO = {value: number for number, value in _SCOPES.items()}
_ORDERS_TO_PROTO = {value: number for number, value in _ORDERS.items()}
_NUMBERS = ("every", "learning_rate", "weight_decay", "max_change", "clip", "blow_up")


def config_to_proto(meta: Meta) -> pb.Meta:
    """Return the message of a meta mode; what is `None` stays unset."""
    given: dict[str, Any] = {name: value for name in _NUMBERS if (value := getattr(meta, name)) is not None}
    if meta.scope is not None:
        given["scope"] = _SCOPES_TO_PROTO[MetaScope(meta.scope)]
    if meta.order is not None:
        given["order"] = _ORDERS_TO_PROTO[MetaOrder(meta.order)]
    return pb.Meta(**given)


def config_from_proto(message: pb.Meta) -> Meta:
    """Return the meta mode in a message; numbers that are unset become `None`."""
    given: dict[str, Any] = {
        name: getattr(message, name)
        for name in _NUMBERS
        if message.HasField(name)  # type: ignore[arg-type] # names of optional fields
    }
    return Meta(
        scope=_SCOPES.get(message.scope, MetaScope.RUN),
        order=_ORDERS.get(message.order, MetaOrder.BEFORE_STEP),
        **given,
    )


def status_from_proto(message: pb.MetaStatus) -> MetaStatus:
    """Return the state of a run's meta updates."""
    return MetaStatus(
        updates=message.updates,
        last_step=message.last_step if message.HasField("last_step") else None,
        last_alignment=message.last_alignment if message.HasField("last_alignment") else None,
        last_validation_loss=message.last_validation_loss
        if message.HasField("last_validation_loss")
        else None,
        last_log_change=message.last_log_change,
        clipped=message.clipped,
        scaled=message.scaled,
        returns=message.returns,
    )


def adaptation_from_proto(message: pb.MetaResult, step: int, alignment: float | None = None) -> Adaptation:
    """Return the result of the meta update of a step."""
    return Adaptation(
        step=step,
        applied=True,
        updates=message.updates,
        learning_rate=message.learning_rate,
        outcome=_outcome(message.outcome),
        log_change=message.log_change,
        clipped=message.clipped,
        scaled=message.scaled,
        alignment=alignment,
    )


def record_from_proto(message: pb.MetaRecord) -> MetaRecord:
    """Return a meta update in a run's record."""
    return MetaRecord(
        step=message.step,
        alignment=message.alignment,
        validation_loss=message.validation_loss if message.HasField("validation_loss") else None,
        outcome=_outcome(message.outcome),
        learning_rate=message.learning_rate,
        log_change=message.log_change,
        clipped=message.clipped,
        scaled=message.scaled,
    )


def _outcome(outcome: pb.MetaOutcome.ValueType) -> MetaOutcome:
    """Return an outcome; one that this version does not know counts as applied."""
    return _OUTCOMES.get(outcome, MetaOutcome.APPLIED)
