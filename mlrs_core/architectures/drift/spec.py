"""The shape of the drift network, and what a step of it computes.

A run is a series of **ticks**: at each the network looks at the losses since the last one and sets the
learning rate that holds until the next. The first loss makes a tick; after it ticks are a step apart,
later t/50 steps, and a TICKS-th of the horizon at most: time runs as the logarithm of the steps first, in
shares of the horizon then, and a run of 100,000 steps has twice the ticks of one of 1,000. All memory
counts in ticks. A loss that jumps far above its recent average makes a tick of its own, which sees that
loss alone.

At step t, with loss L, of a run with horizon T:

1. **Scale.** u = L / ref, where ref is ln C if the class count is known, else the magnitude of the
   first loss. x = ln(u + FLOOR) - asinh(max(-u, 0)) in a run whose first loss is positive, else
   x = asinh(u): any scale, any sign. x is added up; the rest happens at ticks, with m, the mean of x
   since the last.
2. **Memory.** SCALES moving averages of m, with time constants spread evenly in the logarithm from 2
   to 80 ticks, which begin as plain means; a moving variance of m around the second of them; and the
   best (least) that the third has been.
3. **Features**, FEATURES of them: m, clipped near and far; differences of neighbouring averages, plain
   and in units of the noise; how far the loss is above its best, likewise; noise; soft steps
   tanh(10 (t/T - c)) through the horizon; the log-LR so far, over the usual one and over the initial
   one; the optimizer's family; log horizon and log of the steps so far, squashed; which of horizon and
   class count are known.
4. **Cell.** A plain LSTM with H hidden units, forget bias 1.
5. **Head.** Two numbers y say where the log-LR over the usual one should be: a base, `REACH * y0`, shut
   gradually by the decay gate, `ln sigmoid(4 y1 + 3)`. It drifts there by at most RISE upwards and FALL
   downwards a tick, and stays within MIN_DRIFT and MAX_DRIFT: lr = usual * exp(drift).

The first tick starts from ln WARMUP below the initial LR, so that the way up is a warmup. An unknown
horizon counts as twice the steps so far, at least 100.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Literal, get_args

from mlrs_core.adapting import AdaptivePolicy
from mlrs_core.architectures.architecture import Weights
from mlrs_core.errors import InvalidFieldError
from mlrs_core.meta import MetaConfig
from mlrs_core.policy import Policy

Inputs = Literal["all", "loss", "progress"]
"""What the network sees: everything; all but where it is in the horizon; or all but the losses. The
last two show what the first is worth."""

TICKS = 200
"""The most ticks of a horizon once they are evenly spaced."""
FIRST_TICKS = 50
"""Before, ticks are this share of the steps so far apart."""
JUMP = 2.0
"""A loss this far above its fastest average, on the scale of x, makes a tick."""
FLOOR = 1e-4
"""What keeps the logarithm of a positive loss from minus infinity, in units of ref."""
MAX_LEVEL = 1e4
"""The loss over its reference counts within plus and minus this."""
MIN_REF, MAX_REF = 1e-8, 3e38
"""The bounds of ref where it is the first loss."""
SCALES = 6
"""Moving averages of the loss."""
TIME_CONSTANTS = (2.0, 80.0)
"""Of the fastest and the slowest of them, in ticks."""
VARIANCE_RATE = 0.05
"""How fast the variance follows, a tick; faster at first."""
FIRST_VARIANCE = 0.01
"""What it is before the first tick."""
SOFT_STEPS = (0.03, 0.1, 0.2, 0.4, 0.6, 0.8, 0.9, 1.0, 1.1)
"""Where in the horizon the soft steps are."""
LOSS_FEATURES = 2 + 2 * (SCALES - 1) + 2 + 1
"""Inputs of the cell that come from the losses ..."""
PROGRESS_FEATURES = len(SOFT_STEPS) + 3
"""... from the place in the horizon ..."""
OWN_FEATURES = 2 + 3
"""... and from the log-LR so far and the config."""
FEATURES = LOSS_FEATURES + PROGRESS_FEATURES + OWN_FEATURES
"""Inputs of the cell, in this order."""
EXTRAS = SCALES + 9
"""Entries of a run's state besides the cell's: averages, variance, best, sum, count, ticks, drift
(twice), ref, mode."""
REACH = 3.0
"""The log-LR that one unit of the head's first number stands for."""
RISE = 0.2
"""How far the log-LR can go up at a tick."""
FALL = 0.6
"""How far it can go down."""
WARMUP = 5.0
"""The initial LR over where the first tick starts from."""
MIN_DRIFT, MAX_DRIFT = -14.0, 7.0
"""The log-LR over its family's usual start stays within these."""
MAX_START = 7.0
"""The initial LR counts as within e to this of the usual one, either way."""


@dataclass(frozen=True, kw_only=True)
class DriftSpec:
    """An LSTM over scale-free features with a log-LR head.

    Raises:
        InvalidFieldError: a parameter is out of range.
    """

    kind: ClassVar[str] = "drift"

    hidden_size: int = 24
    """H, 1 to 512."""
    inputs: Inputs = "all"
    """What the network sees; features that it does not see are 0."""

    def __post_init__(self) -> None:
        """Check every parameter."""
        size = self.hidden_size
        if type(size) is not int or not 1 <= size <= 512:
            raise InvalidFieldError("hidden_size", f"must be a whole number, 1 to 512, is {size!r}")
        if self.inputs not in get_args(Inputs):
            known = ", ".join(get_args(Inputs))
            raise InvalidFieldError("inputs", f"{self.inputs!r} is unknown; known: {known}")

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

    def feature_mask(self) -> tuple[float, ...]:
        """Return 1 for each feature that the network sees, else 0: (FEATURES,)."""
        loss, progress = float(self.inputs != "progress"), float(self.inputs != "loss")
        return (loss,) * LOSS_FEATURES + (progress,) * PROGRESS_FEATURES + (1.0,) * OWN_FEATURES

    def policy(self, snapshots: Sequence[Weights]) -> Policy:
        """Return the kernel. This network has one snapshot: it knows its place in the horizon."""
        from mlrs_core.architectures.drift.kernel import DriftKernel

        return DriftKernel(self, snapshots)

    def adaptive_policy(self, snapshots: Sequence[Weights], meta: MetaConfig) -> AdaptivePolicy:
        """Return the kernel whose runs go on learning, over one or more snapshots."""
        from mlrs_core.adapting.kernel import AdaptiveKernel
        from mlrs_core.architectures.drift.learner import DriftLearner

        return AdaptiveKernel(DriftLearner(self, snapshots), meta)
