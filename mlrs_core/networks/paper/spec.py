"""The shape of the paper's network."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Literal, get_args

from mlrs_core.errors import InvalidFieldError

GateLayout = Literal["ifgo", "ifog"]
"""How the 4H gate rows are laid out.

`ifgo`: input, forget, transform (g), output: the authors' meta-test code, which their published
weights need. `ifog`: input, forget, output, transform, with 1 subtracted from the forget gate's
preactivation: their meta-train code.
"""
ScaleRule = Literal["shu"]
"""How gamma is chosen for a run that gives no scale: `networks.scale.shu_gamma`. Its numbers are the rule's,
and never change: others are another rule, under another name."""
MAX_LOSS = 1e6
"""The bound of losses in models whose file names none. Beyond it float32 products overflow."""


@dataclass(frozen=True, kw_only=True)
class PaperSpec:
    """A stack of LSTM cells whose gates come from two-layer perceptrons, and a sigmoid head.

    Layer l maps its input x (the loss for l = 0, else the hidden state below) and its hidden state
    h to gates `i2h(x) + h2h(h)`; both perceptrons have H // 2 hidden ReLU units.

    Raises:
        InvalidFieldError: a parameter is out of range.
    """

    kind: ClassVar[str] = "paper"
    begins_at_start: ClassVar[bool] = False

    hidden_size: int = 50
    """H, 2 to 1024. The paper's is 50."""
    num_layers: int = 1
    """How many cells are stacked, 1 to 8. The paper's is 1."""
    gate_layout: GateLayout = "ifgo"
    """The order of the gates."""
    scale_rule: ScaleRule = "shu"
    """How gamma is chosen for a run that gives none."""
    max_loss: float = MAX_LOSS
    """Losses enter the network within plus and minus this, which is above 0 and at most `MAX_LOSS`."""

    def __post_init__(self) -> None:
        """Check every parameter."""
        _check_count("hidden_size", self.hidden_size, low=2, high=1024)
        _check_count("num_layers", self.num_layers, low=1, high=8)
        _check_choice("gate_layout", self.gate_layout, get_args(GateLayout))
        _check_choice("scale_rule", self.scale_rule, get_args(ScaleRule))
        given: object = self.max_loss
        if not isinstance(given, int | float) or isinstance(given, bool) or not 0 < given <= MAX_LOSS:
            raise InvalidFieldError("max_loss", f"must be a number above 0, at most 1e6, is {given!r}")
        object.__setattr__(self, "max_loss", float(given))

    def to_json(self) -> dict[str, Any]:
        """Return its kind and parameters as JSON values.

        The first bound of losses is left out: models were stored before it could be said, and their digests
        stay.
        """
        parameters = {"kind": self.kind, **asdict(self)}
        if self.max_loss == MAX_LOSS:
            del parameters["max_loss"]
        return parameters

    def weight_shapes(self) -> dict[str, tuple[int, ...]]:
        """Return the shape of each weight of a snapshot; rows are outputs, as in torch."""
        hidden, half = self.hidden_size, self.hidden_size // 2
        shapes: dict[str, tuple[int, ...]] = {}
        for layer in range(self.num_layers):
            for name, inputs in (("i2h", 1 if layer == 0 else hidden), ("h2h", hidden)):
                prefix = f"layers.{layer}.{name}"
                shapes[f"{prefix}.0.weight"] = (half, inputs)
                shapes[f"{prefix}.0.bias"] = (half,)
                shapes[f"{prefix}.2.weight"] = (4 * hidden, half)
                shapes[f"{prefix}.2.bias"] = (4 * hidden,)
        return {**shapes, "head.weight": (1, hidden), "head.bias": (1,)}


def _check_count(field: str, value: object, *, low: int, high: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise InvalidFieldError(field, f"must be a whole number, {low} to {high}, is {value!r}")


def _check_choice(field: str, value: object, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise InvalidFieldError(field, f"must be one of {', '.join(choices)}, is {value!r}")
