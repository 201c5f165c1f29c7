"""The family of networks. An architecture is input features + cell + head, in a package of its own.

To add one, write a package beside `paper/` with a `spec.py` (an `Architecture`), a `kernel.py`
(its `Policy`, compiled), a `learner.py` (its part in meta mode: `mlrs_core/adapting/`) and a
`reference.py` (its torch module, the kernel's oracle), and enter the spec in `ARCHITECTURES`. The
tests in `tests/core/networks/test_architectures.py` and `tests/core/adapting/` then run on it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mlrs_core.errors import ModelFileError
from mlrs_core.networks.architecture import Architecture, Weights
from mlrs_core.networks.drift import DriftSpec
from mlrs_core.networks.paper import PaperSpec
from mlrs_core.networks.tail import TailSpec

__all__ = ["ARCHITECTURES", "Architecture", "Weights", "architecture_from_json"]

ARCHITECTURES: dict[str, type[Architecture]] = {spec.kind: spec for spec in (PaperSpec, DriftSpec, TailSpec)}
"""The architectures by kind."""


def architecture_from_json(fields: Mapping[str, Any]) -> Architecture:
    """Return the architecture that `Architecture.to_json` described.

    Raises:
        ModelFileError: the kind is unknown, or a parameter is missing, unknown or out of range.
    """
    kind = fields.get("kind")
    if not isinstance(kind, str) or kind not in ARCHITECTURES:
        known = ", ".join(sorted(ARCHITECTURES))
        raise ModelFileError(f"architecture kind {kind!r} is unknown; this version knows: {known}")
    parameters = {name: value for name, value in fields.items() if name != "kind"}
    try:
        return ARCHITECTURES[kind](**parameters)
    except (TypeError, ValueError) as error:
        raise ModelFileError(f"architecture {kind!r}: {error}") from error
