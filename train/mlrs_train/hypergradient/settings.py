"""The settings of the paper's algorithm."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Annotated, Any, ClassVar

from mlrs_core.errors import InvalidFieldError
from mlrs_core.networks.paper import GateLayout, PaperSpec
from mlrs_train.settings import Real, Whole, check_ranges


@dataclass(frozen=True, kw_only=True)
class HypergradientSettings:
    """Everything that the result of a training depends on; the defaults are the authors'.

    Raises:
        InvalidFieldError: a field is out of range.
    """

    method: ClassVar[str] = "hypergradient"
    summary: ClassVar[str] = "The paper's algorithm: gradients of a held-out loss; by default as for `paper`."
    checkpoint_every: ClassVar[int] = 1000

    tasks: Sequence[str] = ("digits-cnn", "topics-char")
    """What to train on, by name. digits-cnn: images with a small CNN; topics-char: English text with a
    character GRU."""
    epochs: Annotated[int, Whole(1)] = 200
    """Passes of each base learner over its task's data."""
    t_val: Annotated[int, Whole(1)] = 20
    """Update the network every so many steps of a base learner. The authors' T_val is 300, of 78,000 steps;
    tasks as small as these have fewer steps."""
    seed: Annotated[int, Whole(0, 2**63 - 1)] = 0
    """Seeds the network, the base learners and the order of their data."""
    hidden_size: int = PaperSpec.hidden_size
    """The network's hidden units."""
    num_layers: int = PaperSpec.num_layers
    """The network's LSTM layers."""
    gate_layout: GateLayout = PaperSpec.gate_layout
    """The order of the network's gates; ifog also subtracts 1 from the forget gate."""
    meta_lr: Annotated[float, Real(above=0.0)] = 1e-3
    """Adam's learning rate on the network."""
    meta_weight_decay: Annotated[float, Real(least=0.0)] = 1e-4
    """Adam's weight decay on the network."""
    weight_decay: Annotated[float, Real(least=0.0)] = 5e-4
    """SGD's weight decay on the base learners."""
    log_every: Annotated[int, Whole(1)] = 50
    """Steps of a base learner in one record of the log."""

    def __post_init__(self) -> None:
        """Check every field."""
        object.__setattr__(self, "tasks", tuple(self.tasks))
        if not self.tasks or len(set(self.tasks)) < len(self.tasks):
            raise InvalidFieldError("tasks", f"must name tasks, each once, is {','.join(self.tasks)!r}")
        check_ranges(self)
        self.architecture()

    def architecture(self) -> PaperSpec:
        """Return the shape of the network to train."""
        return PaperSpec(
            hidden_size=self.hidden_size, num_layers=self.num_layers, gate_layout=self.gate_layout
        )

    def snapshot_epochs(self) -> list[int]:
        """Return the epochs after which a snapshot is taken: first, middle, last (1, 100, 200)."""
        return sorted({1, max(self.epochs // 2, 1), self.epochs})

    def to_json(self) -> dict[str, Any]:
        """Return the fields as JSON values."""
        return {**asdict(self), "tasks": list(self.tasks)}
