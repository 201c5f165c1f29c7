"""The drift network in torch: slow, obvious; the oracle of the kernel.

Features are computed in double precision: differences of moving averages in units of the noise
magnify the last bits of single precision. The cell is computed in that of its weights: double to be
the kernel's oracle, single to train fast. States are kept in single precision either way.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from mlrs_core.config import Optimizer
from mlrs_core.config.default_rates import ADAM_FAMILY, MOMENTUM_FAMILY
from mlrs_core.networks.drift.constants import EXTRAS, SCALES, DriftConstants, rates_of
from mlrs_core.networks.drift.spec import DriftSpec


@dataclass(frozen=True)
class DriftRuns:
    """The configs of n runs, as far as the network looks at them, each (n,)."""

    horizon: Tensor
    """Total steps, int64; -1: unknown."""
    log_classes: Tensor
    """ln C, float32; NaN: unknown."""
    initial_lr: Tensor
    """The learning rate to start from, float32; NaN: the family's default one."""
    optimizer: Tensor
    """`Optimizer` as a number, int64."""
    momentum: Tensor
    """Momentum, float32; NaN: 0.9."""

    @cached_property
    def flags(self) -> Tensor:
        """The optimizer's family, and whether the class count is known, (n, 3) float64."""
        families = [_is_one_of(self.optimizer, family) for family in (MOMENTUM_FAMILY, ADAM_FAMILY)]
        return torch.stack([*families, ~self.log_classes.isnan()], dim=1).double()


@dataclass(frozen=True)
class Starts:
    """Where runs start under a model's constants, each (n,) float64."""

    default_lr: Tensor
    """The default of the family: `default_lr` in effective units for SGD, `default_adam_lr` for Adam."""
    first_drift: Tensor
    """The log of the initial LR over the default one, 0 where not given."""
    before_first_tick: Tensor
    """The log-LR over the default one that the first tick starts from."""

    @classmethod
    def of(cls, runs: DriftRuns, constants: DriftConstants) -> Starts:
        """Return where runs start."""
        momentum = torch.where(runs.momentum.isnan(), constants.default_momentum, runs.momentum.double())
        heavy = constants.default_lr * (1 - momentum.clamp(0, constants.max_momentum))
        default = torch.where(_is_one_of(runs.optimizer, MOMENTUM_FAMILY), heavy, constants.default_lr)
        default = torch.where(_is_one_of(runs.optimizer, ADAM_FAMILY), constants.default_adam_lr, default)
        ratio = torch.log(runs.initial_lr.double().clamp(min=1e-30) / default)
        given = torch.where(runs.initial_lr.isnan(), torch.zeros_like(ratio), ratio)
        first = given.clamp(-constants.max_start, constants.max_start).float().double()
        return cls(default, first, (first - math.log(constants.warmup)).float().double())


@dataclass
class Extras:
    """What a run remembers besides its cell, float64; the fields in the order of the state."""

    averages: Tensor
    """(n, SCALES)."""
    variance: Tensor
    best: Tensor
    sum: Tensor
    """The sum of x since the last tick."""
    count: Tensor
    """The number of losses in `sum`."""
    ticks: Tensor
    drift_high: Tensor
    """The log-LR over the default one, rounded to single precision."""
    drift_low: Tensor
    """The remainder of `drift_high`: what its rounding left."""
    ref: Tensor
    mode: Tensor
    """0: no loss yet; 1: the first loss was positive; 2: it was not."""

    @classmethod
    def of(cls, rows: Tensor) -> Extras:
        """Return extras of states' rows, (n, EXTRAS)."""
        return cls(rows[:, :SCALES], *rows[:, SCALES:].unbind(1))

    def rows(self) -> Tensor:
        """Return the extras as states' rows, rounded to single precision."""
        averages, *singles = vars(self).values()
        return torch.cat([averages, torch.stack(singles, dim=1)], dim=1).float()


class DriftReference:
    """The network without its weights."""

    def __init__(self, spec: DriftSpec) -> None:
        """Take the shape and the constants."""
        self.spec = spec
        self._fixed = spec.constants
        self._mask = torch.tensor(spec.feature_mask(), dtype=torch.float64)
        self._rates = torch.from_numpy(rates_of(spec.constants))
        self._soft_steps = torch.tensor(spec.constants.soft_steps, dtype=torch.float64)
        self._begun: tuple[DriftRuns, Starts] | None = None

    def init_state(self, n: int) -> Tensor:
        """Return the states of n runs before their first step, (n, state_size) float32."""
        return torch.zeros(n, self.spec.state_size)

    def starts(self, runs: DriftRuns) -> Starts:
        """Return where runs start; it is kept for the runs that were asked for last."""
        if self._begun is None or self._begun[0] is not runs:
            self._begun = runs, Starts.of(runs, self._fixed)
        return self._begun[1]

    def step(
        self,
        weights: Mapping[str, Tensor],
        state: Tensor,
        losses: Tensor,
        steps: Tensor | int,
        runs: DriftRuns,
    ) -> tuple[Tensor, Tensor]:
        """Advance n runs by one step.

        Args:
            weights: by name; each as in `DriftSpec.weight_shapes`, or with a leading axis n: run i
                under network i.
            state: (n, state_size) float32; not changed.
            losses: (n,), finite.
            steps: (n,) or one for all.
            runs: the configs.

        Returns:
            Learning rates, (n,) float64; and the new states.
        """
        steps = torch.as_tensor(steps).expand(len(losses))
        cell, rows = torch.split(state, [2 * self.spec.hidden_size, EXTRAS], dim=1)
        extras = Extras.of(rows.double())
        ticking = self.take_in(extras, losses, steps, runs)
        held = torch.cat([cell, extras.rows()], dim=1)
        if ticking.any():
            ticked = self._tick(weights, cell, extras, steps, runs)
            held = torch.where(ticking[:, None], ticked, held)
        extras = Extras.of(held[:, 2 * self.spec.hidden_size :].double())
        return self.starts(runs).default_lr * torch.exp(extras.drift_high + extras.drift_low), held

    def take_in(self, extras: Extras, losses: Tensor, steps: Tensor, runs: DriftRuns) -> Tensor:
        """Add one loss of each run up, in place; return whether it makes a tick, (n,)."""
        x = self._add(extras, losses.double(), runs)
        ticking = self._is_due(extras, steps, runs)
        if self.spec.inputs != "progress":
            jump = x > extras.averages[:, 0] + self._fixed.jump
            extras.sum = torch.where(jump, x.float().double(), extras.sum)
            extras.count = torch.where(jump, torch.ones_like(x), extras.count)
            ticking = ticking | jump
        return ticking

    def look(self, extras: Extras, steps: Tensor, runs: DriftRuns) -> Tensor:
        """Remember, in place, the losses since the last tick; return what the cell sees, (n, FEATURES)."""
        mean = self._remember(extras)
        return self._features(extras, mean, steps, runs) * self._mask

    def _tick(
        self, weights: Mapping[str, Tensor], cell: Tensor, extras: Extras, steps: Tensor, runs: DriftRuns
    ) -> Tensor:
        """Return the states after a tick of every run."""
        features, fixed = self.look(extras, steps, runs), self._fixed
        precision = weights["cell.weight"].dtype
        hidden, memory = cell.to(precision).chunk(2, dim=1)
        inputs = torch.cat([features.to(precision), hidden], dim=1)
        take, forget, out, candidate = _affine(weights["cell.weight"], weights["cell.bias"], inputs).chunk(
            4, dim=1
        )
        forget = torch.sigmoid(forget + fixed.forget_bias)
        memory = forget * memory + torch.sigmoid(take) * torch.tanh(candidate)
        hidden = torch.sigmoid(out) * torch.tanh(memory)
        aim = aim_of(_affine(weights["head.weight"], weights["head.bias"], hidden).double(), fixed)
        drift = extras.drift_high + extras.drift_low
        drift = drift + (aim - drift).clamp(-fixed.fall, fixed.rise)
        drift = drift.clamp(fixed.min_drift, fixed.max_drift)
        extras.drift_high = drift.float().double()
        extras.drift_low = drift - extras.drift_high
        return torch.cat([hidden.float(), memory.float(), extras.rows()], dim=1)

    def _add(self, extras: Extras, losses: Tensor, runs: DriftRuns) -> Tensor:
        """Add a loss up, in place; return it on the scale of x, (n,)."""
        fixed, first = self._fixed, extras.mode == 0
        known = ~runs.log_classes.isnan()
        ref = torch.where(known, runs.log_classes.double(), losses.abs().clamp(fixed.min_ref, fixed.max_ref))
        extras.ref = torch.where(first, ref.float().double(), extras.ref)
        extras.mode = torch.where(first, torch.where(losses > 0, 1.0, 2.0).double(), extras.mode)
        most = fixed.max_level * extras.ref
        x = self._level(losses.clamp(-most, most) / extras.ref, extras.mode)
        extras.averages = torch.where(first[:, None], x[:, None], extras.averages)
        extras.drift_high = torch.where(first, self.starts(runs).before_first_tick, extras.drift_high)
        extras.sum = (extras.sum + x).float().double()
        extras.count = extras.count + 1
        return x

    def _level(self, u: Tensor, mode: Tensor) -> Tensor:
        """Return the loss on a logarithmic scale: x of the spec."""
        positive = torch.log(u.clamp(min=0) + self._fixed.floor) - torch.asinh((-u).clamp(min=0))
        return torch.where(mode == 1, positive, torch.asinh(u))

    def _is_due(self, extras: Extras, steps: Tensor, runs: DriftRuns) -> Tensor:
        """Return whether it is time for a tick, (n,): after the first loss, and then as the spec says."""
        spaced = -(-self._effective_horizon(steps, runs) // self._fixed.ticks)
        spacing = torch.minimum(steps // self._fixed.first_ticks, spaced)
        return (extras.count >= spacing) | (extras.ticks == 0)

    def _effective_horizon(self, steps: Tensor, runs: DriftRuns) -> Tensor:
        """Return the horizon, (n,) int64; an unknown one counts as twice the steps so far."""
        unknown = (2 * (steps + 1)).clamp(min=self._fixed.unknown_horizon)
        return torch.where(runs.horizon > 0, runs.horizon, unknown)

    def _remember(self, extras: Extras) -> Tensor:
        """Take in the losses since the last tick, in place; return their mean, (n,)."""
        mean = extras.sum / extras.count
        extras.ticks = extras.ticks + 1
        first = extras.ticks == 1
        variance = torch.where(first, torch.full_like(mean, self._fixed.first_variance), extras.variance)
        change = (mean - extras.averages[:, 1]) ** 2 - variance
        variance = variance + (1 / (extras.ticks + 1)).clamp(min=self._fixed.variance_rate) * change
        rates = torch.maximum((1 / extras.ticks)[:, None], self._rates)
        averages = extras.averages + rates * (mean[:, None] - extras.averages)
        # What is stored is rounded to single precision here, so that features see what is stored.
        extras.averages, extras.variance = averages.float().double(), variance.float().double()
        best = torch.minimum(extras.best, extras.averages[:, 2])
        extras.best = torch.where(first, extras.averages[:, 2], best)
        extras.sum, extras.count = torch.zeros_like(mean), torch.zeros_like(mean)
        return mean

    def _features(self, extras: Extras, mean: Tensor, steps: Tensor, runs: DriftRuns) -> Tensor:
        """Return the features, (n, FEATURES)."""
        deviation = extras.variance.sqrt()
        noise = deviation[:, None] + 1e-4
        slopes = extras.averages[:, :-1] - extras.averages[:, 1:]
        above = (extras.averages[:, 1] - extras.best)[:, None]
        horizon = self._effective_horizon(steps, runs).double()
        known = (runs.horizon > 0).double()[:, None]
        progress = (steps.double() / horizon)[:, None] - self._soft_steps
        drift = extras.drift_high + extras.drift_low
        return torch.cat(
            [
                mean.clamp(-3, 2)[:, None],
                0.2 * mean.clamp(-10, 5)[:, None],
                3 * slopes.clamp(-1, 1),
                torch.tanh(slopes / noise),
                above.clamp(-1, 2),
                torch.tanh(above / noise),
                0.5 * torch.log(noise) + 1,
                known * torch.tanh(10 * progress),
                known,
                torch.tanh(0.7 * torch.log10(horizon / 500))[:, None],
                torch.tanh(0.7 * torch.log10((steps.double() + 1) / 30))[:, None],
                torch.stack([0.3 * drift, 0.3 * (drift - self.starts(runs).first_drift)], dim=1),
                runs.flags,
            ],
            dim=1,
        )


def aim_of(heads: Tensor, constants: DriftConstants) -> Tensor:
    """Return where the log-LR over the default one should be, (...), from what the head says, (..., 2)."""
    gate = logsigmoid(constants.gate_slope * heads[..., 1] + constants.gate_start)
    return constants.reach * heads[..., 0] + gate


def _affine(weight: Tensor, bias: Tensor, inputs: Tensor) -> Tensor:
    return (weight @ inputs.unsqueeze(-1)).squeeze(-1) + bias


def _is_one_of(optimizer: Tensor, family: tuple[Optimizer, ...]) -> Tensor:
    return torch.isin(optimizer, torch.tensor([int(member) for member in family]))
