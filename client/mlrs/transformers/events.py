"""The events of a `Trainer` that an advised one follows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from transformers import TrainerCallback


class Advised(Protocol):
    """What an advised trainer does at events."""

    def begin_advice(self) -> None:
        """Begin to train: everything is loaded and no batch was read."""

    def end_step(self) -> None:
        """End a step of the run, if the trainer did not."""

    def tell_evaluation(self, metrics: Mapping[str, float]) -> None:
        """Take the metrics of an evaluation."""

    def end_advice(self) -> None:
        """End a training that is complete."""


class Events(TrainerCallback):
    """Hands the events on to the trainer."""

    def __init__(self, trainer: Advised) -> None:
        self._trainer = trainer

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        """Begin to train."""
        self._trainer.begin_advice()

    def on_step_end(self, *_: Any, **__: Any) -> None:
        """End a step, before the trainer may save a checkpoint."""
        self._trainer.end_step()

    def on_evaluate(self, *_: Any, metrics: Mapping[str, float], **__: Any) -> None:
        """Take the metrics."""
        self._trainer.tell_evaluation(metrics)

    def on_train_end(self, *_: Any, **__: Any) -> None:
        """End a training that is complete."""
        self._trainer.end_advice()
