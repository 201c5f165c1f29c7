"""Optimizers that choose their own LR, from the packages that their authors or others keep.

Each at its authors' defaults, with the row's momentum and weight decay.

* Schedule-free (Defazio et al., The Road Less Scheduled, 2024): `schedulefree`, the authors'. They say
  that its LR needs tuning, so it is there twice: at its default, and tuned.
* Prodigy (Mishchenko and Defazio, 2023): `prodigyopt`, the authors'. It is an Adam: AdamW rows only.
* D-Adaptation (Defazio and Mishchenko, 2023): `pytorch-optimizer`; the authors' own package,
  `dadaptation`, has had no release since 2023.

The last two estimate how large LRs may be, not how they go down: their authors run them under a schedule,
and so they are run here, under the benchmark's own cosine with its warmup.
"""

from __future__ import annotations

import contextlib
import io
import math
from collections.abc import Callable
from importlib.metadata import version
from typing import Any

import numpy as np
import torch

from mlrs_bench.methods.method import Method, Training, set_lr
from mlrs_bench.methods.served import WARMUP_SHARE
from mlrs_bench.rules import BETAS
from mlrs_core.advise import step as step_of
from mlrs_core.config import RunConfig, ScheduleKind, ScheduleSpec
from mlrs_core.policy import Floats, RunColumns
from mlrs_core.schedules.kernel import schedule_policy

FREE_LRS = {"sgd": 1.0, "adamw": 0.0025}
"""The LRs that the package has as its defaults."""
Group = dict[str, Any]
"""An optimizer's parameter group."""


class ScheduleFree:
    """Schedule-free SGD or AdamW: trained at one point, judged at the average of others."""

    def __init__(self, training: Training) -> None:
        import schedulefree

        settings = {
            "lr": training.base_lr or FREE_LRS[training.rule.name],
            "weight_decay": training.weight_decay,
            "warmup_steps": int(WARMUP_SHARE * training.task.horizon),
        }
        parameters = training.network.parameters()
        self._optimizer: Any
        if training.rule.name == "sgd":
            momentum = training.rule.momentum
            self._optimizer = schedulefree.SGDScheduleFree(parameters, momentum=momentum, **settings)
        else:
            self._optimizer = schedulefree.AdamWScheduleFree(parameters, betas=BETAS, **settings)
        self._optimizer.train()
        self.held = self.spent = 0

    def observe(self, step: int, loss: float) -> None:
        """Take no notice."""

    def update(self) -> float:
        """Move the weights."""
        self._optimizer.step()
        return float(self._optimizer.param_groups[0]["scheduled_lr"])

    def finish(self, refresh: Callable[[], None]) -> None:
        """Go from the weights to train with to those to judge."""
        self._optimizer.eval()
        refresh()


class Estimated:
    """An optimizer that estimates its LR, under a schedule that multiplies it."""

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        horizon: int,
        read_lr: Callable[[Group, float], float] = lambda group, estimate: estimate * group["lr"],
    ) -> None:
        """Take the optimizer, and what tells a step's LR.

        Args:
            optimizer: its groups have an `lr`, which multiplies, and an estimate `d`.
            horizon: steps of the training.
            read_lr: from a group after the step, and its estimate before: a step uses the one it finds.
        """
        self.optimizer = optimizer
        self._shares = cosine_shares(horizon)
        self._read_lr = read_lr
        self._step = 0
        self.held = self.spent = 0

    def observe(self, step: int, loss: float) -> None:  # noqa: ARG002  # it does not count
        """Take the step."""
        self._step = step

    def update(self) -> float:
        """Set the schedule's share, and move the weights."""
        set_lr(self.optimizer, float(self._shares[self._step]))
        group: Group = self.optimizer.param_groups[0]
        estimate = float(group["d"])
        self.optimizer.step()
        return self._read_lr(group, estimate)

    def finish(self, refresh: Callable[[], None]) -> None:
        """Do nothing."""


def cosine_shares(horizon: int) -> Floats:
    """Return the benchmark's cosine as shares of the base LR, one a step, (horizon,)."""
    warmup = math.ceil(WARMUP_SHARE * horizon)
    spec = ScheduleSpec(kind=ScheduleKind.COSINE, base_lr=1.0, warmup=warmup)
    runs = RunColumns.of([RunConfig(horizon=horizon, schedule=spec)] * horizon)
    policy = schedule_policy(spec)
    shares, _ = step_of(policy, policy.init_state(horizon), np.arange(horizon), np.ones(horizon), runs)
    return shares


def prodigy(training: Training) -> Estimated:
    """Return Prodigy."""
    from prodigyopt import Prodigy

    with contextlib.redirect_stdout(io.StringIO()):  # it prints that weight decay is decoupled
        optimizer = Prodigy(
            training.network.parameters(),
            betas=BETAS,
            weight_decay=training.weight_decay,
            safeguard_warmup=True,  # its authors' advice for schedules with a warmup
        )
    return Estimated(optimizer, training.task.horizon)


def d_adaptation(training: Training) -> Estimated:
    """Return SGD or AdamW with D-Adaptation."""
    from pytorch_optimizer import DAdaptAdam, DAdaptSGD

    parameters, horizon = training.network.parameters(), training.task.horizon
    if training.rule.name == "sgd":
        sgd = DAdaptSGD(parameters, momentum=training.rule.momentum, weight_decay=training.weight_decay)
        return Estimated(
            sgd, horizon, lambda group, estimate: estimate * group["lr"] / (group["g0_norm"] or 1.0)
        )
    adam = DAdaptAdam(parameters, betas=BETAS, weight_decay=training.weight_decay, weight_decouple=True)
    return Estimated(adam, horizon)


def packaged_methods() -> list[Method]:
    """Return the methods of this module."""
    return [
        Method(
            name="schedule-free",
            about="averaging instead of a schedule; package schedulefree, at its default LR",
            control=ScheduleFree,
            files=("packaged.py",),
            identity=_release("schedulefree"),
            base_lrs=FREE_LRS,
        ),
        Method(
            name="tuned-schedule-free",
            about="averaging instead of a schedule; the LR tuned on each row, as its authors say it must be",
            control=ScheduleFree,
            files=("packaged.py",),
            identity=_release("schedulefree"),
            tuned=True,
        ),
        Method(
            name="prodigy",
            about="an Adam that estimates its LR, under warmup and cosine; package prodigyopt",
            control=prodigy,
            files=("packaged.py",),
            identity=_release("prodigyopt"),
            optimizers=("adamw",),
        ),
        Method(
            name="d-adaptation",
            about="SGD and AdamW that estimate their LR, under warmup and cosine; package pytorch-optimizer",
            control=d_adaptation,
            files=("packaged.py",),
            identity=_release("pytorch-optimizer"),
        ),
    ]


def _release(package: str) -> str:
    return f"{package} {version(package)}"
