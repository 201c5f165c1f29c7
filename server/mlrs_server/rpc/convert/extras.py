"""Conversion of what comes with observations besides losses: signals, validation losses, restored states."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from mlrs_core.policy import SIGNALS, Steps
from mlrs_proto import v1 as pb
from mlrs_server.domain.extras import LOSS, RESTORED, STEP, Extras, SparseExtras, none_sent
from mlrs_server.errors import invalid_field
from mlrs_server.rpc.convert.runs import step_from_proto

T = TypeVar("T", int, float)


def extras_from_proto(message: pb.Observations, steps: Steps) -> Extras:
    """Return the extras of a message's entries, (n, WIDTH).

    Args:
        message: the message.
        steps: the steps of its entries, (n,).

    Raises:
        AdvisorError: columns differ in length, or an index of an entry or a step is out of range.
    """
    extras = none_sent(len(steps))
    if message.HasField("signals"):
        signals = message.signals
        entries = _entries_from_proto("signals.entries", signals.entries, len(steps))
        for at, name in enumerate(SIGNALS):
            if column := _column("signals", name, getattr(signals, name), len(entries), may_be_empty=True):
                extras[entries, at] = column
    if message.HasField("validations"):
        validations = message.validations
        entries = _entries_from_proto("validations.entries", validations.entries, len(steps))
        told = _column("validations", "steps", validations.steps, len(entries))
        losses = _column("validations", "losses", validations.losses, len(entries))
        for entry, step in zip(entries.tolist(), told, strict=True):
            _check_told(step, int(steps[entry]), "validations.steps")
        extras[entries, STEP], extras[entries, LOSS] = told, losses
    extras[_entries_from_proto("restored", message.restored, len(steps)), RESTORED] = 1.0
    return extras


def extras_of_one(request: pb.AdviseRequest, step: int) -> Extras | None:
    """Return the extras of the observation of a step, (1, WIDTH); `None` if it has none.

    Raises:
        AdvisorError: the validation loss is of a later step.
    """
    if not (request.HasField("signals") or request.HasField("validation") or request.restored):
        return None
    extras = none_sent(1)
    signals: Any = request.signals
    for at, name in enumerate(SIGNALS):
        if signals.HasField(name):
            extras[0, at] = getattr(signals, name)
    if request.HasField("validation"):
        _check_told(request.validation.step, step, "validation.step")
        extras[0, STEP], extras[0, LOSS] = request.validation.step, request.validation.loss
    if request.restored:
        extras[0, RESTORED] = 1.0
    return extras


def _entries_from_proto(field: str, entries: Sequence[int], n: int) -> npt.NDArray[np.int64]:
    """Return the indexes of entries of a message of n."""
    indexes = np.array(entries, np.int64)
    if len(indexes) and (highest := int(indexes.max())) >= n:
        raise invalid_field(field, f"must be below the number of entries, {n}; one is {highest}")
    if len(np.unique(indexes)) < len(indexes):
        raise invalid_field(field, "must name each entry at most once")
    return indexes


def _column(
    of: str, name: str, column: Sequence[T], length: int, *, may_be_empty: bool = False
) -> Sequence[T]:
    """Return a column, whose length is checked."""
    if len(column) != length and not (may_be_empty and not column):
        wanted = f"as long as {of}.entries, {length}" + (", or empty" if may_be_empty else "")
        raise invalid_field(f"{of}.{name}", f"must be {wanted}; is of length {len(column)}")
    return column


def _check_told(told: int, step: int, field: str) -> None:
    """Check the step of a validation loss that came with the observation of a step."""
    if step_from_proto(told, field) > step:
        raise invalid_field(
            field, f"must be at most the step of the observation that it comes with, {step}; is {told}"
        )


def signals_to_proto(extras: SparseExtras) -> pb.SignalColumns | None:
    """Return the signals of consecutive steps; `None` if there are none."""
    sent = ~np.isnan(extras.values[:, : len(SIGNALS)])
    has = np.flatnonzero(sent.any(axis=1))
    if not len(has):
        return None
    columns = {name: extras.values[has, at].tolist() for at, name in enumerate(SIGNALS) if sent[:, at].any()}
    return pb.SignalColumns(entries=extras.positions[has].tolist(), **columns)


def validations_to_proto(extras: SparseExtras) -> pb.ValidationColumns | None:
    """Return the validation losses of consecutive steps; `None` if there are none."""
    has = np.flatnonzero(~np.isnan(extras.values[:, STEP]))
    if not len(has):
        return None
    return pb.ValidationColumns(
        entries=extras.positions[has].tolist(),
        steps=extras.values[has, STEP].astype(np.int64).tolist(),
        losses=extras.values[has, LOSS].tolist(),
    )


def restored_to_proto(extras: SparseExtras) -> list[int]:
    """Return which of consecutive steps came after a restored state."""
    restored: list[int] = extras.positions[~np.isnan(extras.values[:, RESTORED])].tolist()
    return restored
