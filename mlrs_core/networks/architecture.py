"""What every architecture of the family offers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Protocol

import numpy as np
import numpy.typing as npt

Weights = Mapping[str, npt.NDArray[np.float32]]
"""The weights of one snapshot by name."""


class Architecture(Protocol):
    """The shape of a network and all that its weights do not say. Implementations are frozen."""

    kind: ClassVar[str]
    """Its name in files, commands and the contract."""
    begins_at_start: ClassVar[bool]
    """Whether a run's advice begins at the learning rate that it is given, or that a search has found."""

    def __init__(self, **parameters: Any) -> None:
        """Build it from the parameters that `to_json` gives, checking each."""
        ...

    def to_json(self) -> dict[str, Any]:
        """Return its kind and parameters as JSON values."""
        ...

    def weight_shapes(self) -> dict[str, tuple[int, ...]]:
        """Return the shape of each weight of a snapshot, all float32."""
        ...
