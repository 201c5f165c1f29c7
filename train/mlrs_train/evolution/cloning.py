"""Learning from schedules that were tuned: a warm start, by gradient, before evolution.

On a random task, teachers train from 16 learning rates each, side by side with pupils: copies under
the network, from various first rates. At each of a pupil's steps the rate that it chose, divided by the
best teacher's shape there, is the base rate of a schedule whose regret the teachers measured. The mean
of these regrets is the loss, and its gradient goes through all of the network's ticks: from the losses
it has seen, it learns to tell which rate the task wants. Pupils choose their rates themselves, so they
meet what they will meet (Ross et al. 2011, DAgger), and where the regret is lopsided they learn to keep
to the safe side.

What teachers cannot show, such as rates that first feel their way or fit no shape, is left to evolution.
"""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from mlrs_core.architectures.drift.reference import DriftReference
from mlrs_core.architectures.drift.spec import DriftSpec
from mlrs_train.evolution.conditions import Conditions, draw_start_factor
from mlrs_train.evolution.draw import Draw
from mlrs_train.evolution.families import choose_families
from mlrs_train.evolution.policies import Together
from mlrs_train.evolution.rollout import rollout
from mlrs_train.evolution.sample import Sample, draw_task, unpack
from mlrs_train.evolution.settings import EvolutionSettings
from mlrs_train.evolution.teachers import COUNT, LOG_RATES, SHAPES, WARMUP, RegretCurve, Teachers, cosine

CLONING = 3
"""The first number of the key of this module's random numbers."""
PUPILS = 12
"""Copies under the network; the first half from the usual rate."""
MAX_NORM = 0.5
"""A task's gradient counts with at most this norm: tasks on which everything is lost do not lead."""
YARDSTICK = SHAPES.index(cosine) * COUNT + int(LOG_RATES.abs().argmin())
"""The teacher that needs no tuning: cosine from the usual rate."""


def clone_sample(settings: EvolutionSettings, phi: Tensor, update: int, index: int) -> Sample:
    """Return the gradient of one task's mean regret by phi.

    Args:
        settings: of the training.
        phi: (weights,).
        update: the number of the update.
        index: the number of the task within it.
    """
    draw = Draw(CLONING, settings.seed, update, index)
    families = choose_families(settings.families)
    family = draw.pick(list(families.values()), [family.weight for family in families.values()])
    problem, conditions = draw_task(draw, family, settings)
    factors = [draw_start_factor(draw) if number >= PUPILS // 2 else 1.0 for number in range(PUPILS)]
    leaf = phi.clone().requires_grad_()
    pupils = Pupils(settings.architecture(), leaf, torch.tensor(factors))
    values = rollout(problem, conditions, Together([Teachers(), pupils]), draw, settings.objective)
    curve = RegretCurve.of(values[: Teachers.size])
    regret = pupils.regret(curve)
    (gradient,) = torch.autograd.grad(regret, leaf)
    return Sample(
        estimate=limited(gradient),
        fitness=values[Teachers.size :][: PUPILS // 2],
        yardstick=float(values[YARDSTICK]),
        regret=float(regret.detach()),
    )


def limited(gradient: Tensor) -> Tensor:
    """Return a gradient with at most `MAX_NORM`; one that is not finite says nothing, and becomes 0."""
    norm = gradient.norm()
    if not norm.isfinite():
        return torch.zeros_like(gradient)
    shortened: Tensor = gradient * (MAX_NORM / norm.clamp(min=MAX_NORM))
    return shortened


class Pupils:
    """`Policy` of copies under one network, each from its own first rate. Remembers what they chose."""

    def __init__(self, spec: DriftSpec, phi: Tensor, factors: Tensor) -> None:
        """Take the weights, (weights,), and the first rates over the usual one, (n,)."""
        self.size = len(factors)
        self._reference = DriftReference(spec)
        self._weights = {name: weight[0] for name, weight in unpack(spec, phi[None]).items()}
        self._factors = factors

    def begin(self, conditions: Conditions) -> None:
        """Start under these conditions, but for the first rate."""
        self._horizon = conditions.horizon
        first = (conditions.default_lr * self._factors).float()
        self._runs = dataclasses.replace(conditions.runs(self.size), initial_lr=first)
        self._state = self._reference.init_state(self.size)
        self._log_lrs: list[Tensor] = []

    @torch.enable_grad()
    def advise(self, step: int, losses: Tensor) -> Tensor:
        """Return learning rates from the losses."""
        lrs, self._state = self._reference.step(self._weights, self._state, losses, step, self._runs)
        self._log_lrs.append(lrs.log())
        return lrs.detach().float()

    def regret(self, curve: RegretCurve) -> Tensor:
        """Return the mean regret of what was chosen after the warmup, differentiable by the weights."""
        first = int(WARMUP * self._horizon)
        shares = [curve.log_share(step / self._horizon) for step in range(first, self._horizon)]
        log_lrs = torch.stack(self._log_lrs[first:]) - self._runs.usual_lr.log()
        return curve.at(log_lrs - torch.tensor(shares, dtype=torch.float64)[:, None]).mean()
