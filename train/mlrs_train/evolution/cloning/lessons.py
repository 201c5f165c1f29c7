"""What one task teaches: runs on it as a network would have seen them, and what each rate would cost.

On a random task, teachers train side by side with pupils: copies under the network so far, from various
first rates. Of all pupils and of some teachers it is written down what the network saw, or would have
seen, at each tick. The teachers' results say what every learning rate is worth at every step.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from mlrs_core.networks.drift.constants import EXTRAS
from mlrs_core.networks.drift.reference import DriftReference, Extras
from mlrs_train.evolution.cloning.teachers import YARDSTICK, RegretCurve, Teachers, log_shares, regret
from mlrs_train.evolution.draw import Draw
from mlrs_train.evolution.sample import draw_task, log_ratio, one_network
from mlrs_train.evolution.settings import EvolutionSettings
from mlrs_train.evolution.trainings.conditions import Conditions, draw_start_factor
from mlrs_train.evolution.trainings.families import choose_families
from mlrs_train.evolution.trainings.policies import RatePolicy, SideBySide
from mlrs_train.evolution.trainings.rollout import rollout

LESSONS = 3
"""The first number of the key of this module's random numbers."""
PUPILS = 8
"""Copies under the network; the first half from the default rate."""
WATCHED = 8
"""Teachers whose runs are written down, drawn at random."""
BY_TIME = 0.6
"""What is at stake at a tick: in this share the steps until the next, in the rest all ticks alike."""


@dataclass(frozen=True)
class ObservedRun:
    """One training, as the network saw it, or would have."""

    features: Tensor
    """What it sees at each tick, (ticks, FEATURES) float16."""
    shares: Tensor
    """`log_shares` half-way to the next tick, (shapes, ticks) float32."""
    stakes: Tensor
    """How much the choice at each tick counts, (ticks,) float32, 1 together."""
    curve: RegretCurve
    """The regret curve of the task."""


@dataclass(frozen=True)
class Lesson:
    """What one task teaches, and how the network did on it."""

    runs: list[ObservedRun]
    """Trainings on the task."""
    log_ratio: float
    """What pupils from the default rate reached, to the yardstick; below 0 is better than it."""
    regret: float
    """What the choices of these pupils cost, in log-loss."""


def collect(settings: EvolutionSettings, phi: Tensor, update: int, index: int) -> Lesson:
    """Return the lesson of one random task.

    Args:
        settings: of the training.
        phi: the network so far, (weights,).
        update: the number of the update.
        index: the number of the task within it.
    """
    draw = Draw(LESSONS, settings.seed, update, index)
    families = choose_families(settings.families)
    family = draw.pick(list(families.values()), [family.weight for family in families.values()])
    problem, conditions = draw_task(draw, family, settings)
    others = [draw_start_factor(draw) for _ in range(PUPILS // 2 + Teachers.size)]
    starts, spec = torch.tensor([1.0] * (PUPILS // 2) + others), settings.architecture()
    kept = sorted(draw.numbers.permutation(Teachers.size)[:WATCHED].tolist())
    everyone = SideBySide([one_network(spec, phi, starts[:PUPILS]), Teachers()])
    notes = Notes(everyone, DriftReference(spec), starts)
    initial = float(problem.evaluate(problem.copies(1)))
    reached = rollout(problem, conditions, notes, draw, settings.objective)
    taught = reached[PUPILS:]
    curve = RegretCurve.of(taught, initial)
    half = range(PUPILS // 2)
    return Lesson(
        [notes.run(row, curve) for row in (*range(PUPILS), *(PUPILS + teacher for teacher in kept))],
        float(log_ratio(reached[: len(half)], taught[YARDSTICK]).mean()),
        sum(notes.regret(row, curve) for row in half) / len(half),
    )


class Notes:
    """`RatePolicy` that does as another says, and writes down what a network would see at each tick."""

    def __init__(self, policy: RatePolicy, reference: DriftReference, starts: Tensor) -> None:
        """Wrap a policy; `starts` are the initial rates of the runs, over the default one, (n,)."""
        self.size = policy.size
        self._policy = policy
        self._reference = reference
        self._starts = starts

    def begin(self, conditions: Conditions) -> None:
        """Start under these conditions."""
        self._policy.begin(conditions)
        self._horizon = conditions.horizon
        self._runs = conditions.runs(self.size, starts=self._starts)
        self._extras = Extras.of(torch.zeros(self.size, EXTRAS, dtype=torch.float64))
        self._begun = self._reference.starts(self._runs)
        self._drift = self._begun.before_first_tick
        self._seen: list[tuple[int, Tensor, Tensor]] = []
        self._drifts: list[Tensor] = []

    def advise(self, step: int, losses: Tensor) -> Tensor:
        """Return the learning rates of this step."""
        steps = torch.tensor(step).expand(self.size)
        ticking = self._reference.take_in(self._extras, losses, steps, self._runs)
        if ticking.any():
            ticked = Extras.of(self._extras.rows().double())
            ticked.drift_high, ticked.drift_low = self._drift, torch.zeros_like(self._drift)
            self._seen.append((step, ticking, self._reference.look(ticked, steps, self._runs).half()))
            rows = torch.where(ticking[:, None], ticked.rows(), self._extras.rows())
            self._extras = Extras.of(rows.double())
        lrs, fixed = self._policy.advise(step, losses), self._reference.spec.constants
        self._drift = torch.log(lrs.double() / self._begun.default_lr).clamp(fixed.min_drift, fixed.max_drift)
        self._drifts.append(self._drift.float())
        return lrs

    def run(self, row: int, curve: RegretCurve) -> ObservedRun:
        """Return what was written down of one run."""
        mine = [(step, features[row]) for step, ticking, features in self._seen if ticking[row]]
        steps = torch.tensor([step for step, _ in mine] + [self._horizon])
        held = steps.diff().double()
        middle = (steps[:-1] + (held - 1) / 2) / self._horizon
        stakes = BY_TIME * held / held.sum() + (1 - BY_TIME) / len(held)
        features = torch.stack([features for _, features in mine])
        return ObservedRun(features, log_shares(middle), stakes.float(), curve)

    def regret(self, row: int, curve: RegretCurve) -> float:
        """Return what the learning rates of one run cost on average, in log-loss."""
        progress = torch.arange(self._horizon) / self._horizon
        drifts = torch.stack([drift[row] for drift in self._drifts])
        return float(regret(drifts[None], log_shares(progress)[None], [curve]).mean())
