"""Learning from schedules that were tuned: a warm start, by gradient, before evolution.

A learning rate, divided by a schedule's shape at that step, is the base rate of a schedule whose regret
the teachers measured (`teachers.py`). The loss of a network on a run is what the rates it aims at would
cost, averaged over the ticks: so it learns to tell, from the losses it has seen under whatever rates they
came about, which rate the task wants, and where the regret is lopsided, to keep to the safe side. Runs
are trained on again and again. Those of earlier networks stay as good as new, for what a run was steered
by is an input like any other; and the network meets what it will meet, for new ones are steered by its
average (Ross et al. 2011, DAgger).

What teachers cannot show, such as rates that first feel their way or fit no shape, is left to evolution.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from mlrs_core.networks.drift.constants import FEATURES
from mlrs_core.networks.drift.reference import aim_of
from mlrs_core.networks.drift.spec import DriftSpec
from mlrs_train.evolution.cloning.lessons import Lesson, ObservedRun
from mlrs_train.evolution.cloning.teachers import RegretCurve, regret
from mlrs_train.evolution.draw import Draw
from mlrs_train.evolution.sample import unpack

BATCH = 256
"""Runs in a batch."""
BUCKETS = 4
"""A batch is one of so many parts of a larger draw, sorted by length: runs of a batch are alike long."""
MAX_NORM = 1.0
"""A gradient counts with at most this norm."""


class Study:
    """All lessons so far, and the gradient of what a network aims at in them."""

    def __init__(self, spec: DriftSpec) -> None:
        """Start without a lesson."""
        self._spec = spec
        self._cell = nn.LSTM(FEATURES, spec.hidden_size, batch_first=True)
        self._runs: list[ObservedRun] = []

    def add(self, lessons: Sequence[Lesson]) -> None:
        """Remember some lessons."""
        self._runs += [run for lesson in lessons for run in lesson.runs]

    def gradient(self, phi: Tensor, draw: Draw) -> Tensor:
        """Return the gradient by phi of the mean regret of some runs, with at most `MAX_NORM`."""
        chosen = draw.numbers.integers(len(self._runs), size=BATCH * BUCKETS).tolist()
        chosen.sort(key=lambda number: len(self._runs[number].stakes))
        part = draw.whole(0, BUCKETS - 1)
        runs = [self._runs[number] for number in chosen[part * BATCH :][:BATCH]]
        leaf = phi.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(self.regret(leaf, runs), leaf)
        return limited(gradient)

    def regret(self, phi: Tensor, runs: Sequence[ObservedRun]) -> Tensor:
        """Return the mean regret of where a network aims in some runs, differentiable by phi."""
        features = nn.utils.rnn.pad_sequence([run.features for run in runs], batch_first=True).to(phi.dtype)
        shares = nn.utils.rnn.pad_sequence([run.shares.T for run in runs], batch_first=True).mT
        stakes = nn.utils.rnn.pad_sequence([run.stakes for run in runs], batch_first=True)
        costs = regret(self.aims(phi, features), shares, [run.curve for run in runs])
        return (costs * stakes).sum(1).mean()

    def aims(self, phi: Tensor, features: Tensor) -> Tensor:
        """Return the log-LRs that a network aims at, (runs, ticks): `DriftReference`, all ticks at once."""
        weights = {name: weight[0] for name, weight in unpack(self._spec, phi[None]).items()}
        size = self._spec.hidden_size
        # torch's cell has its gates in the order i, f, g, o, two biases, and adds nothing to the forget gate.
        take, forget, out, candidate = weights["cell.weight"].chunk(4)
        rows = torch.cat([take, forget, candidate, out])
        take, forget, out, candidate = weights["cell.bias"].chunk(4)
        bias = torch.cat([take, forget + self._spec.constants.forget_bias, candidate, out])
        parameters = {
            "weight_ih_l0": rows[:, :FEATURES],
            "weight_hh_l0": rows[:, FEATURES:],
            "bias_ih_l0": bias,
            "bias_hh_l0": torch.zeros(4 * size, dtype=phi.dtype),
        }
        hidden, _ = torch.func.functional_call(self._cell, parameters, (features,))
        return aim_of(hidden @ weights["head.weight"].mT + weights["head.bias"], self._spec.constants)

    def state_dict(self) -> dict[str, Tensor]:
        """Return all runs, one after another, in a few large tensors."""
        runs = self._runs
        if not runs:
            return {}
        return {
            "lengths": torch.tensor([len(run.stakes) for run in runs]),
            "features": torch.cat([run.features for run in runs]),
            "shares": torch.cat([run.shares for run in runs], dim=1),
            "stakes": torch.cat([run.stakes for run in runs]),
            "regrets": torch.stack([run.curve.regrets for run in runs]),
            "curve_shares": torch.stack([run.curve.shares for run in runs]),
        }

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Go on from where `state_dict` was taken."""
        self._runs = []
        if not state:
            return
        lengths = state["lengths"].tolist()
        columns = (
            torch.split(state["features"], lengths),
            torch.split(state["shares"], lengths, dim=1),
            torch.split(state["stakes"], lengths),
            map(RegretCurve, state["regrets"], state["curve_shares"]),
        )
        self._runs = [ObservedRun(*parts) for parts in zip(*columns, strict=True)]


def limited(gradient: Tensor) -> Tensor:
    """Return a gradient with at most `MAX_NORM`; one that is not finite says nothing, and becomes 0."""
    norm = gradient.norm()
    if not norm.isfinite():
        return torch.zeros_like(gradient)
    shortened: Tensor = gradient * (MAX_NORM / norm.clamp(min=MAX_NORM))
    return shortened
