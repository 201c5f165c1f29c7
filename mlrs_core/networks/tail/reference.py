"""The tail network in torch: slow, obvious; the oracle of the kernel.

Features are computed in double precision: differences of moving averages in units of the noise magnify the
last bits of single precision. The cell is computed in that of its weights; states are kept in single.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from mlrs_core.config import Optimizer
from mlrs_core.config.default_rates import (
    ADAM_FAMILY,
    DEFAULT_ADAM_LR,
    DEFAULT_LR,
    DEFAULT_MOMENTUM,
    MAX_MOMENTUM,
    MOMENTUM_FAMILY,
)
from mlrs_core.networks.tail import state_layout as at
from mlrs_core.networks.tail.constants import SCALES, TailConstants
from mlrs_core.networks.tail.spec import TailSpec

LEAST_SHARE = 1e-30
"""What keeps divisions by norms finite."""


@dataclass(frozen=True)
class TailRuns:
    """The configs of n runs, as far as the network looks at them, each (n,)."""

    horizon: Tensor
    """Total steps, int64; -1: unknown."""
    log_classes: Tensor
    """ln C; NaN: unknown."""
    start: Tensor
    """The learning rate that was given or found; NaN: none, so the default one of the optimizer."""
    octaves: Tensor
    """The uncertainty of a search, in octaves; NaN: there was none."""
    optimizer: Tensor
    """`Optimizer` as a number, int64."""
    momentum: Tensor
    """Momentum; NaN: 0.9."""

    @cached_property
    def default_lr(self) -> Tensor:
        """The default learning rate of each optimizer, float64."""
        momentum = torch.where(self.momentum.isnan(), DEFAULT_MOMENTUM, self.momentum.double())
        heavy = DEFAULT_LR * (1 - momentum.clamp(0, MAX_MOMENTUM))
        default = torch.where(_is_one_of(self.optimizer, MOMENTUM_FAMILY), heavy, DEFAULT_LR)
        return torch.where(_is_one_of(self.optimizer, ADAM_FAMILY), DEFAULT_ADAM_LR, default)

    @cached_property
    def first_lr(self) -> Tensor:
        """The learning rate that the schedule multiplies, float64."""
        return torch.where(self.start.isnan(), self.default_lr, self.start.double())

    @cached_property
    def features(self) -> Tensor:
        """What the cell sees of them, (n, 5) float64."""
        found = ~self.octaves.isnan()
        away = torch.log(self.first_lr.clamp(min=1e-30) / self.default_lr).clamp(-14, 14)
        return torch.stack(
            [
                0.3 * away,
                _is_one_of(self.optimizer, MOMENTUM_FAMILY).double(),
                _is_one_of(self.optimizer, ADAM_FAMILY).double(),
                (~self.log_classes.isnan()).double(),
                found.double(),
            ],
            dim=1,
        )


@dataclass(frozen=True)
class Observed:
    """What n runs observed at one step, each (n,)."""

    losses: Tensor
    """Finite."""
    signals: Tensor | None = None
    """(n, 6) float64, in the order of `mlrs_core.policy.SIGNALS`; NaN: not sent. `None`: no run sent any."""
    validations: Tensor | None = None
    """Validation losses; NaN: not sent. `None`: no run sent one."""


class TailReference:
    """The network without its weights."""

    def __init__(self, spec: TailSpec) -> None:
        """Take the shape and the constants."""
        self.spec = spec
        self._fixed: TailConstants = spec.constants
        self._rates = torch.from_numpy(spec.constants.rates)
        self._soft_steps = torch.tensor(spec.constants.soft_steps, dtype=torch.float64)

    def init_state(self, n: int) -> Tensor:
        """Return the states of n runs before their first step, (n, state_size) float32."""
        return torch.zeros(n, self.spec.state_size)

    def step(
        self,
        weights: Mapping[str, Tensor],
        state: Tensor,
        observed: Observed,
        steps: Tensor | int,
        runs: TailRuns,
    ) -> tuple[Tensor, Tensor]:
        """Advance n runs by one step.

        Args:
            weights: by name; each as in `TailSpec.weight_shapes`, or with a leading axis n: run i under
                network i.
            state: (n, state_size) float32; not changed.
            observed: what came.
            steps: (n,) or one for all.
            runs: the configs.

        Returns:
            Learning rates, (n,) float64; and the new states.
        """
        steps = torch.as_tensor(steps).expand(len(state))
        size = 2 * self.spec.hidden_size
        cell, memory = state[:, :size], state[:, size:].detach().double()
        looking = self._take_in(memory, observed, steps, runs)
        correction = state[:, size + at.HIGH : size + at.GATE + 1]
        held = _joined(cell, memory, correction)
        if looking.any():
            looked = self._look(weights, cell, memory.float().double(), steps, runs)
            held = looked if looking.all() else torch.where(looking[:, None], looked, held)
        correction = held[:, size + at.HIGH : size + at.GATE + 1].double().sum(1)
        return runs.first_lr * self._schedule(steps, runs) * torch.exp(correction), held

    def _take_in(self, memory: Tensor, observed: Observed, steps: Tensor, runs: TailRuns) -> Tensor:
        """Add what was observed up, in place; return whether it is time for a look, (n,)."""
        first = memory[:, at.MODE] == 0
        x = self._add(memory, observed.losses.double(), first, runs)
        if observed.signals is not None:
            self._add_signals(memory, observed.signals.double())
        if observed.validations is not None:
            self._add_validation(memory, observed.validations.double(), steps, runs)
        fixed = self._fixed
        spaced = -(-self._effective_horizon(steps, runs) // fixed.looks)
        spacing = torch.minimum(steps // fixed.first_looks, spaced)
        due = (memory[:, at.COUNT] >= spacing) | (memory[:, at.AGE] == 0)
        jump = x > memory[:, 0] + fixed.jump
        memory[:, at.SUM] = torch.where(jump, x, memory[:, at.SUM])
        memory[:, at.COUNT] = torch.where(jump, 1.0, memory[:, at.COUNT])
        return due | jump

    def _add(self, memory: Tensor, losses: Tensor, first: Tensor, runs: TailRuns) -> Tensor:
        """Add a loss up, in place; return it on the scale of x, (n,)."""
        if first.any():
            fixed, known = self._fixed, ~runs.log_classes.isnan()
            ref = torch.where(
                known, runs.log_classes.double(), losses.abs().clamp(fixed.min_ref, fixed.max_ref)
            )
            memory[:, at.REF] = torch.where(first, ref.float().double(), memory[:, at.REF])
            mode = torch.where(losses > 0, 1.0, 2.0).double()
            memory[:, at.MODE] = torch.where(first, mode, memory[:, at.MODE])
        x = self._level(losses, memory)
        if first.any():
            memory[:, :SCALES] = torch.where(first[:, None], x[:, None].float().double(), memory[:, :SCALES])
        memory[:, at.SUM] = (memory[:, at.SUM] + x).float().double()
        memory[:, at.COUNT] += 1
        return x

    def _level(self, losses: Tensor, memory: Tensor) -> Tensor:
        """Return losses on a logarithmic scale: x of the spec."""
        ref = memory[:, at.REF]
        most = self._fixed.max_level * ref
        u = torch.maximum(torch.minimum(losses, most), -most) / ref
        positive = torch.log(u.clamp(min=0) + self._fixed.floor) - torch.asinh((-u).clamp(min=0))
        return torch.where(memory[:, at.MODE] == 1, positive, torch.asinh(u))

    def _add_signals(self, memory: Tensor, signals: Tensor) -> None:
        """Add the signals of one step up, in place."""
        update2, _, gradient2, along, cross, relative = signals.unbind(1)
        has = relative.isfinite()
        memory[:, at.UPDATE_SUM] += torch.where(has, relative.clamp(-30, 10), 0.0)
        memory[:, at.UPDATE_COUNT] += has
        scale = torch.sqrt(update2) * torch.sqrt(gradient2)
        has = scale.isfinite() & along.isfinite() & cross.isfinite()
        scale = scale + LEAST_SHARE
        memory[:, at.CROSS_SUM] += torch.where(has, (cross / scale).clamp(-3, 3), 0.0)
        memory[:, at.ALONG_SUM] += torch.where(has, (along / scale).clamp(-1, 1), 0.0)
        memory[:, at.ALIGNED_COUNT] += has

    def _add_validation(self, memory: Tensor, losses: Tensor, steps: Tensor, runs: TailRuns) -> None:
        """Note a validation loss, in place."""
        has = losses.isfinite()
        x = self._level(torch.where(has, losses, 1.0), memory).float().double()
        share = (steps.double() / self._effective_horizon(steps, runs)).float().double()
        count = memory[:, at.VALID_COUNT]
        best = has & ((count == 0) | (x < memory[:, at.VALID_BEST]))
        before = torch.where(count == 0, x, memory[:, at.VALID])
        for entry, value, where in (
            (at.VALID_BEFORE, before, has),
            (at.VALID, x, has),
            (at.VALID_SHARE, share, has),
            (at.VALID_BEST, x, best),
            (at.VALID_BEST_SHARE, share, best),
            (at.VALID_COUNT, (count + 1).clamp(max=2), has),
        ):
            memory[:, entry] = torch.where(where, value, memory[:, entry])

    def _effective_horizon(self, steps: Tensor, runs: TailRuns) -> Tensor:
        """Return the horizon, (n,) int64; an unknown one counts as twice the steps so far."""
        unknown = (2 * (steps + 1)).clamp(min=self._fixed.unknown_horizon)
        return torch.where(runs.horizon > 0, runs.horizon, unknown)

    def _schedule(self, steps: Tensor, runs: TailRuns) -> Tensor:
        """Return the schedule that the network corrects, (n,) float64."""
        horizon = self._effective_horizon(steps, runs).double()
        step = torch.minimum(steps.double(), horizon - 1)
        rise = ((step + 1) / (self._fixed.warmup * horizon).clamp(min=1.0)).clamp(max=1.0)
        left = ((horizon - step) / (self._fixed.cooldown * horizon)).clamp(max=1.0)
        fall = torch.where(runs.horizon > 0, left / (1 + torch.sqrt(1 - left)), 1.0)
        return rise * fall

    def _look(
        self, weights: Mapping[str, Tensor], cell: Tensor, memory: Tensor, steps: Tensor, runs: TailRuns
    ) -> Tensor:
        """Return the states after a look of every run."""
        fixed = self._fixed
        features = self.look(memory, steps, runs)
        precision = weights["cell.weight"].dtype
        hidden, kept = cell.to(precision).chunk(2, dim=1)
        inputs = torch.cat([features.to(precision), hidden], dim=1)
        gates = _affine(weights["cell.weight"], weights["cell.bias"], inputs)
        take, forget, out, candidate = gates.chunk(4, dim=1)
        forget = torch.sigmoid(forget + fixed.forget_bias)
        kept = forget * kept + torch.sigmoid(take) * torch.tanh(candidate)
        hidden = torch.sigmoid(out) * torch.tanh(kept)
        heads = torch.tanh(_affine(weights["head.weight"], weights["head.bias"], hidden).double())
        drift = memory[:, at.HIGH] + memory[:, at.LOW] + fixed.pace * heads[:, 0]
        drift = drift.clamp(fixed.min_drift, fixed.max_drift)
        high = drift.float().double()
        correction = torch.stack([high, drift - high, fixed.reach * heads[:, 1]], dim=1)
        return _joined(torch.cat([hidden, kept], dim=1), memory, correction)

    def look(self, memory: Tensor, steps: Tensor, runs: TailRuns) -> Tensor:
        """Remember, in place, what came since the last look; return what the cell sees, (n, FEATURES)."""
        mean = self._remember_losses(memory)
        self._remember_signals(memory)
        # What is stored is rounded to single precision here, so that features see what is stored.
        memory.copy_(memory.float())
        return torch.cat(
            [
                self._loss_features(memory, mean),
                self._progress_features(steps, runs),
                0.3 * (memory[:, at.HIGH] + memory[:, at.LOW])[:, None],
                memory[:, at.GATE, None],
                runs.features,
                self._signal_features(memory),
                self._validation_features(memory, steps, runs),
            ],
            dim=1,
        )

    def _remember_losses(self, memory: Tensor) -> Tensor:
        """Take in the losses since the last look; return their mean, (n,)."""
        fixed = self._fixed
        mean = memory[:, at.SUM] / memory[:, at.COUNT]
        memory[:, at.AGE] += 1
        age = memory[:, at.AGE]
        variance = torch.where(age == 1, fixed.first_variance, memory[:, at.VARIANCE])
        change = (mean - memory[:, 1]) ** 2 - variance
        memory[:, at.VARIANCE] = variance + (1 / (age + 1)).clamp(min=fixed.variance_rate) * change
        rates = torch.maximum((1 / age)[:, None], self._rates)
        memory[:, :SCALES] += rates * (mean[:, None] - memory[:, :SCALES])
        third = memory[:, 2].float().double()
        memory[:, at.BEST] = torch.where(age == 1, third, torch.minimum(memory[:, at.BEST], third))
        memory[:, at.SUM] = memory[:, at.COUNT] = 0.0
        return mean

    def _remember_signals(self, memory: Tensor) -> None:
        """Take in the signals since the last look, in place."""
        fixed = self._fixed
        groups = (
            (at.UPDATE_COUNT, at.UPDATE_AGE, ((at.UPDATE_SUM, at.UPDATE, at.UPDATE_SLOW),)),
            (
                at.ALIGNED_COUNT,
                at.ALIGNED_AGE,
                ((at.CROSS_SUM, at.CROSS, at.CROSS_SLOW), (at.ALONG_SUM, at.ALONG, at.ALONG_SLOW)),
            ),
        )
        for counted, aged, averages in groups:
            count = memory[:, counted]
            has = count > 0
            memory[:, aged] += has
            since = 1 / memory[:, aged].clamp(min=1.0)
            for total, fast, slow in averages:
                mean = memory[:, total] / count.clamp(min=1.0)
                for entry, least in ((fast, fixed.signal_rate), (slow, fixed.slow_signal_rate)):
                    moved = memory[:, entry] + since.clamp(min=least) * (mean - memory[:, entry])
                    memory[:, entry] = torch.where(has, moved, memory[:, entry])
                memory[:, total] = 0.0
            memory[:, counted] = 0.0

    def _loss_features(self, memory: Tensor, mean: Tensor) -> Tensor:
        """Return LOSS_FEATURES columns."""
        noise = memory[:, at.VARIANCE].sqrt()[:, None] + 1e-4
        slopes = memory[:, : SCALES - 1] - memory[:, 1:SCALES]
        above = (memory[:, 1] - memory[:, at.BEST])[:, None]
        return torch.cat(
            [
                mean.clamp(-3, 2)[:, None],
                0.2 * mean.clamp(-10, 5)[:, None],
                3 * slopes.clamp(-1, 1),
                torch.tanh(slopes / noise),
                above.clamp(-1, 2),
                torch.tanh(above / noise),
                0.5 * torch.log(noise) + 1,
            ],
            dim=1,
        )

    def _progress_features(self, steps: Tensor, runs: TailRuns) -> Tensor:
        """Return PROGRESS_FEATURES columns."""
        horizon = self._effective_horizon(steps, runs).double()
        known = (runs.horizon > 0).double()[:, None]
        progress = (steps.double() / horizon)[:, None] - self._soft_steps
        return torch.cat(
            [
                known * torch.tanh(10 * progress),
                known,
                torch.tanh(0.7 * torch.log10(horizon / 500))[:, None],
                torch.tanh(0.7 * torch.log10((steps.double() + 1) / 30))[:, None],
            ],
            dim=1,
        )

    def _signal_features(self, memory: Tensor) -> Tensor:
        """Return SIGNAL_FEATURES columns, 0 where no signals came."""
        updates = (memory[:, at.UPDATE_AGE] > 0).double()
        aligned = (memory[:, at.ALIGNED_AGE] > 0).double()
        update, slow = memory[:, at.UPDATE], memory[:, at.UPDATE_SLOW]
        return torch.stack(
            [
                updates,
                updates * 0.3 * (update - self._fixed.usual_update).clamp(-6, 6),
                updates * (update - slow).clamp(-2, 2),
                aligned,
                aligned * _ratio(memory[:, at.CROSS], memory[:, at.ALONG]),
                aligned * _ratio(memory[:, at.CROSS_SLOW], memory[:, at.ALONG_SLOW]),
                aligned * 2 * memory[:, at.ALONG_SLOW],
                aligned * 2 * memory[:, at.CROSS_SLOW].clamp(-1, 1),
            ],
            dim=1,
        )

    def _validation_features(self, memory: Tensor, steps: Tensor, runs: TailRuns) -> Tensor:
        """Return VALIDATION_FEATURES columns, 0 where no validation loss came."""
        has = (memory[:, at.VALID_COUNT] > 0).double()
        share = steps.double() / self._effective_horizon(steps, runs)
        newest, best = memory[:, at.VALID], memory[:, at.VALID_BEST]
        since = share - memory[:, at.VALID_SHARE]
        return torch.stack(
            [
                has,
                has * 3 * (newest - best).clamp(0, 1),
                has * 3 * (newest - memory[:, at.VALID_BEFORE]).clamp(-1, 1),
                has * (newest - memory[:, 2]).clamp(-2, 4),
                has * torch.tanh(10 * since),
                has * torch.tanh(5 * (share - memory[:, at.VALID_BEST_SHARE])),
                has * (memory[:, at.VALID_COUNT] > 1).double(),
            ],
            dim=1,
        )


def _joined(cell: Tensor, memory: Tensor, correction: Tensor) -> Tensor:
    """Return states, (n, state_size), of cells and memories, with HIGH, LOW and GATE, (n, 3), set."""
    before, after = memory[:, : at.HIGH], memory[:, at.GATE + 1 :]
    return torch.cat([cell.float(), before.float(), correction.float(), after.float()], dim=1)


def _ratio(part: Tensor, whole: Tensor) -> Tensor:
    """Return part / whole, within -2 and 2; 0 where there is nothing to divide by."""
    return (part / (whole + torch.where(whole < 0, -1e-6, 1e-6))).clamp(-2, 2)


def _affine(weight: Tensor, bias: Tensor, inputs: Tensor) -> Tensor:
    return (weight @ inputs.unsqueeze(-1)).squeeze(-1) + bias


def _is_one_of(optimizer: Tensor, family: tuple[Optimizer, ...]) -> Tensor:
    return torch.isin(optimizer, torch.tensor([int(member) for member in family]))
