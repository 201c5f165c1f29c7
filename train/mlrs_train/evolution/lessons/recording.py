"""Trainings whose corrections follow plans, and what a network would have seen at each look."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from mlrs_core.compiled import clip, compiled, wide
from mlrs_core.networks.tail.constants import FEATURES
from mlrs_core.networks.tail.features import look
from mlrs_core.networks.tail.kernel import learning_rate, observe
from mlrs_core.networks.tail.memory import remember
from mlrs_core.networks.tail.spec import TailSpec
from mlrs_core.networks.tail.state_layout import EXTRAS, HIGH, LOW
from mlrs_core.networks.tail.table import ConstantTable, constants_table
from mlrs_core.policy import NO_SIGNALS, Floats, RunTable, Signals, States, Steps
from mlrs_train.evolution.draw import Draw
from mlrs_train.evolution.trainings.conditions import Conditions
from mlrs_train.evolution.trainings.policies import Shown

EAGERNESS = 0.3
"""The share of the way to its target that a correction goes at a look, if its pace allows it."""
LOOKS = 512
"""The most looks that are recorded; trainings of up to about 10,000 steps have fewer."""


@dataclass(frozen=True)
class Plans:
    """Where the corrections of n copies go, and when: each has `targets.shape[1]` stages."""

    begins: Floats
    """The share of the horizon at which each stage begins, (n, stages), ascending."""
    targets: Floats
    """The corrections that are aimed at, (n, stages); before the first stage it is 0."""
    paces: Floats
    """How far a correction goes at a look, (n,)."""

    def at(self, share: float) -> Floats:
        """Return what is aimed at, (n,), at this share of the horizon."""
        stage = (share >= self.begins).sum(1)
        known = np.concatenate([np.zeros((len(self.targets), 1)), self.targets], axis=1)
        aims: Floats = known[np.arange(len(known)), stage]
        return aims


@dataclass(frozen=True)
class Recorded:
    """One training, as a network would have seen it."""

    features: Tensor
    """What it sees at each look, signals and validation losses included, (looks, FEATURES) float16."""
    log_rates: Tensor
    """The logarithm of what the schedule is multiplied by until the look, (looks,) float32."""
    steps: Tensor
    """The steps of the looks, (looks,)."""


class Recording:
    """`RatePolicy` of copies whose corrections follow plans; it is shown everything."""

    sees = (True, True)

    def __init__(self, spec: TailSpec, starts: Floats, octaves: Floats, plans: Plans) -> None:
        """Take the learning rates to start from and the uncertainty of the searches, each (n,), and plans."""
        self.size = len(starts)
        self._spec, self._starts, self._octaves, self._plans = spec, starts, octaves, plans
        self._constants = constants_table(spec.constants)

    def begin(self, conditions: Conditions) -> None:
        """Forget everything, and start under these conditions."""
        self._horizon = conditions.horizon
        self._states = np.zeros((self.size, self._spec.state_size), np.float32)
        self._table = conditions.runs(torch.from_numpy(self._starts), torch.from_numpy(self._octaves))
        self._features = np.zeros((self.size, LOOKS, FEATURES))
        self._corrections = np.zeros((self.size, LOOKS))
        self._steps = np.zeros((self.size, LOOKS), np.int64)
        self._counts = np.zeros(self.size, np.int64)

    def advise(self, step: int, shown: Shown) -> Tensor:
        """Return the learning rates of this step, and record what is seen."""
        lrs = np.empty(self.size)
        _advance(
            self._states,
            self._table,
            step,
            shown.losses.double().numpy(),
            NO_SIGNALS if shown.signals is None else shown.signals.numpy(),
            lrs,
            self._plans.at(step / self._horizon),
            self._plans.paces,
            self._constants,
            self._features,
            self._corrections,
            self._steps,
            self._counts,
        )
        return torch.from_numpy(lrs).float()

    def recorded(self) -> list[Recorded]:
        """Return what was recorded of each copy."""
        log_starts = np.log(self._starts)
        return [
            Recorded(
                torch.from_numpy(self._features[row, :count]).half(),
                torch.from_numpy(self._corrections[row, :count] + log_starts[row]).float(),
                torch.from_numpy(self._steps[row, :count].copy()),
            )
            for row, count in enumerate(self._counts.tolist())
        ]


@compiled
def _advance(
    states: States,
    table: RunTable,
    step: int,
    losses: Floats,
    signals: Signals,
    lrs: Floats,
    aims: Floats,
    paces: Floats,
    constants: ConstantTable,
    features: npt.NDArray[np.float64],
    corrections: Floats,
    steps: Steps,
    counts: Steps,
) -> None:
    """Advance runs by one step as the kernel does, but with plans instead of a cell."""
    fixed = constants[0]
    seen = np.empty(FEATURES)
    for row in range(len(states)):
        run, memory = table[row], states[row, states.shape[1] - EXTRAS :]
        if observe(memory, losses[row], signals, row, step, run, fixed):
            look(memory, remember(memory, fixed), step, run, fixed, seen)
            drift = wide(memory[HIGH]) + wide(memory[LOW])
            count = counts[row]
            if count < features.shape[1]:
                features[row, count] = seen
                corrections[row, count], steps[row, count] = drift, step
                counts[row] = count + 1
            drift += clip(EAGERNESS * (aims[row] - drift), -paces[row], paces[row])
            drift = clip(drift, fixed.min_drift, fixed.max_drift)
            memory[HIGH] = drift
            memory[LOW] = drift - wide(memory[HIGH])
        lrs[row] = learning_rate(memory, step, run, fixed)


def draw_plans(draw: Draw, log_ideals: Floats) -> Plans:
    """Return random plans for n copies: towards the best correction, more or less, and away from it.

    Args:
        draw: where chance comes from.
        log_ideals: the corrections that would be best, (n,).
    """
    n, chance = len(log_ideals), draw.numbers
    begins = np.sort(chance.uniform(size=(n, STAGES)), axis=1)
    begins[:, 0] *= chance.uniform(size=n) ** 2  # most move early
    shares = chance.choice([0.0, 0.5, 1.0, 1.0], size=(n, STAGES))
    noise = chance.standard_normal((n, STAGES)) * chance.choice([0.2, 0.7, 1.5], size=(n, STAGES))
    targets = np.clip(shares * log_ideals[:, None] + noise, -7.0, 6.5)
    paces = chance.choice([0.04, 0.08, 0.12, 0.12], size=n)
    paces[chance.uniform(size=n) < STILL] = 0.0
    return Plans(begins, targets, paces)


STAGES = 3
"""Stages of a plan."""
STILL = 0.15
"""The share of copies whose correction stays 0."""
