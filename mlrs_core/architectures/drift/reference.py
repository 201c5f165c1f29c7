"""The drift network in torch: slow, obvious; the oracle of the kernel, and what evolution trains.

Features are computed in double precision: differences of moving averages in units of the noise
magnify the last bits of single precision. The cell is computed in that of its weights: double to be
the kernel's oracle, single to train fast. States are kept in single precision either way.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from mlrs_core.architectures.drift.spec import (
    ADAM_FAMILY,
    EXTRAS,
    MAX_DRIFT,
    MOMENTUM_FAMILY,
    SCALES,
    SOFT_STEPS,
    DriftSpec,
)
from mlrs_core.config import Optimizer


@dataclass(frozen=True)
class DriftRuns:
    """The configs of n runs, as far as the network looks at them, each (n,)."""

    horizon: Tensor
    """Total steps, int64; -1: unknown."""
    log_classes: Tensor
    """ln C, float32; NaN: unknown."""
    initial_lr: Tensor
    """The learning rate to start from, float32; NaN: the family's usual one."""
    optimizer: Tensor
    """`Optimizer` as a number, int64."""
    momentum: Tensor
    """Momentum, float32; NaN: 0.9."""


class DriftReference:
    """The network without its weights."""

    def __init__(self, spec: DriftSpec) -> None:
        """Take the shape."""
        self.spec = spec

    def init_state(self, n: int) -> Tensor:
        """Return the states of n runs before their first step, (n, state_size) float32."""
        return torch.zeros(n, self.spec.state_size)

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
        size = self.spec.hidden_size
        hidden, memory, extras = torch.split(state, [size, size, EXTRAS], dim=1)
        features, extras = self._observe(extras.double(), losses.double(), steps, runs)
        precision = weights["cell.weight"].dtype
        inputs = torch.cat([features, hidden], dim=1).to(precision)
        gates = _affine(weights["cell.weight"], weights["cell.bias"], inputs)
        take, forget, out, candidate = gates.chunk(4, dim=1)
        memory = torch.sigmoid(forget + 1) * memory.to(precision) + torch.sigmoid(take) * torch.tanh(
            candidate
        )
        hidden = torch.sigmoid(out) * torch.tanh(memory)
        moves, gates = _affine(weights["head.weight"], weights["head.bias"], hidden).double().unbind(1)
        drift = extras[:, -4] + extras[:, -3] + _move(_effective_horizon(steps, runs)) * torch.tanh(moves)
        drift = drift.clamp(-MAX_DRIFT, MAX_DRIFT)
        extras[:, -4] = drift.float()
        extras[:, -3] = drift - extras[:, -4]
        lrs = _usual_lr(runs) * torch.exp(drift) * torch.sigmoid((4 * gates + 3).clamp(min=-80))
        return lrs, torch.cat([hidden.float(), memory.float(), extras.float()], dim=1)

    def _observe(
        self, extras: Tensor, losses: Tensor, steps: Tensor | int, runs: DriftRuns
    ) -> tuple[Tensor, Tensor]:
        """Take in a loss: return the features, (n, FEATURES), and the new extras, both float64."""
        averages, rest = extras[:, :SCALES], extras[:, SCALES:]
        variance, drift_high, drift_low, ref, mode = rest.unbind(1)
        known_classes, first = ~runs.log_classes.isnan(), mode == 0
        fresh_ref = torch.where(known_classes, runs.log_classes.double(), losses.abs().clamp(min=1e-8))
        ref = torch.where(first, fresh_ref.float().double(), ref)
        mode = torch.where(first, torch.where(losses > 0, 1.0, 2.0).double(), mode)
        x = _level(losses.clamp(-1e4 * ref, 1e4 * ref) / ref, mode)
        averages = torch.where(first[:, None], x[:, None], averages)
        variance = torch.where(first, torch.full_like(variance, 0.01), variance)
        drift_high = torch.where(first, _first_drift(runs), drift_high)
        horizon = _effective_horizon(steps, runs)
        variance = 0.95 * variance + 0.05 * (x - averages[:, 1]) ** 2
        averages = averages + _rates(horizon) * (x[:, None] - averages)
        # What is stored is rounded to single precision here, so that features see what is stored.
        averages, variance = averages.float().double(), variance.float().double()
        drift = drift_high + drift_low
        features = _features(x, averages, variance, drift, steps, runs)
        return features, torch.cat(
            [averages, torch.stack([variance, drift_high, drift_low, ref, mode], dim=1)], dim=1
        )


def _affine(weight: Tensor, bias: Tensor, inputs: Tensor) -> Tensor:
    return (weight @ inputs.unsqueeze(-1)).squeeze(-1) + bias


def _level(u: Tensor, mode: Tensor) -> Tensor:
    """Return the loss on a logarithmic scale: x of the spec."""
    positive = torch.log(u.clamp(min=0) + 1e-3) - torch.asinh((-u).clamp(min=0))
    return torch.where(mode == 1, positive, torch.asinh(u))


def _effective_horizon(steps: Tensor | int, runs: DriftRuns) -> Tensor:
    """Return the horizon, (n,) float64; an unknown one counts as twice the steps so far."""
    doubled = (2 * _elapsed(steps, runs)).clamp(min=100)
    return torch.where(runs.horizon > 0, runs.horizon.double(), doubled)


def _elapsed(steps: Tensor | int, runs: DriftRuns) -> Tensor:
    """Return the number of steps with this one, (n,) float64."""
    return torch.as_tensor(steps, dtype=torch.float64).expand(len(runs.horizon)) + 1


def _rates(horizon: Tensor) -> Tensor:
    """Return how fast each average follows, (n, SCALES)."""
    spread = torch.log((horizon / 3).clamp(min=30) / 3)
    return torch.exp(-spread[:, None] * (torch.arange(SCALES).double() / (SCALES - 1))) / 3


def _move(horizon: Tensor) -> Tensor:
    """Return how far the log-LR can go in a step, (n,)."""
    return 0.15 * torch.sqrt(300 / horizon).clamp(0.15, 1)


def _features(
    x: Tensor, averages: Tensor, variance: Tensor, drift: Tensor, steps: Tensor | int, runs: DriftRuns
) -> Tensor:
    horizon, deviation = _effective_horizon(steps, runs), variance.sqrt()
    slopes = averages[:, :-1] - averages[:, 1:]
    known = (runs.horizon > 0).double()
    progress = torch.as_tensor(steps, dtype=torch.float64) / horizon
    soft = torch.tanh(10 * (progress[:, None] - torch.tensor(SOFT_STEPS, dtype=torch.float64)))
    singles = [
        0.5 * torch.log(deviation + 1e-4) + 1,
        0.3 * drift,
        _is_one_of(runs.optimizer, MOMENTUM_FAMILY).double(),
        _is_one_of(runs.optimizer, ADAM_FAMILY).double(),
        0.5 * torch.log10(horizon) - 1.3,
        known,
        (~runs.log_classes.isnan()).double(),
        0.5 * torch.log10(_elapsed(steps, runs)) - 1,
    ]
    return torch.cat(
        [
            x.clamp(-3, 2)[:, None],
            3 * slopes.clamp(-1, 1),
            torch.tanh(slopes / (deviation[:, None] + 1e-3)),
            known[:, None] * soft,
            torch.stack(singles, dim=1),
        ],
        dim=1,
    )


def _is_one_of(optimizer: Tensor, family: tuple[Optimizer, ...]) -> Tensor:
    return torch.isin(optimizer, torch.tensor([int(member) for member in family]))


def _usual_lr(runs: DriftRuns) -> Tensor:
    """Return where a family usually starts, (n,) float64: 0.1 in effective units for SGD, Adam 1e-3."""
    momentum = torch.where(runs.momentum.isnan(), torch.tensor(0.9), runs.momentum).double()
    heavy = 0.1 * (1 - momentum.clamp(0, 0.999))
    usual = torch.where(_is_one_of(runs.optimizer, MOMENTUM_FAMILY), heavy, torch.tensor(0.1).double())
    return torch.where(_is_one_of(runs.optimizer, ADAM_FAMILY), torch.tensor(1e-3).double(), usual)


def _first_drift(runs: DriftRuns) -> Tensor:
    """Return the log of the initial LR over the usual one, (n,) float64, 0 where not given."""
    ratio = torch.log(runs.initial_lr.double().clamp(min=1e-30) / _usual_lr(runs))
    given = torch.where(runs.initial_lr.isnan(), torch.zeros_like(ratio), ratio)
    return given.clamp(-MAX_DRIFT, MAX_DRIFT).float().double()
