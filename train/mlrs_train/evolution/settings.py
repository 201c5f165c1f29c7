"""The settings of meta-training by evolution."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Annotated, Any, ClassVar, Literal, get_args

from mlrs_core.config.ranges import check_whole
from mlrs_core.errors import InvalidFieldError
from mlrs_core.networks.drift.spec import DriftSpec, Inputs
from mlrs_train.settings import MANY, Real, Whole, check_ranges

Objective = Literal["final", "window", "area"]
"""What is minimised; see `EvolutionSettings.objective`."""


@dataclass(frozen=True, kw_only=True)
class EvolutionSettings:
    """Everything that the result of a training depends on; the defaults are those of the shipped `mlr-snet`.

    Raises:
        InvalidFieldError: a field is out of range.
    """

    method: ClassVar[str] = "evolution"
    summary: ClassVar[str] = (
        "Populations of networks, judged on whole trainings; by default as for `mlr-snet`."
    )
    checkpoint_every: ClassVar[int] = 25

    updates: Annotated[int | None, Whole(1)] = None
    """Updates of the network, with those of cloning. Default: as many as `minutes` allow, else 1100."""
    minutes: Annotated[float | None, Real(above=0.0)] = None
    """Train for this long instead; the result then depends on the machine's speed."""
    families: Sequence[str] = ()
    """The families that tasks are drawn from, by name. None named: all."""
    population: Annotated[int, Whole(2, 10**6)] = 40
    """Perturbed networks per task; even, for they come in pairs."""
    tasks_per_update: Annotated[int, Whole(1)] = 2
    """Tasks per update."""
    cloning_updates: Annotated[int | None, Whole(0)] = None
    """So many updates come first that learn from tuned schedules, by gradient: a warm start. Default: 9 of 11
    updates; none if `minutes` are given."""
    cloning_steps: Annotated[int, Whole(1)] = 4
    """Steps by gradient in each of these updates, on all that was seen so far."""
    cloning_lr: Annotated[float, Real(above=0.0)] = 0.005
    """Adam's first learning rate on the network in these; it falls linearly to a twentieth."""
    min_horizon: Annotated[int, Whole(2)] = 100
    """The shortest training, in steps."""
    max_horizon: int = 1000
    """The longest training, in steps; between the two, log-uniform."""
    objective: Objective = "final"
    """What is minimised: the validation loss after the last step, its mean over the last tenth (window), or
    its mean over the whole training (area)."""
    seed: Annotated[int, Whole(0, 2**63 - 1)] = 0
    """Seeds the network, the perturbations and the tasks."""
    hidden_size: int = 32
    """The network's hidden units."""
    inputs: Inputs = "all"
    """What the network sees. loss: all but its position in the horizon; progress: all but the losses.
    Both are for measuring what the rest is worth."""
    sigma: Annotated[float, Real(above=0.0)] = 0.04
    """The standard deviation of a perturbation."""
    meta_lr: Annotated[float, Real(above=0.0)] = 0.006
    """Adam's first learning rate on the network; it falls linearly to `final_meta_lr`."""
    final_meta_lr: Annotated[float, Real(least=0.0)] = 0.0006
    """Adam's last learning rate on the network."""
    averaging: Annotated[float, Real(least=0.0)] = 0.97
    """What the average network, which becomes the model, keeps of itself at each step; below 1."""
    log_every: Annotated[int, Whole(1)] = 5
    """Updates in one record of the log."""
    validate_every: Annotated[int, Whole(1)] = 150
    """Updates between trainings on the held-out tasks."""

    def __post_init__(self) -> None:
        """Check every field."""
        object.__setattr__(self, "families", tuple(self.families))
        if self.updates is not None and self.minutes is not None:
            raise InvalidFieldError("minutes", "and updates cannot both be given")
        if self.updates is None and self.minutes is None:
            object.__setattr__(self, "updates", DEFAULT_UPDATES)
        if self.cloning_updates is None:
            object.__setattr__(self, "cloning_updates", 9 * (self.updates or 0) // 11)
        check_ranges(self)
        check_whole("max_horizon", self.max_horizon, low=self.min_horizon, high=MANY)
        if self.population % 2:
            raise InvalidFieldError("population", f"must be even, is {self.population}")
        if self.averaging >= 1:
            raise InvalidFieldError("averaging", f"must be below 1, is {self.averaging}")
        if self.updates is not None and self.cloned > self.updates:
            raise InvalidFieldError("cloning_updates", f"cannot be more than updates, {self.updates}")
        if self.objective not in get_args(Objective):
            known = ", ".join(get_args(Objective))
            raise InvalidFieldError("objective", f"{self.objective!r} is unknown; known: {known}")
        self.architecture()

    @property
    def cloned(self) -> int:
        """The updates that learn from tuned schedules: `cloning_updates`, or its default."""
        return self.cloning_updates or 0

    def architecture(self) -> DriftSpec:
        """Return the shape of the network to train."""
        return DriftSpec(hidden_size=self.hidden_size, inputs=self.inputs)

    def to_json(self) -> dict[str, Any]:
        """Return the fields as JSON values."""
        return {**asdict(self), "families": list(self.families)}


DEFAULT_UPDATES = 1100
"""Updates of a training that is given neither updates nor minutes."""
