"""What sets the LR of a training: the interface of methods."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor, nn

import mlrs
from mlrs_bench.rules import RULES, Rule
from mlrs_bench.task import Examples, Task

OPTIMIZERS = tuple(RULES)
"""The names of all optimizers."""


@dataclass(frozen=True, kw_only=True)
class Training:
    """The training that a control is for."""

    task: Task
    """What is trained. Methods may use its horizon, class count and weight decay, and of its data `valid` and
    `batches`."""
    rule: Rule
    """The optimizer of the row."""
    network: nn.Module
    """The network, with its first weights."""
    valid: Examples
    """The validation examples, for methods in meta mode; tuning chooses by them, too."""
    seed: int
    """The seed of the training, for what a method draws."""
    base_lr: float | None
    """The base LR, for methods that take one."""
    start: float
    """The LR to start from, over the default one; 1: the method gets none."""
    batches: Callable[[], Iterator[tuple[Tensor, Tensor]]]
    """Returns the training's batches, inputs and targets, from its first step on: for searches before it."""
    run_id: str
    """What a daemon knows the training by."""
    advisor: mlrs.Advisor
    """The daemon."""

    @property
    def weight_decay(self) -> float:
        """The weight decay of this task under this optimizer."""
        return self.task.weight_decay[self.rule.name]

    def optimizer(self) -> torch.optim.Optimizer:
        """Return the optimizer of the row, at the base LR, or at 0 until an LR is set."""
        return self.rule.build(self.network.parameters(), self.base_lr or 0.0, self.weight_decay)


class Control(Protocol):
    """What sets the LR of one training, and moves its weights."""

    held: int
    """How many advices were held, as the loss was not finite."""
    spent: int
    """Steps that were spent before the training, of which it has so many fewer."""

    def observe(self, step: int, loss: float) -> None:
        """Take the training loss of a step, before its gradients are computed."""
        ...

    def update(self) -> float:
        """Move the weights along their gradients, and return the LR that this was done with."""
        ...

    def finish(self, refresh: Callable[[], None]) -> None:
        """Bring the network into the state that is judged.

        Args:
            refresh: computes the network's running statistics (of batch normalization) anew, for
                methods that judge other weights than those that were trained with.
        """
        ...


@dataclass(frozen=True, kw_only=True)
class Method:
    """A way to set the LR."""

    name: str
    """Its name in cells."""
    about: str
    """What it is, in a line."""
    control: Callable[[Training], Control]
    """Builds its control."""
    identity: str
    """What its results depend on, besides its name and settings: a digest, or a version."""
    files: tuple[str, ...] = ()
    """The files of `mlrs_bench.methods` that its results depend on, besides `method.py`."""
    core_files: tuple[str, ...] = ()
    """The files of `mlrs_core` that its results depend on, as patterns."""
    optimizers: tuple[str, ...] = OPTIMIZERS
    """The optimizers that it can be combined with."""
    model: str = ""
    """The method whose network it uses, too; empty: its own, if it has one."""
    tuned: bool = False
    """Whether its base LR is tuned on each row."""
    base_lrs: Mapping[str, float] = field(default_factory=dict)
    """The base LR that it is given everywhere, by optimizer, if it takes one and is not tuned."""
    least_horizon: int = 1
    """The shortest training that it can be used for."""
    starts: tuple[float, ...] = (1.0,)
    """The initial LRs it is given, over the default one."""


def set_lr(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Set the LR of all parameters."""
    for group in optimizer.param_groups:
        group["lr"] = lr
