"""What surrounds a task: update rule, horizon, and what the policy is told of them."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from mlrs_core.config import Optimizer
from mlrs_core.policy import RUN, RunTable
from mlrs_train.evolution.draw import Draw
from mlrs_train.evolution.trainings.optimizers import MOMENTUM, default_lr
from mlrs_train.evolution.trainings.problem import Problem

OPTIMIZERS = {
    Optimizer.SGD: 0.2,
    Optimizer.MOMENTUM: 0.25,
    Optimizer.NESTEROV: 0.1,
    Optimizer.ADAM: 0.2,
    Optimizer.ADAMW: 0.25,
}
"""How often each update rule is drawn."""
MOMENTA = {0.8: 0.1, MOMENTUM: 0.6, 0.95: 0.2, 0.98: 0.1}
"""How often each momentum is drawn."""
CLIP = 1.0
"""The norm that gradients are clipped to, in the tasks that clip."""
MAX_REPORTED = 1e6
"""The loss that a policy is given instead of a larger or a non-finite one, before `loss_scale`."""


@dataclass(frozen=True, kw_only=True)
class Conditions:
    """The conditions of one training."""

    optimizer: Optimizer
    """The update rule."""
    horizon: int
    """Steps."""
    momentum: float = MOMENTUM
    """mu of SGD with momentum."""
    weight_decay: float = 0.0
    """Added to the gradient; under AdamW, decoupled."""
    clip: float | None = None
    """The norm that gradients are clipped to."""
    stated_horizon: int | None = None
    """The horizon that the policy is given; -1: none. `None`: the true one."""
    log_classes: float = math.nan
    """The ln C that the policy is given; NaN: none."""
    loss_scale: float = 1.0
    """The factor of reported losses."""
    validate_every: int = 10**9
    """Steps from one validation to the next, for policies that are shown them."""
    loss_offset: float = 0.0
    """What is subtracted from losses after `loss_scale`, when they are reported."""

    @property
    def default_lr(self) -> float:
        """The default learning rate of the update rule."""
        return default_lr(self.optimizer, self.momentum)

    def report(self, losses: Tensor) -> Tensor:
        """Return some losses, (n,), as a policy is given them: finite, scaled and shifted."""
        finite = torch.nan_to_num(losses, nan=MAX_REPORTED).clamp(-MAX_REPORTED, MAX_REPORTED)
        return finite * self.loss_scale - self.loss_offset

    def runs(self, starts: Tensor, octaves: Tensor) -> RunTable:
        """Return the configs of n runs under these conditions, as a network is given them.

        Args:
            starts: their learning rates to start from, (n,) float64; NaN: the default one.
            octaves: the uncertainty of the search that found them, (n,) float64; NaN: there was none.
        """
        table = np.zeros(len(starts), RUN)
        table["horizon"] = self.horizon if self.stated_horizon is None else self.stated_horizon
        table["log_classes"] = self.log_classes
        table["snapshot"] = -1
        table["optimizer"] = int(self.optimizer)
        table["momentum"] = self.momentum
        table["initial_lr"] = starts.numpy()
        table["octaves"] = octaves.numpy()
        return table


def draw_conditions(draw: Draw, problem: Problem, *, shortest: int, longest: int) -> Conditions:
    """Return random conditions for a problem, with `shortest` to `longest` steps."""
    optimizer = draw.pick(list(OPTIMIZERS), list(OPTIMIZERS.values()))
    horizon = min(int(draw.log_uniform(shortest, longest + 1)), longest)
    momentum = draw.pick(list(MOMENTA), list(MOMENTA.values()))
    decay, limit = _weight_decay(draw, optimizer), CLIP if draw.chance(0.25) else None
    scale, offset, log_classes = _report(draw, problem)
    return Conditions(
        optimizer=optimizer,
        horizon=horizon,
        momentum=momentum,
        weight_decay=decay,
        clip=limit,
        stated_horizon=_stated_horizon(draw, horizon),
        log_classes=log_classes,
        loss_scale=scale,
        loss_offset=offset,
        validate_every=max(2, round(horizon / draw.log_uniform(6, 40))),
    )


def draw_scales(draw: Draw, problem: Problem, optimizer: Optimizer) -> dict[str, float]:
    """Return a scale for each of a problem's parameters, which spread the best rates over three decades.

    Networks as small as these, trained as briefly, do best far above the default rates: most often 30
    times. As they are, they would teach a policy to raise rates always; always scaled down, never to
    dare. So the best rates reach from about the default ones, where large networks have theirs, to 300
    times as much.
    """
    adaptive = optimizer in (Optimizer.ADAM, Optimizer.ADAMW)
    shared = draw.log_uniform(0.3, 100.0) if adaptive else math.sqrt(draw.log_uniform(0.1, 40.0))
    spread = draw.pick((0.0, 0.2, 0.6))
    return {name: shared * math.exp(spread * draw.normal(1).item()) for name in problem.params}


def _stated_horizon(draw: Draw, horizon: int) -> int | None:
    """Return the horizon that a policy is given: mostly the true one, else none, or a shorter one.

    With a shorter one, the run continues past the horizon that it was opened with.
    """
    if draw.chance(1 / 12):
        return -1
    return round(horizon * draw.uniform(0.5, 0.95)) if draw.chance(0.03) else None


def _weight_decay(draw: Draw, optimizer: Optimizer) -> float:
    if optimizer is Optimizer.ADAMW:
        return draw.log_uniform(1e-3, 0.3)
    likely = 0.2 if optimizer is Optimizer.ADAM else 0.5
    return draw.log_uniform(1e-5, 1e-2) if draw.chance(likely) else 0.0


def _report(draw: Draw, problem: Problem) -> tuple[float, float, float]:
    """Return scale and offset of the reported losses, and the ln C that the policy is given."""
    log_classes = math.nan if draw.chance(0.25) else problem.log_classes
    scale = draw.log_uniform(1e-4, 1e3) if draw.chance(0.125) else 1.0
    offset = draw.log_uniform(0.1, 100.0) * scale if draw.chance(0.1) else 0.0
    return scale, offset, log_classes if scale == 1.0 and offset == 0.0 else math.nan
