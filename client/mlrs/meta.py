"""Meta mode for any framework: alignments and directions as pure functions on arrays.

    from mlrs import meta

    lr = run.next_lr(step, loss)
    d, state = meta.momentum_direction(gradients, state, momentum=0.9)
    virtual = tree_map(lambda w, d: w - lr * d, weights, d)
    adaptation = run.adapt(step, meta.alignment(validation_gradient(virtual), d))
    weights = tree_map(lambda w, d: w - adaptation.learning_rate * d, weights, d)

Trees are dicts, lists and tuples (named ones, too) of arrays, in any depth: NumPy's, JAX's, or whatever has
their operators and `numpy.asarray` reads. Directions are per unit of learning rate: the step is w - lr * d.
State goes in and comes out; `None` is the state before the first step. NumPy is imported when it is needed.

`alignment_from_losses` needs no gradients, but several runs that train in parallel.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from mlrs.errors import InvalidArgumentError

__all__ = [
    "AdamState",
    "adam_direction",
    "adamw_direction",
    "alignment",
    "alignment_from_losses",
    "momentum_direction",
    "nesterov_direction",
    "sgd_direction",
]

Tree = Any
"""Dicts, lists and tuples of arrays, in any depth."""


class AdamState(NamedTuple):
    """The state of Adam."""

    step: int
    """The number of steps."""
    mean: Tree
    """The moving average of gradients."""
    squares: Tree
    """The moving average of their squares."""


def alignment(validation_gradients: Tree, directions: Tree) -> float:
    """Return <validation gradient at w', d>, summed in float64.

    Raises:
        InvalidArgumentError: the trees differ, in structure or in an array's shape.
    """
    import numpy as np

    total = 0.0
    for path, (gradient, direction) in _together("directions", validation_gradients, directions):
        one, other = np.asarray(gradient, np.float64), np.asarray(direction, np.float64)
        if one.shape != other.shape:
            raise InvalidArgumentError(
                f"directions{path} is of shape {other.shape}, the validation gradient of {one.shape}",
                field="directions",
            )
        total += float(np.vdot(one, other))
    return total


def sgd_direction(gradients: Tree, weights: Tree = None, *, weight_decay: float = 0.0) -> Tree:
    """Return d of plain SGD: g + weight_decay * w. Weights are needed only for weight decay."""
    if not weight_decay:
        return gradients
    return _mapped(lambda g, w: g + weight_decay * w, gradients, _given(weights))


def momentum_direction(
    gradients: Tree,
    buffer: Tree = None,
    *,
    momentum: float = 0.9,
    weights: Tree = None,
    weight_decay: float = 0.0,
) -> tuple[Tree, Tree]:
    """Return d and the next buffer of SGD with heavy-ball momentum: b = momentum * b + g, and d = b.

    At first, b = g.
    """
    gradients = sgd_direction(gradients, weights, weight_decay=weight_decay)
    if buffer is None:
        return gradients, gradients
    buffer = _mapped(lambda g, b: momentum * b + g, gradients, buffer)
    return buffer, buffer


def nesterov_direction(
    gradients: Tree,
    buffer: Tree = None,
    *,
    momentum: float = 0.9,
    weights: Tree = None,
    weight_decay: float = 0.0,
) -> tuple[Tree, Tree]:
    """Return d and the next buffer of SGD with Nesterov momentum: b as for momentum, d = g + momentum * b."""
    gradients = sgd_direction(gradients, weights, weight_decay=weight_decay)
    _, buffer = momentum_direction(gradients, buffer, momentum=momentum)
    return _mapped(lambda g, b: g + momentum * b, gradients, buffer), buffer


def adam_direction(
    gradients: Tree,
    state: AdamState | None = None,
    *,
    beta1: float = 0.9,
    beta2: float = 0.999,
    eps: float = 1e-8,
    weights: Tree = None,
    weight_decay: float = 0.0,
) -> tuple[Tree, AdamState]:
    """Return d and the next state of Adam: m / (1 - beta1^t) / (sqrt(v / (1 - beta2^t)) + eps).

    Weight decay is in the gradient, as Adam has it.
    """
    gradients = sgd_direction(gradients, weights, weight_decay=weight_decay)
    if state is None:
        zeros = _mapped(lambda g: 0.0 * g, gradients)
        state = AdamState(0, zeros, zeros)
    step = state.step + 1
    mean = _mapped(lambda g, m: beta1 * m + (1.0 - beta1) * g, gradients, state.mean)
    squares = _mapped(lambda g, v: beta2 * v + (1.0 - beta2) * g * g, gradients, state.squares)
    of_mean, of_squares = 1.0 - beta1**step, 1.0 - beta2**step
    d = _mapped(lambda m, v: m / of_mean / ((v / of_squares) ** 0.5 + eps), mean, squares)
    return d, AdamState(step, mean, squares)


def adamw_direction(
    gradients: Tree,
    state: AdamState | None = None,
    *,
    weights: Tree,
    beta1: float = 0.9,
    beta2: float = 0.999,
    eps: float = 1e-8,
    weight_decay: float = 1e-2,
) -> tuple[Tree, AdamState]:
    """Return d and the next state of AdamW: Adam's d + weight_decay * w, decoupled."""
    d, state = adam_direction(gradients, state, beta1=beta1, beta2=beta2, eps=eps)
    return _mapped(lambda d, w: d + weight_decay * w, d, weights), state


def alignment_from_losses(log_lr_offsets: Any, validation_losses: Any, learning_rate: float) -> float:
    """Return an estimate of the alignment from validation losses alone.

    Runs that begin at the same weights take one step, each at `learning_rate * exp(offset)`. Their validation
    losses L say how L depends on ln lr, and dL/d(ln lr) = -alignment * lr: the estimate is the least-squares
    slope of the losses on the offsets, over -lr. Runs of a sweep that have diverged for several steps give
    the slope over all of these steps instead of one; for Adam, which scales its steps, this is no problem.

    Its bias falls with the offsets' size, as their square if they lie symmetrically about 0. Its variance is
    noise^2 / (lr^2 * n * var(offsets)), with `noise` the standard deviation of one loss given the others: it
    takes many runs, wide offsets (0.5 is wide, a factor of 1.6 either way), losses of one and the same
    validation batch, and a learning rate large enough to matter. With gradients, `alignment` is better.

    Args:
        log_lr_offsets: (n,), of at least two different values.
        validation_losses: (n,). A run whose loss is not finite is left out.
        learning_rate: the one that was advised, > 0.

    Raises:
        InvalidArgumentError: no two finite losses at different offsets are left, or an argument is wrong.
    """
    import numpy as np

    offsets = np.asarray(log_lr_offsets, np.float64)
    losses = np.asarray(validation_losses, np.float64)
    if offsets.ndim != 1 or offsets.shape != losses.shape:
        raise InvalidArgumentError(
            f"validation_losses must be one for each offset, {offsets.shape}; is of shape {losses.shape}",
            field="validation_losses",
        )
    if not (math.isfinite(learning_rate) and learning_rate > 0.0):
        raise InvalidArgumentError(
            f"learning_rate must be finite and > 0; is {learning_rate!r}", field="learning_rate"
        )
    is_known = np.isfinite(losses)
    centred = offsets[is_known] - offsets[is_known].mean() if is_known.any() else offsets[:0]
    spread = float(centred @ centred)
    if not spread > 0.0:
        raise InvalidArgumentError(
            "log_lr_offsets must hold two or more different values with finite losses", field="log_lr_offsets"
        )
    return -float(centred @ losses[is_known]) / spread / learning_rate


def _given(weights: Tree) -> Tree:
    if weights is None:
        raise InvalidArgumentError("weights are needed for weight_decay", field="weights")
    return weights


def _mapped(function: Callable[..., Any], tree: Tree, *others: Tree) -> Tree:
    """Return a tree of the results at each leaf."""
    if isinstance(tree, Mapping):
        return type(tree)({key: _mapped(function, *(one[key] for one in (tree, *others))) for key in tree})  # type: ignore[call-arg] # dicts and their like
    if isinstance(tree, (list, tuple)):
        values = [_mapped(function, *leaves) for leaves in zip(tree, *others, strict=True)]
        return type(tree)(*values) if hasattr(tree, "_fields") else type(tree)(values)
    return function(tree, *others)


def _together(name: str, tree: Tree, other: Tree, path: str = "") -> Iterator[tuple[str, tuple[Any, Any]]]:
    """Return the leaves of two trees, with their paths.

    Raises:
        InvalidArgumentError: the trees differ.
    """
    pairs: list[tuple[str, Any, Any]]
    if isinstance(tree, Mapping):
        if not isinstance(other, Mapping) or tree.keys() != other.keys():
            raise _differs(name, path, sorted(map(str, tree)))
        pairs = [(f"{path}[{key!r}]", tree[key], other[key]) for key in tree]
    elif isinstance(tree, (list, tuple)):
        if not isinstance(other, (list, tuple)) or len(tree) != len(other):
            raise _differs(name, path, f"{len(tree)} entries")
        pairs = [(f"{path}[{index}]", one, other[index]) for index, one in enumerate(tree)]
    else:
        yield path, (tree, other)
        return
    for inner, one, its in pairs:
        yield from _together(name, one, its, inner)


def _differs(name: str, path: str, expected: object) -> InvalidArgumentError:
    return InvalidArgumentError(
        f"{name}{path} must have what the validation gradients have there: {expected}", field=name
    )
