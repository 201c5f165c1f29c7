"""The steps of a JAX training as the trials of a search."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any, final

import jax

from mlrs.adapters import TrialBatches
from mlrs.errors import UsageError
from mlrs.optax.asking import Asking


@final
class Trials:
    """A `TrialLoop` of `mlrs.adapters` on copies of a training's state."""

    def __init__(
        self,
        asking: Asking,
        step: Callable[[Any, Any], Any],
        state: Any,
        batches: Iterable[Any],
        micro_steps: int,
    ) -> None:
        self._asking, self._step, self._first = asking, step, state
        self._micro_steps = micro_steps
        self._batches = TrialBatches(batches)
        self._state: Any = None

    def save(self) -> None:
        """Do nothing: no step changes the arrays that it gets a copy of."""

    def restore(self) -> None:
        """Begin again with a copy, which a step may donate."""
        self._state = jax.tree.map(_copied, self._first)

    def step(self, update: int, learning_rate: float) -> float:
        """Make an update, and return the loss that it told."""
        first = update * self._micro_steps
        chosen = [self._batches.update(first + micro_step) for micro_step in range(self._micro_steps)]
        return self._advance(chosen, learning_rate)

    def evaluate(self) -> float:
        """Return the mean loss on the batches of comparison, of updates with a learning rate of 0."""
        judged = self._batches.judged()
        losses = [self._advance([batch] * self._micro_steps, 0.0) for batch in judged]
        return math.fsum(losses) / len(losses)

    def _advance(self, batches: list[Any], learning_rate: float) -> float:
        with self._asking.trial(learning_rate) as losses:
            for batch in batches:
                self._state, *_ = self._step(self._state, batch)
            jax.effects_barrier()
        if not losses:
            raise UsageError(
                "step asked for no learning rate: its optimizer must have this AdvisedLR, and get value=loss"
            )
        return losses[-1]


def first_state(state: Any, kind: type[Any]) -> Any:
    """Return the schedule's part of a training's state."""
    found = [
        one
        for one in jax.tree.leaves(state, is_leaf=lambda part: isinstance(part, kind))
        if isinstance(one, kind)
    ]
    if not found:
        raise UsageError("the state has no optimizer's state with this AdvisedLR: pass (params, opt_state)")
    return found[0]


def _copied(leaf: Any) -> Any:
    return leaf.copy() if isinstance(leaf, jax.Array) else leaf
