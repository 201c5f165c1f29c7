"""The tasks that evolution trains on, as families: each draw of a family is another task.

To add one, write a function `(draw) -> Problem` and enter it in `FAMILIES`. It takes everything
random from `draw`, data included, so that a task is its key. `batched` turns the loss of one copy
into the losses of many.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from mlrs_core.errors import InvalidFieldError
from mlrs_train.evolution.draw import Draw
from mlrs_train.evolution.trainings.families.factors import factors
from mlrs_train.evolution.trainings.families.images import autoencoder, cnn, cnn_batch_norm
from mlrs_train.evolution.trainings.families.linear import least_squares, quadratic
from mlrs_train.evolution.trainings.families.perceptrons import (
    deep_tanh,
    mixture_mlp,
    packaged_mlp,
    regression_mlp,
    teacher_mlp,
    waves,
)
from mlrs_train.evolution.trainings.families.sequences import gru, transformer
from mlrs_train.evolution.trainings.problem import Problem

__all__ = ["FAMILIES", "Family", "choose_families"]


@dataclass(frozen=True)
class Family:
    """A family of tasks."""

    sample: Callable[[Draw], Problem]
    """Draws a task."""
    weight: float
    """How often it is drawn, relative to the others. Costly families are rarer."""
    reach: float = 1.0
    """The longest horizon of its tasks, as a share of the training's. Costly families have shorter ones."""


FAMILIES: dict[str, Family] = {
    "teacher-mlp": Family(teacher_mlp, 2.0),
    "mixture-mlp": Family(mixture_mlp, 1.5),
    "packaged-mlp": Family(packaged_mlp, 1.5),
    "regression-mlp": Family(regression_mlp, 1.5, 1.5),
    "deep-tanh": Family(deep_tanh, 1.0, 0.7),
    "waves": Family(waves, 1.0),
    "quadratic": Family(quadratic, 0.7, 4.0),
    "least-squares": Family(least_squares, 0.7, 4.0),
    "factors": Family(factors, 1.2, 1.5),
    "autoencoder": Family(autoencoder, 1.0, 0.6),
    "cnn": Family(cnn, 1.2, 0.6),
    "cnn-batch-norm": Family(cnn_batch_norm, 1.2, 0.6),
    "gru": Family(gru, 1.0, 0.5),
    "transformer": Family(transformer, 1.0, 0.5),
}
"""The families by name."""


def choose_families(names: Sequence[str]) -> dict[str, Family]:
    """Return the families of these names; all of them for none.

    Raises:
        InvalidFieldError: a name is unknown.
    """
    if unknown := [name for name in names if name not in FAMILIES]:
        raise InvalidFieldError("families", f"{unknown[0]!r} is unknown; known: {', '.join(FAMILIES)}")
    return {name: FAMILIES[name] for name in names or FAMILIES}
