"""Trainings that are watched step by step, and from before their control was built."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch

from mlrs.errors import NoSearchError, RunNotFoundError
from mlrs.types import Search
from mlrs_bench.cell import Cell
from mlrs_bench.methods import Control, Training


@dataclass
class Watched:
    """A training, and what it did."""

    build: Callable[[Training], Control]
    """Builds the control that is watched."""
    training: Training = field(init=False)
    control: Control = field(init=False)
    cell: Cell = field(init=False)
    changed: list[str] = field(default_factory=list)
    """What the control changed before the first step: names of tensors, `random` for the generator."""
    losses: list[float] = field(default_factory=list)
    lrs: list[float] = field(default_factory=list)
    search: Search | None = None
    """The daemon's record of the search before the training, if there was one."""

    def __call__(self, training: Training) -> Watched:
        """Build the control; this is the `control` of a method, and the control itself."""
        before, drawn = _copy(training.network), torch.get_rng_state()
        self.training, self.control = training, self.build(training)
        after = _copy(training.network)
        self.changed = [name for name in before if not torch.equal(before[name], after[name])]
        self.changed += [] if torch.equal(drawn, torch.get_rng_state()) else ["random"]
        return self

    @property
    def held(self) -> int:
        """The advices that were held."""
        return self.control.held

    @property
    def spent(self) -> int:
        """The steps that were spent before the training."""
        return self.control.spent

    def observe(self, step: int, loss: float) -> None:
        """Take a loss."""
        assert step == len(self.losses)
        self.losses.append(loss)
        self.control.observe(step, loss)

    def update(self) -> float:
        """Move the weights."""
        self.lrs.append(self.control.update())
        return self.lrs[-1]

    def finish(self, refresh: Callable[[], None]) -> None:
        """Read what the daemon has of a search, and end the training."""
        try:
            self.search = self.training.advisor.get_search(self.training.run_id)
        except (NoSearchError, RunNotFoundError):
            self.search = None
        self.control.finish(refresh)


def _copy(network: Any) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in network.state_dict().items()}
