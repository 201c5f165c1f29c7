"""The shape of the drift network, and what a step of it computes in feature version 1.

Names in capitals below are counts of the version (`constants.py`), or numbers that each model holds: its
`DriftConstants`.

A run is a series of **ticks**: at each the network looks at the losses since the last one and sets the
learning rate that holds until the next. The first loss makes a tick. At first every step is a tick; later
the distance between ticks is t / FIRST_TICKS steps, and at most a TICKS-th of the horizon. So time runs as
the logarithm of the steps first, in shares of the horizon later, and a run of 100,000 steps has twice the
ticks of one of 1,000. All memory counts in ticks. A loss that JUMPs far above its recent average makes a
tick of its own, which sees that loss alone.

At step t, with loss L, of a run with horizon T:

1. **Scale.** u = L / ref, where ref is ln C if the class count is known, else the magnitude of the
   first loss. x = ln(u + FLOOR) - asinh(max(-u, 0)) in a run whose first loss is positive, else
   x = asinh(u): any scale, any sign. x is added up; the rest happens at ticks, with m, the mean of x
   since the last.
2. **Memory.** SCALES moving averages of m, with TIME_CONSTANTS spread evenly in the logarithm, in ticks,
   which begin as plain means; a moving variance of m around the second of them; and the best (least) that
   the third has been.
3. **Features**, FEATURES of them: m, clipped near and far; differences of neighbouring averages, plain
   and in units of the noise; how far the loss is above its best, in the same two ways; noise; soft steps
   tanh(10 (t/T - c)) through the horizon; the log-LR so far, over the default one and over the initial
   one; the optimizer's family; log horizon and log of the steps so far, squashed; which of horizon and
   class count are known.
4. **Cell.** A plain LSTM with H hidden units, and FORGET_BIAS.
5. **Head.** Two numbers y say where the log-LR over the default one should be: a base, `REACH * y0`, shut
   gradually by the decay gate, `ln sigmoid(GATE_SLOPE y1 + GATE_START)`. It drifts there by at most RISE
   upwards and FALL downwards a tick, and stays within MIN_DRIFT and MAX_DRIFT: lr = default * exp(drift).

The first tick starts from ln WARMUP below the initial LR, so that the way up is a warmup. An unknown
horizon counts as twice the steps so far, at least UNKNOWN_HORIZON.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar, Literal, get_args

from mlrs_core.errors import InvalidFieldError
from mlrs_core.networks.drift.constants import DriftConstants
from mlrs_core.networks.drift.versions import FeatureSet, feature_set

Inputs = Literal["all", "loss", "progress"]
"""What the network sees: everything; all but where it is in the horizon; or all but the losses. The
last two show what the first is worth."""


@dataclass(frozen=True, kw_only=True)
class DriftSpec:
    """An LSTM over scale-free features with a log-LR head.

    Raises:
        InvalidFieldError: a parameter is out of range.
    """

    kind: ClassVar[str] = "drift"
    begins_at_start: ClassVar[bool] = False

    hidden_size: int = 24
    """H, 1 to 512."""
    inputs: Inputs = "all"
    """What the network sees; features that it does not see are 0."""
    features: int = 1
    """The version of its feature set (`versions.py`). A file that does not say is of version 1."""
    constants: DriftConstants = field(default_factory=DriftConstants)
    """The numbers that its advice depends on besides the weights, of its version's type; as a mapping from
    a file, all of them. A file of version 1 that does not say has these."""

    def __post_init__(self) -> None:
        """Check every parameter."""
        size = self.hidden_size
        if type(size) is not int or not 1 <= size <= 512:
            raise InvalidFieldError("hidden_size", f"must be a whole number, 1 to 512, is {size!r}")
        if self.inputs not in get_args(Inputs):
            known = ", ".join(get_args(Inputs))
            raise InvalidFieldError("inputs", f"{self.inputs!r} is unknown; known: {known}")
        given: object = self.constants
        if isinstance(given, Mapping):
            object.__setattr__(self, "constants", self.feature_set.constants_from(given))
        elif not isinstance(given, self.feature_set.constants):
            kind = self.feature_set.constants.__name__
            raise InvalidFieldError("constants", f"must be {kind} in feature version {self.features}")

    @property
    def feature_set(self) -> FeatureSet:
        """The version of its feature set."""
        return feature_set(self.features)

    def to_json(self) -> dict[str, Any]:
        """Return its kind and parameters as JSON values.

        Version 1 under its first constants is left out: models were stored before either could be said, and
        their digests stay.
        """
        shape = {"kind": self.kind, "hidden_size": self.hidden_size, "inputs": self.inputs}
        if self == DriftSpec(hidden_size=self.hidden_size, inputs=self.inputs):
            return shape
        numbers = {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in asdict(self.constants).items()
        }
        return {**shape, "features": self.features, "constants": numbers}

    def weight_shapes(self) -> dict[str, tuple[int, ...]]:
        """Return the shape of each weight; rows are outputs, gates in the order i, f, o, g."""
        hidden = self.hidden_size
        return {
            "cell.weight": (4 * hidden, sum(self.feature_set.features) + hidden),
            "cell.bias": (4 * hidden,),
            "head.weight": (2, hidden),
            "head.bias": (2,),
        }

    @property
    def state_size(self) -> int:
        """The length of a run's state."""
        return 2 * self.hidden_size + self.feature_set.extras

    def feature_mask(self) -> tuple[float, ...]:
        """Return 1 for each feature that the network sees, else 0: (features,)."""
        loss, progress, own = self.feature_set.features
        sees_loss, sees_progress = float(self.inputs != "progress"), float(self.inputs != "loss")
        return (sees_loss,) * loss + (sees_progress,) * progress + (1.0,) * own
