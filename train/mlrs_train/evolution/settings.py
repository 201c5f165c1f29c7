"""The settings of meta-training by evolution."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal, get_args

from mlrs_core.errors import InvalidFieldError
from mlrs_core.networks.drift.spec import DriftSpec, Inputs

if TYPE_CHECKING:  # it needs torch, and settings are there without
    from mlrs_train.evolution.method import Evolution

Objective = Literal["final", "window", "area"]
"""What is minimised: the validation loss after the last step, its mean over the last tenth of the
steps, or its mean over the whole training."""


@dataclass(frozen=True, kw_only=True)
class EvolutionSettings:
    """Everything that the result of a training depends on.

    Raises:
        InvalidFieldError: a field is out of range.
    """

    method: ClassVar[str] = "evolution"
    checkpoint_every: ClassVar[int] = 25

    updates: int | None = None
    """Updates of phi, with those of cloning. `None`: as many as `minutes` allow."""
    minutes: float | None = None
    """Time to train for; the result then depends on the machine's speed. Neither: `DEFAULT_UPDATES`."""
    families: Sequence[str] = ()
    """The families that tasks are drawn from, by name. None named: all."""
    population: int = 40
    """Perturbed networks per task; even, for they come in pairs."""
    tasks_per_update: int = 2
    """Tasks per update."""
    cloning_updates: int = 0
    """So many updates come first that learn from tuned schedules, by gradient: a warm start."""
    cloning_steps: int = 4
    """Steps by gradient in each of them, on all that was seen so far."""
    cloning_lr: float = 0.005
    """Adam's first learning rate on phi in these; it falls linearly to a twentieth."""
    min_horizon: int = 100
    """The shortest training, in steps."""
    max_horizon: int = 1000
    """The longest training, in steps; between the two, log-uniform."""
    objective: Objective = "final"
    """What is minimised."""
    seed: int = 0
    """Seeds the network, the perturbations and the tasks."""
    hidden_size: int = DriftSpec.hidden_size
    """The network's hidden units."""
    inputs: Inputs = "all"
    """What the network sees: less than all is for measuring what the rest is worth."""
    sigma: float = 0.05
    """The standard deviation of a perturbation."""
    meta_lr: float = 0.02
    """Adam's first learning rate on phi; it falls linearly to `final_meta_lr`."""
    final_meta_lr: float = 0.0015
    """Adam's last learning rate on phi."""
    averaging: float = 0.97
    """What the average of phi, which becomes the model, keeps of itself at each step of phi."""
    log_every: int = 5
    """Updates in one record of the log."""
    validate_every: int = 25
    """Updates between trainings on the held-out tasks."""

    def __post_init__(self) -> None:
        """Check every field."""
        object.__setattr__(self, "families", tuple(self.families))
        if self.updates is not None and self.minutes is not None:
            raise InvalidFieldError("minutes", "and updates cannot both be given")
        if self.updates is None and self.minutes is None:
            object.__setattr__(self, "updates", DEFAULT_UPDATES)
        self._check_counts()
        for field in ("sigma", "meta_lr", "cloning_lr"):
            _check_real(field, getattr(self, field), valid=getattr(self, field) > 0, bound="> 0")
        _check_real("final_meta_lr", self.final_meta_lr, valid=self.final_meta_lr >= 0, bound=">= 0")
        _check_real("averaging", self.averaging, valid=0 <= self.averaging < 1, bound="in [0, 1)")
        if self.minutes is not None:
            _check_real("minutes", self.minutes, valid=self.minutes > 0, bound="> 0")
        if self.objective not in get_args(Objective):
            known = ", ".join(get_args(Objective))
            raise InvalidFieldError("objective", f"{self.objective!r} is unknown; known: {known}")
        self.architecture()

    def _check_counts(self) -> None:
        if self.updates is not None:
            _check_whole("updates", self.updates, least=1, most=10**9)
        _check_whole("population", self.population, least=2, most=10**6)
        if self.population % 2:
            raise InvalidFieldError("population", f"must be even, is {self.population}")
        _check_whole("seed", self.seed, least=0, most=2**63 - 1)
        for field in ("tasks_per_update", "cloning_steps", "log_every", "validate_every"):
            _check_whole(field, getattr(self, field), least=1, most=10**9)
        _check_whole("cloning_updates", self.cloning_updates, least=0, most=10**9)
        if self.updates is not None and self.cloning_updates > self.updates:
            raise InvalidFieldError("cloning_updates", f"cannot be more than updates, {self.updates}")
        _check_whole("min_horizon", self.min_horizon, least=2, most=10**9)
        _check_whole("max_horizon", self.max_horizon, least=self.min_horizon, most=10**9)

    def architecture(self) -> DriftSpec:
        """Return the shape of the network to train."""
        return DriftSpec(hidden_size=self.hidden_size, inputs=self.inputs)

    def to_json(self) -> dict[str, Any]:
        """Return the fields as JSON values."""
        return {**asdict(self), "families": list(self.families)}

    def start(self) -> Evolution:
        """Return a training with these settings, at its first step.

        Raises:
            InvalidFieldError: a family is unknown.
        """
        from mlrs_train.evolution.method import Evolution

        return Evolution(self)


DEFAULT_UPDATES = 1000
"""Updates of a training that is given neither updates nor minutes."""


def _check_whole(field: str, value: int, *, least: int, most: int) -> None:
    if not least <= value <= most:
        raise InvalidFieldError(field, f"must be a whole number, {least} to {most}, is {value}")


def _check_real(field: str, value: float, *, valid: bool, bound: str) -> None:
    if not (valid and math.isfinite(value)):
        raise InvalidFieldError(field, f"must be finite and {bound}, is {value}")
