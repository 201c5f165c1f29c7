"""What every architecture of the family offers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Protocol

import numpy as np
import numpy.typing as npt

from mlrs_core.adapting import AdaptivePolicy
from mlrs_core.config import MetaConfig
from mlrs_core.policy import Policy

Weights = Mapping[str, npt.NDArray[np.float32]]
"""The weights of one snapshot by name."""


class Architecture(Protocol):
    """The shape of a network and all that its weights do not say. Implementations are frozen."""

    kind: ClassVar[str]
    """Its name in files, commands and the contract."""

    def __init__(self, **parameters: Any) -> None:
        """Build it from the parameters that `to_json` gives, checking each."""
        ...

    def to_json(self) -> dict[str, Any]:
        """Return its kind and parameters as JSON values."""
        ...

    def weight_shapes(self) -> dict[str, tuple[int, ...]]:
        """Return the shape of each weight of a snapshot, all float32."""
        ...

    def policy(self, snapshots: Sequence[Weights]) -> Policy:
        """Return the kernel over one or more snapshots of weights of these shapes."""
        ...

    def adaptive_policy(self, snapshots: Sequence[Weights], meta: MetaConfig) -> AdaptivePolicy:
        """Return the kernel whose runs go on learning, by some settings, from such snapshots."""
        ...
