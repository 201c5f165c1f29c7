"""A model: architecture, weights and where they come from. Immutable and content-addressed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from mlrs_core.adapting import AdaptivePolicy
from mlrs_core.config import MetaConfig
from mlrs_core.errors import ModelFileError
from mlrs_core.networks import Architecture, Weights
from mlrs_core.policy import Policy

MAX_WEIGHT = 1e9
"""The largest magnitude of a weight. Far from any that training gives, and no product of a network's
can overflow float32 below it."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Model:
    """A network with its weights. Two models are equal when their files are: compare digests.

    Raises:
        ModelFileError: the weights do not fit the architecture, are not finite, or are huge.
    """

    architecture: Architecture
    """The shape of the network, its scale rule included."""
    snapshots: tuple[Weights, ...] = field(repr=False)
    """The weights of each snapshot, at least one, in the order of the horizon."""
    provenance: Mapping[str, Any] = field(repr=False)
    """How it was made, as JSON values: method, tasks, seed, steps, versions."""

    def __post_init__(self) -> None:
        """Check the weights against the architecture."""
        if not self.snapshots:
            raise ModelFileError("a model needs at least one snapshot")
        shapes = self.architecture.weight_shapes()
        for index, weights in enumerate(self.snapshots):
            _check_weights(f"snapshots.{index}", weights, shapes)

    @property
    def parameters(self) -> int:
        """The number of weights in a snapshot."""
        return sum(int(np.prod(shape)) for shape in self.architecture.weight_shapes().values())

    def policy(self) -> Policy:
        """Return the model ready to serve."""
        from mlrs_core.networks.serving import policy_of

        return policy_of(self.architecture, self.snapshots)

    def adaptive_policy(self, meta: MetaConfig) -> AdaptivePolicy:
        """Return the model ready to serve runs that go on learning, by some meta settings."""
        from mlrs_core.networks.serving import adaptive_policy_of

        return adaptive_policy_of(self.architecture, self.snapshots, meta)


def _check_weights(where: str, weights: Weights, shapes: Mapping[str, tuple[int, ...]]) -> None:
    missing, extra = sorted(shapes.keys() - weights.keys()), sorted(weights.keys() - shapes.keys())
    if missing or extra:
        raise ModelFileError(f"{where}: weights missing: {missing or 'none'}; unknown: {extra or 'none'}")
    for name, shape in shapes.items():
        array = weights[name]
        if array.dtype != np.float32 or array.shape != shape:
            raise ModelFileError(
                f"{where}.{name}: must be float32 of shape {shape}, is {array.dtype} of {array.shape}"
            )
        if not (np.abs(array) <= MAX_WEIGHT).all():
            raise ModelFileError(
                f"{where}.{name}: holds values that are not finite, or beyond {MAX_WEIGHT:g}"
            )
