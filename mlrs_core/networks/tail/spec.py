"""The shape of the tail network, and what a step of it computes.

The network corrects a schedule that is known to be good: a warmup over the first WARMUP of the horizon, level
until the last COOLDOWN, then 1 - sqrt(p) down to 0. With all weights 0 it is that schedule. Names in capitals
below are the counts in `constants.py`, or numbers that each model holds: its `TailConstants`.

A run is a series of **looks**: at each the network looks at what came since the last one and sets the
correction that holds until the next; the schedule below it goes on at every step. The first loss makes a
look. At first every step is one; later looks are t / FIRST_LOOKS steps apart, and at most a LOOKS-th of the
horizon. A loss that JUMPs far above its fastest average makes a look of its own, which sees that loss alone.

At step t, with loss L, of a run with horizon T that starts at a learning rate `start` (the one that was given
or found by a search, else the default of its optimizer):

1. **Scale.** u = L / ref, where ref is ln C if the class count is known, else the magnitude of the first
   loss. x = ln(u + FLOOR) - asinh(max(-u, 0)) in a run whose first loss is positive, else x = asinh(u): any
   scale, any sign. x is added up; what follows happens at looks, with m, the mean of x since the last.
2. **Memory of losses.** SCALES moving averages of m, from FASTEST to SLOWEST looks, which begin as plain
   means; a moving variance of m around the second of them; the best (least) that the third has been.
3. **Signals** of the steps before, if any were sent, each from one step s with update u_s and gradient g_s:
   ln(|u_s| / |w_s|), averaged over tensors; and, over |g_s| |u_s|, the products <g_s, u_s> and
   <g_s, u_(s-1)>. Averaged since the last look, then fast and slow over looks. The ratio of the two
   averaged products is 1 where the learning rate is much too small, 0 where steps lead to the minimum
   along their line, and -1 at the edge of stability.
4. **Validation losses**, if any were sent, on the scale of x: the newest, the one before and the best.
5. **Features**, FEATURES of them, in `features.py`. What was not sent is 0, and a flag says so.
6. **Cell.** A plain LSTM with H hidden units, and FORGET_BIAS.
7. **Head.** Two numbers y correct the log of the schedule: a drift, which moves by PACE tanh(y0) at each look
   and stays within MIN_DRIFT and MAX_DRIFT, and REACH tanh(y1).

lr = start * schedule(t) * exp(drift + REACH tanh(y1)). From step T on the schedule stays as it was at step
T - 1, so that it never is 0. An unknown horizon counts as twice the steps so far, at least UNKNOWN_HORIZON,
and has no cooldown.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, ClassVar

from mlrs_core.config.ranges import check_whole
from mlrs_core.errors import InvalidFieldError
from mlrs_core.networks.tail.constants import FEATURES, TailConstants
from mlrs_core.networks.tail.state_layout import EXTRAS


@dataclass(frozen=True, kw_only=True)
class TailSpec:
    """An LSTM that corrects the logarithm of a schedule.

    Raises:
        InvalidFieldError: a parameter is out of range.
    """

    kind: ClassVar[str] = "tail"
    begins_at_start: ClassVar[bool] = True

    hidden_size: int = 24
    """H, 1 to 512."""
    features: int = 1
    """The version of its inputs. There is one."""
    constants: TailConstants = field(default_factory=TailConstants)
    """The numbers that its advice depends on besides the weights; as a mapping from a file, all of them."""

    def __post_init__(self) -> None:
        """Check every parameter."""
        check_whole("hidden_size", self.hidden_size, low=1, high=512)
        if type(self.features) is not int or self.features != 1:
            raise InvalidFieldError(
                "features", f"version {self.features!r} is unknown; this version of mlrs knows: 1"
            )
        given: object = self.constants
        if isinstance(given, Mapping):
            object.__setattr__(self, "constants", _stored(given))
        elif not isinstance(given, TailConstants):
            raise InvalidFieldError("constants", "must be TailConstants")

    def to_json(self) -> dict[str, Any]:
        """Return its kind and parameters as JSON values."""
        numbers = {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in asdict(self.constants).items()
        }
        return {
            "kind": self.kind,
            "hidden_size": self.hidden_size,
            "features": self.features,
            "constants": numbers,
        }

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


def _stored(numbers: Mapping[str, Any]) -> TailConstants:
    """Return constants from a model's file, which names every one: defaults in code may not fill in."""
    known = {each.name for each in fields(TailConstants)}
    missing, extra = sorted(known - numbers.keys()), sorted(numbers.keys() - known)
    if missing or extra:
        raise InvalidFieldError("constants", f"missing: {missing or 'none'}; unknown: {extra or 'none'}")
    return TailConstants(**numbers)
