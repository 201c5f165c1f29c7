"""The unary calls of meta mode as values, and its arguments, checked."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from mlrs.errors import InvalidArgumentError
from mlrs.protocol.routing import Call
from mlrs.values import arguments as check
from mlrs.values import meta_arguments as check_meta
from mlrs.values.meta_types import Adaptation
from mlrs.wire import gradients
from mlrs.wire.meta_convert import adaptation_from_proto
from mlrs_proto import v1 as pb


def adapt(run_id: object, step: object, alignment: object, validation_loss: object) -> Call[Adaptation]:
    """Send an alignment."""
    request = pb.AdaptRequest(
        run_id=check.run_id(run_id),
        step=check.step(step),
        alignment=check_meta.alignment(alignment),
        validation_loss=check_meta.validation_loss(validation_loss),
    )
    return Call("Adapt", request, lambda response: adaptation_from_proto(response.result, request.step))


def adapt_gradients(
    run_id: object,
    step: object,
    validation_gradient: object,
    direction: object,
    data_type: object,
    validation_loss: object,
) -> Call[Adaptation]:
    """Send both vectors, for the daemon to compute the alignment of."""
    header = pb.AdaptGradientsHeader(
        run_id=check.run_id(run_id),
        step=check.step(step),
        validation_loss=check_meta.validation_loss(validation_loss),
    )
    parts = gradients.stretches(validation_gradient, direction, data_type)
    return Call(
        "AdaptGradients",
        lambda: gradients.requests(header, parts),
        lambda response: adaptation_from_proto(response.result, header.step, response.alignment),
    )


def run_update(
    step: object, alignment: object, validation_loss: object
) -> tuple[int, tuple[float], tuple[float | None]]:
    """Return the checked step, alignment and validation loss of one run."""
    return (
        check.step(step),
        (check_meta.alignment(alignment),),
        (check_meta.validation_loss(validation_loss),),
    )


def sweep_update(
    step: object, alignments: object, validation_losses: object, count: int
) -> tuple[int, tuple[float, ...], tuple[float | None, ...]]:
    """Return the checked step, alignments and validation losses of so many runs; NaN: there is none."""
    numbers = _column("alignments", alignments, count)
    losses: Sequence[Any] = [None] * count
    if validation_losses is not None:
        losses = _column("validation_losses", validation_losses, count)
    return (
        check.step(step),
        tuple(
            math.nan if number != number else check_meta.alignment(number, "alignments")  # noqa: PLR0124 # NaN
            for number in numbers
        ),
        tuple(map(check_meta.validation_loss, losses)),
    )


def _column(name: str, value: Any, count: int) -> Sequence[Any]:
    if hasattr(value, "detach"):  # a tensor of PyTorch, on whatever device it is
        value = value.detach().cpu()
    if hasattr(value, "tolist"):
        value = value.tolist()
    if not isinstance(value, (list, tuple)) or len(value) != count:
        raise InvalidArgumentError(
            f"{name} must be one number for each of the {count} runs; is {value!r:.100}", field=name
        )
    return value
