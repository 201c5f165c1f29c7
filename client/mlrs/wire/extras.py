"""Conversion of what few observations have, signals, validation losses and so on, to columns and back."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from mlrs.ledger.entries import Observed
from mlrs.values.signals import SIGNAL_NAMES, SignalRecord, Signals, ValidationRecord
from mlrs_proto import v1 as pb


def add_extras(message: pb.Observations, entries: Sequence[Observed]) -> None:
    """Add to a message of a run's observations what came with them."""
    signals = [(index, entry.signals) for index, entry in enumerate(entries) if entry.signals is not None]
    if signals:
        message.signals.entries.extend(index for index, _ in signals)
        for name in SIGNAL_NAMES:
            column = [getattr(one, name) for _, one in signals]
            if not all(map(math.isnan, column)):
                getattr(message.signals, name).extend(column)
    for index, entry in enumerate(entries):
        if (told := entry.validation) is not None:
            message.validations.entries.append(index)
            message.validations.steps.append(told.step)
            message.validations.losses.append(told.loss)
        if entry.restored:
            message.restored.append(index)


def signals_from_proto(message: pb.SignalColumns, first_step: int) -> tuple[SignalRecord, ...]:
    """Return the signals of a part of a record that begins with a step."""
    columns: dict[str, Any] = {name: column for name in SIGNAL_NAMES if (column := getattr(message, name))}
    return tuple(
        SignalRecord(
            step=first_step + entry,
            signals=Signals(**{name: column[index] for name, column in columns.items()}),
        )
        for index, entry in enumerate(message.entries)
    )


def validations_from_proto(message: pb.ValidationColumns, first_step: int) -> tuple[ValidationRecord, ...]:
    """Return the validation losses of a part of a record that begins with a step."""
    return tuple(
        ValidationRecord(step=step, loss=loss, observed_step=first_step + entry)
        for entry, step, loss in zip(message.entries, message.steps, message.losses, strict=True)
    )
