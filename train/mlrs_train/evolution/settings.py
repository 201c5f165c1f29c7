"""The settings of meta-training by evolution."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Annotated, Any, ClassVar, Literal, get_args

from mlrs_core.config.ranges import check_whole
from mlrs_core.errors import InvalidFieldError
from mlrs_core.networks.tail.spec import TailSpec
from mlrs_train.settings import MANY, Real, Whole, check_ranges

Objective = Literal["final", "window", "area"]
"""What is minimised; see `EvolutionSettings.objective`."""


@dataclass(frozen=True, kw_only=True)
class EvolutionSettings:
    """Everything that the result of a training depends on.

    Raises:
        InvalidFieldError: a field is out of range.
    """

    method: ClassVar[str] = "evolution"
    summary: ClassVar[str] = "Populations of tail networks, judged on whole trainings."
    checkpoint_every: ClassVar[int] = 10

    updates: Annotated[int | None, Whole(1)] = None
    """Updates of the network. Default: as many as `minutes` allow, else 600."""
    minutes: Annotated[float | None, Real(above=0.0)] = None
    """Train for this long instead; the result then depends on the machine's speed."""
    lesson_updates: Annotated[int | None, Whole(0)] = None
    """How many of the updates, the first ones, follow the gradient of lessons. Default: 60, but at most a
    quarter of `updates`; none with `minutes`."""
    lessons_per_update: Annotated[int, Whole(1)] = 25
    """New lessons, a task each, in each of these."""
    lesson_steps: Annotated[int, Whole(1)] = 12
    """Steps of Adam in each of these, over all lessons so far."""
    lesson_lr: Annotated[float, Real(above=0.0)] = 0.004
    """Adam's first learning rate on lessons; it falls linearly to a twentieth."""
    families: Sequence[str] = ()
    """The families that tasks are drawn from, by name. None named: all."""
    population: Annotated[int, Whole(2, 10**6)] = 32
    """Perturbed networks per task; whole pairs in each group."""
    groups: Annotated[int, Whole(1, 10**6)] = 2
    """Groups of a population. Each starts from a learning rate of its own, and is shown other inputs."""
    tasks_per_update: Annotated[int, Whole(1)] = 16
    """Tasks in the last update; the number grows from `first_tasks_per_update`, exponentially."""
    first_tasks_per_update: Annotated[int | None, Whole(1)] = None
    """Tasks in the first update: few give fast progress, many fine steps. Default: 3/8 of the last."""
    min_horizon: Annotated[int, Whole(2)] = 100
    """The shortest training, in steps."""
    max_horizon: int = 500
    """The longest training, in steps, but for families that are cheap or costly; log-uniform between."""
    objective: Objective = "final"
    """What is minimised: the validation loss after the last step, its mean over the last tenth (window), or
    its mean over the whole training (area)."""
    seed: Annotated[int, Whole(0, 2**63 - 1)] = 0
    """Seeds the network, the perturbations and the tasks."""
    hidden_size: int = 24
    """The network's hidden units."""
    sigma: Annotated[float, Real(above=0.0)] = 0.05
    """The standard deviation of a perturbation."""
    meta_lr: Annotated[float, Real(above=0.0)] = 0.005
    """Adam's first learning rate on the network in evolution; it falls linearly to `final_meta_lr`."""
    final_meta_lr: Annotated[float, Real(least=0.0)] = 0.0005
    """Adam's last learning rate on the network."""
    averaging: Annotated[float, Real(least=0.0)] = 0.98
    """What the average network, which becomes the model, keeps of itself at each step; below 1."""
    log_every: Annotated[int, Whole(1)] = 10
    """Updates in one record of the log."""
    validate_every: Annotated[int, Whole(1)] = 40
    """Updates between trainings on the held-out tasks."""

    def __post_init__(self) -> None:
        """Check every field."""
        object.__setattr__(self, "families", tuple(self.families))
        if self.updates is not None and self.minutes is not None:
            raise InvalidFieldError("minutes", "and updates cannot both be given")
        if self.updates is None and self.minutes is None:
            object.__setattr__(self, "updates", DEFAULT_UPDATES)
        if self.lesson_updates is None:
            most = 0 if self.updates is None else min(LESSON_UPDATES, self.updates // 4)
            object.__setattr__(self, "lesson_updates", most)
        if self.first_tasks_per_update is None:
            object.__setattr__(self, "first_tasks_per_update", max(1, round(0.375 * self.tasks_per_update)))
        check_ranges(self)
        if self.updates is not None:
            check_whole("lesson_updates", self.lesson_updates, low=0, high=self.updates)
        check_whole("max_horizon", self.max_horizon, low=self.min_horizon, high=MANY)
        if self.population % (2 * self.groups):
            multiple = f"a multiple of {2 * self.groups}, for pairs in {self.groups} groups"
            raise InvalidFieldError("population", f"must be {multiple}; is {self.population}")
        if self.averaging >= 1:
            raise InvalidFieldError("averaging", f"must be below 1, is {self.averaging}")
        if self.objective not in get_args(Objective):
            known = ", ".join(get_args(Objective))
            raise InvalidFieldError("objective", f"{self.objective!r} is unknown; known: {known}")
        self.architecture()

    def architecture(self) -> TailSpec:
        """Return the shape of the network to train."""
        return TailSpec(hidden_size=self.hidden_size)

    def to_json(self) -> dict[str, Any]:
        """Return the fields as JSON values."""
        return {**asdict(self), "families": list(self.families)}


DEFAULT_UPDATES = 600
"""Updates of a training that is given neither updates nor minutes."""
LESSON_UPDATES = 60
"""The most updates on lessons, unless told otherwise."""
