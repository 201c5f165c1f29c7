"""Optimizers that choose their own LR, from the packages that their authors or others keep.

Each at its authors' defaults, with the row's momentum and weight decay.

* Schedule-free (Defazio et al., The Road Less Scheduled, 2024): `schedulefree`, the authors'.
* Prodigy (Mishchenko and Defazio, 2023): `prodigyopt`, the authors'. It is an Adam: AdamW rows only.
* D-Adaptation (Defazio and Mishchenko, 2023): `pytorch-optimizer`; the authors' own package,
  `dadaptation`, has had no release since 2023.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable
from importlib.metadata import version
from typing import Any

import torch

from mlrs_bench.methods.method import Method, Training
from mlrs_bench.rules import BETAS

FREE_LRS = {"sgd": 1.0, "adamw": 0.0025}
"""The LRs that the package has as its defaults."""
FREE_WARMUP_SHARE = 0.05
"""The share of the horizon in which schedule-free warms up, as the schedules do: its authors use one."""


class Packaged:
    """An optimizer that chooses its own LR."""

    def __init__(self, optimizer: torch.optim.Optimizer, read_lr: Callable[[dict[str, Any]], float]) -> None:
        """Take the optimizer, and what reads its LR off a parameter group."""
        self._optimizer = optimizer
        self._read_lr = read_lr
        self.held = 0

    def observe(self, step: int, loss: float) -> None:
        """Take no notice."""

    def update(self) -> float:
        """Move the weights."""
        self._optimizer.step()
        return self._read_lr(self._optimizer.param_groups[0])

    def finish(self, refresh: Callable[[], None]) -> None:
        """Go from the weights to train with to those to judge, if there is a difference."""
        judge = getattr(self._optimizer, "eval", None)
        if judge is not None:
            judge()
            refresh()


def schedule_free(training: Training) -> Packaged:
    """Return schedule-free SGD or AdamW."""
    import schedulefree

    settings = {
        "lr": FREE_LRS[training.rule.name],
        "weight_decay": training.weight_decay,
        "warmup_steps": int(FREE_WARMUP_SHARE * training.task.horizon),
    }
    parameters = training.network.parameters()
    optimizer: Any
    if training.rule.name == "sgd":
        optimizer = schedulefree.SGDScheduleFree(parameters, momentum=training.rule.momentum, **settings)
    else:
        optimizer = schedulefree.AdamWScheduleFree(parameters, betas=BETAS, **settings)
    optimizer.train()
    return Packaged(optimizer, lambda group: float(group["scheduled_lr"]))


def prodigy(training: Training) -> Packaged:
    """Return Prodigy."""
    from prodigyopt import Prodigy

    with contextlib.redirect_stdout(io.StringIO()):  # it prints that weight decay is decoupled
        optimizer = Prodigy(training.network.parameters(), betas=BETAS, weight_decay=training.weight_decay)
    return Packaged(optimizer, lambda group: float(group["d"] * group["lr"]))


def d_adaptation(training: Training) -> Packaged:
    """Return SGD or AdamW with D-Adaptation."""
    from pytorch_optimizer import DAdaptAdam, DAdaptSGD

    parameters = training.network.parameters()
    if training.rule.name == "sgd":
        sgd = DAdaptSGD(parameters, momentum=training.rule.momentum, weight_decay=training.weight_decay)
        return Packaged(sgd, lambda group: float(group["d"] * group["lr"] / (group["g0_norm"] or 1.0)))
    adam = DAdaptAdam(parameters, betas=BETAS, weight_decay=training.weight_decay, weight_decouple=True)
    return Packaged(adam, lambda group: float(group["d"] * group["lr"]))


def packaged_methods() -> list[Method]:
    """Return the methods of this module."""
    return [
        Method(
            name="schedule-free",
            about="averaging in place of a schedule; package schedulefree, at its defaults",
            control=schedule_free,
            identity=_release("schedulefree"),
        ),
        Method(
            name="prodigy",
            about="an Adam that estimates its LR; package prodigyopt, at its defaults",
            control=prodigy,
            identity=_release("prodigyopt"),
            optimizers=("adamw",),
        ),
        Method(
            name="d-adaptation",
            about="SGD and AdamW that estimate their LR; package pytorch-optimizer, at its defaults",
            control=d_adaptation,
            identity=_release("pytorch-optimizer"),
        ),
    ]


def _release(package: str) -> str:
    return f"{package} {version(package)}"
