"""The shape of the drift network, and what a step of it computes.

At step t, with loss L, of a run with horizon T:

1. **Scale.** u = L / ref, where ref is ln C if the class count is known, else the magnitude of the
   first loss. x = ln(u + 1e-3) - asinh(max(-u, 0)) in a run whose first loss is positive, else
   x = asinh(u): any scale, any sign.
2. **Memory.** SCALES moving averages of x, with time constants spread evenly in the logarithm from 3
   steps to a third of the horizon, and a moving variance of x around the second of them.
3. **Features**, FEATURES of them: x; differences of neighbouring averages, plain and in units of the
   noise; soft steps tanh(10 (t/T - c)) through the horizon; noise; the log-LR so far; the optimizer's
   family; log horizon; log of the steps so far; which of horizon and class count are known.
4. **Cell.** A plain LSTM with H hidden units, forget bias 1.
5. **Head.** Two numbers y: the log-LR moves by `move * tanh(y0)`, is kept within +-7 of its family's
   usual start, and is shut gradually by the gate `sigmoid(4 y1 + 3)`:
   lr = start * exp(drift) * gate.

An unknown horizon counts as twice the steps so far, at least 100. `move` is 0.15 up to 300 steps of
horizon and falls as its square root beyond, so a longer run drifts more slowly, as it should.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

from mlrs_core.architectures.architecture import Weights
from mlrs_core.config import Optimizer
from mlrs_core.errors import InvalidFieldError
from mlrs_core.policy import Policy

SCALES = 6
"""Moving averages of the loss."""
SOFT_STEPS = (0.03, 0.1, 0.2, 0.4, 0.6, 0.8, 0.9, 1.0, 1.1)
"""Where in the horizon the soft steps are."""
FEATURES = 1 + 2 * (SCALES - 1) + len(SOFT_STEPS) + 8
"""Inputs of the cell."""
EXTRAS = SCALES + 5
"""Entries of a run's state besides the cell's: averages, variance, drift (twice), ref, mode."""
MOMENTUM_FAMILY = (Optimizer.MOMENTUM, Optimizer.NESTEROV)
"""Update rules that start at 0.1 times (1 - momentum)."""
ADAM_FAMILY = (Optimizer.ADAM, Optimizer.ADAMW, Optimizer.OTHER)
"""Update rules that start at 1e-3; all others start at 0.1."""
MAX_DRIFT = 7.0
"""The log-LR stays within this of its family's usual start, either way."""


@dataclass(frozen=True, kw_only=True)
class DriftSpec:
    """An LSTM over scale-free features with a log-LR head.

    Raises:
        InvalidFieldError: a parameter is out of range.
    """

    kind: ClassVar[str] = "drift"

    hidden_size: int = 24
    """H, 1 to 512."""

    def __post_init__(self) -> None:
        """Check every parameter."""
        size = self.hidden_size
        if type(size) is not int or not 1 <= size <= 512:
            raise InvalidFieldError("hidden_size", f"must be a whole number, 1 to 512, is {size!r}")

    def to_json(self) -> dict[str, Any]:
        """Return its kind and parameters as JSON values."""
        return {"kind": self.kind, **asdict(self)}

    def weight_shapes(self) -> dict[str, tuple[int, ...]]:
        """Return the shape of each weight; rows are outputs, gates in the order i, f, o, g."""
        hidden = self.hidden_size
        return {
            "cell.weight": (4 * hidden, FEATURES + hidden),
            "cell.bias": (4 * hidden,),
            "head.weight": (2, hidden),
            "head.bias": (2,),
        }

    @property
    def state_size(self) -> int:
        """The length of a run's state."""
        return 2 * self.hidden_size + EXTRAS

    def policy(self, snapshots: Sequence[Weights]) -> Policy:
        """Return the NumPy kernel. This network has one snapshot: it knows its place in the horizon."""
        from mlrs_core.architectures.drift.kernel import DriftKernel

        return DriftKernel(self, snapshots)
