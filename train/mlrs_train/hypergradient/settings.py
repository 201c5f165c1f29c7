"""The settings of the paper's algorithm."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from mlrs_core.errors import InvalidFieldError
from mlrs_core.networks.paper import GateLayout, PaperSpec

if TYPE_CHECKING:  # it needs torch, and settings are there without
    from mlrs_train.hypergradient.method import Hypergradient


@dataclass(frozen=True, kw_only=True)
class HypergradientSettings:
    """Everything that the result of a training depends on; the defaults are the authors'.

    Raises:
        InvalidFieldError: a field is out of range.
    """

    method: ClassVar[str] = "hypergradient"
    checkpoint_every: ClassVar[int] = 1000

    tasks: Sequence[str] = ("digits-cnn", "topics-char")
    """The tasks, by name."""
    epochs: int = 200
    """Passes of each base learner over its task."""
    t_val: int = 20
    """T_val: every so many steps of a base learner, the network is updated. The authors' is 300, of
    78,000 steps; tasks as small as these have fewer steps."""
    seed: int = 0
    """Seeds the network, the base learners and the order of their data."""
    hidden_size: int = PaperSpec.hidden_size
    """The network's hidden units."""
    num_layers: int = PaperSpec.num_layers
    """The network's layers."""
    gate_layout: GateLayout = PaperSpec.gate_layout
    """The network's order of gates."""
    meta_lr: float = 1e-3
    """Adam's learning rate on the network."""
    meta_weight_decay: float = 1e-4
    """Adam's weight decay on the network."""
    weight_decay: float = 5e-4
    """SGD's weight decay on the base learners."""
    log_every: int = 50
    """Steps of a base learner in one record of the log."""

    def __post_init__(self) -> None:
        """Check every field."""
        object.__setattr__(self, "tasks", tuple(self.tasks))
        if not self.tasks or len(set(self.tasks)) < len(self.tasks):
            raise InvalidFieldError("tasks", f"must name tasks, each once, is {','.join(self.tasks)!r}")
        _check_whole("seed", self.seed, least=0, most=2**63 - 1)
        for field in ("epochs", "t_val", "log_every"):
            _check_whole(field, getattr(self, field), least=1, most=10**9)
        for field in ("meta_weight_decay", "weight_decay"):
            _check_real(field, getattr(self, field), valid=getattr(self, field) >= 0, bound=">= 0")
        _check_real("meta_lr", self.meta_lr, valid=self.meta_lr > 0, bound="> 0")
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

    def start(self) -> Hypergradient:
        """Return a training with these settings, at its first step.

        Raises:
            InvalidFieldError: a task is unknown.
        """
        from mlrs_train.hypergradient.method import Hypergradient
        from mlrs_train.tasks import load_tasks

        return Hypergradient(self, load_tasks(self.tasks))


def _check_whole(field: str, value: int, *, least: int, most: int) -> None:
    if not least <= value <= most:
        raise InvalidFieldError(field, f"must be a whole number, {least} to {most}, is {value}")


def _check_real(field: str, value: float, *, valid: bool, bound: str) -> None:
    if not (valid and math.isfinite(value)):
        raise InvalidFieldError(field, f"must be finite and {bound}, is {value}")
