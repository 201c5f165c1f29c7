"""What adapters for frameworks are written with, besides `Run` and `Pending`.

`docs/guides/adapters.md` has the protocol and a whole adapter. The adapter for PyTorch, `mlrs.torch`, uses
nothing else of this package.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Protocol, Self, final

from mlrs.errors import InvalidArgumentError
from mlrs.values import arguments as check
from mlrs.values.checks import number, real, whole
from mlrs.values.options import RunOptions, TaskOptions

__all__ = [
    "OTHER",
    "RunOptions",
    "RunState",
    "TaskOptions",
    "TrialBatches",
    "TrialLoop",
    "adam_of",
    "number",
    "real",
    "sgd_of",
    "whole",
]

OTHER: Mapping[str, Any] = MappingProxyType({"optimizer": "other", "momentum": None})
"""The `optimizer` and the `momentum` of a run whose optimizer is of a kind without a name."""


def sgd_of(momentum: Any, *, nesterov: bool) -> dict[str, Any]:
    """Return the `optimizer` and the `momentum` of a run's config for SGD, with or without momentum."""
    checked = _momentum(momentum)
    return {
        "optimizer": "sgd" if checked == 0.0 else "nesterov" if nesterov else "momentum",
        "momentum": checked,
    }


def adam_of(beta_1: Any, *, decoupled: bool) -> dict[str, Any]:
    """Return the `optimizer` and the `momentum` of a run's config for Adam.

    Args:
        beta_1: its momentum, beta 1.
        decoupled: whether its weight decay is, as AdamW's.
    """
    return {"optimizer": "adamw" if decoupled else "adam", "momentum": _momentum(beta_1)}


def _momentum(value: Any) -> float | None:
    """Return a momentum within the contract's range, [0, 1), else `None`."""
    momentum = float(value)
    return momentum if 0.0 <= momentum < 1.0 else None


class TrialLoop(Protocol):
    """A training loop that a search makes trials with: see `Run.search`.

    A trial is `restore()`, some `step`s from update 0 on, and `evaluate()`. All trials must see the same
    batches: that of `step(i, ...)` depends on `i` alone.
    """

    def save(self) -> None:
        """Save all that steps change: weights, optimizer state, random number generators. Called once."""

    def restore(self) -> None:
        """Put back what `save` saved. Called before each trial, and at the end, whatever happens."""

    def step(self, update: int, learning_rate: float) -> float:
        """Make an update of a trial, numbered from 0, and return the training loss before it."""

    def evaluate(self) -> float:
        """Return the mean training loss on a few batches that are the same for all trials."""


@final
class TrialBatches:
    """The batches of a search: read once, kept, and the same for all trials.

    The first `JUDGED_BY` are those that trials are compared on. Where the iterable has too few for the
    updates of a trial, they begin again.
    """

    JUDGED_BY = 4
    """How many batches trials are compared on."""
    MOST = 512
    """How many batches are kept at most."""

    def __init__(self, batches: Iterable[Any]) -> None:
        self._source: Iterator[Any] | None = iter(batches)
        self._kept: list[Any] = []

    def judged(self) -> list[Any]:
        """Return the batches that trials are compared on."""
        self._read(self.JUDGED_BY + 1)
        return self._kept[: self.JUDGED_BY]

    def update(self, index: int) -> Any:
        """Return the batch of an update, from 0.

        Raises:
            InvalidArgumentError: the iterable has fewer than `JUDGED_BY` + 1 batches.
        """
        self._read(self.JUDGED_BY + index + 1)
        return self._kept[self.JUDGED_BY + index % (len(self._kept) - self.JUDGED_BY)]

    def _read(self, count: int) -> None:
        while self._source is not None and len(self._kept) < min(count, self.MOST):
            try:
                self._kept.append(next(self._source))
            except StopIteration:
                self._source = None
        if len(self._kept) <= self.JUDGED_BY:
            raise InvalidArgumentError(
                f"batches: a search needs at least {self.JUDGED_BY + 1} batches; there are {len(self._kept)}",
                field="batches",
            )


@final
@dataclass(frozen=True)
class RunState:
    """The position of a run between two steps, for a checkpoint: see `Run.state` and `Run.resume`.

    Its fields are plain values; `dataclasses.asdict` makes a dict of them, which any format of checkpoints
    holds.
    """

    run_id: str
    """The run's id."""
    step: int
    """The step to observe next."""
    last_lr: float | None = None
    """The newest learning rate, from which the fallback continues; `None`: there is none yet."""

    @classmethod
    def from_dict(cls, saved: object) -> Self:
        """Return the state that a dict holds; other keys, such as those of an adapter, are ignored.

        Raises:
            InvalidArgumentError: the dict holds no state; `field` names the wrong value, or is `state`.
        """
        if not isinstance(saved, Mapping):
            raise InvalidArgumentError(f"state must be a dict; is {saved!r:.100}", field="state")
        if lacking := {"run_id", "step", "last_lr"} - saved.keys():
            raise InvalidArgumentError(
                f"state lacks {sorted(lacking)}: it is of no run, or of another kind of scheduler",
                field="state",
            )
        last_lr = saved["last_lr"]
        return cls(
            check.run_id(saved["run_id"], "run_id"),
            check.step(saved["step"]),
            None if last_lr is None else real("last_lr", last_lr),
        )
