"""The gradient of what a network's moves would cost, over all lessons so far.

At each look of a recorded training, the network's drift is taken to go on for `AHEAD` looks as the network
says. The loss of the network is what the learning rate after that would cost, for the rest of the training.
So it learns to tell, from what it has seen under whatever learning rates, which way the task's best rate lies
and how far; where it cannot know, it weighs what is likely by what it costs. (Imitation of a choice that is
known to be good, on trainings that go astray as a network's own do: Ross et al., arXiv 1011.0686.) What the
costs of whole trainings cannot show, such as rates that first feel their way, is left to evolution.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mlrs_core.networks.tail.constants import FEATURES, SIGNAL_FEATURES, VALIDATION_FEATURES
from mlrs_core.networks.tail.spec import TailSpec
from mlrs_train.evolution.draw import Draw
from mlrs_train.evolution.groups import SIGNALS, VALIDATIONS
from mlrs_train.evolution.lessons.costs import cost_at
from mlrs_train.evolution.lessons.lesson import Lesson
from mlrs_train.evolution.lessons.recording import Recorded
from mlrs_train.evolution.sample import unpack

BATCH = 256
"""Trainings in a batch."""
AHEAD = 8
"""Looks for which a move is taken to go on: the nearer the best rate, the smaller the moves."""
HOPE = 0.25
"""By how many octaves the rates that a network is to reach are above the best ones of these short trainings:
larger networks, trained longer, stand that much more. Chosen on the development rows of the benchmark."""
COOLING = 0.7
"""From where on a choice counts less, as a share of the horizon that is left: little of it is to come."""
EFFORT = 0.04
"""The price of the head's first number, squared: a move has to be worth it. Near the best rate none is, and a
network that moves there nevertheless loses to the schedule that it corrects."""
MAX_NORM = 1.0
"""A gradient counts with at most this norm."""


@dataclass(frozen=True)
class _Example:
    """A recorded training with what it is judged by."""

    seen: Recorded
    stakes: Tensor
    """How much the choice at each look counts, (looks,) float32, the lesson's weight together."""
    lesson: Lesson


class Study:
    """All lessons so far."""

    def __init__(self, spec: TailSpec) -> None:
        """Start without a lesson."""
        self._spec = spec
        self._cell = nn.LSTM(FEATURES, spec.hidden_size, batch_first=True)
        self._examples: list[_Example] = []
        self.count = 0  # of lessons

    def add(self, lessons: Sequence[Lesson]) -> None:
        """Remember some lessons."""
        self.count += len(lessons)
        for lesson in lessons:
            for seen in lesson.trainings:
                stakes = lesson.weight * _stakes(seen.steps, lesson.horizon)
                self._examples.append(_Example(seen, stakes, lesson))

    def gradient(self, phi: Tensor, draw: Draw) -> tuple[Tensor, float]:
        """Return the gradient, (weights,), of the mean cost of a random batch, and that cost.

        Args:
            phi: the network, (weights,).
            draw: chooses trainings, and what the network is shown of each.
        """
        chosen = draw.numbers.integers(len(self._examples), size=BATCH).tolist()
        signals, validations = (
            torch.from_numpy(draw.numbers.uniform(size=BATCH) < share) for share in (SIGNALS, VALIDATIONS)
        )
        leaf = phi.clone().requires_grad_()
        cost = self._cost(leaf, [self._examples[number] for number in chosen], signals, validations)
        (gradient,) = torch.autograd.grad(cost, leaf)
        shortened: Tensor = gradient * (MAX_NORM / gradient.norm().clamp(min=MAX_NORM))
        return shortened, float(cost.detach())

    def _cost(
        self, phi: Tensor, examples: Sequence[_Example], signals: Tensor, validations: Tensor
    ) -> Tensor:
        pad = nn.utils.rnn.pad_sequence
        features = pad([one.seen.features for one in examples], batch_first=True).to(phi.dtype)
        features[..., _SIGNALS] *= signals[:, None, None]
        features[..., _VALIDATIONS] *= validations[:, None, None]
        log_rates = pad([one.seen.log_rates for one in examples], batch_first=True)
        stakes = pad([one.stakes for one in examples], batch_first=True)
        lowest = torch.tensor([one.lesson.lowest for one in examples])
        costs = torch.stack(
            [
                one.lesson.costs if is_shown else one.lesson.costs_unseen
                for one, is_shown in zip(examples, validations.tolist(), strict=True)
            ]
        )
        pull = self._pulls(phi, features)
        reached = log_rates + AHEAD * self._spec.constants.pace * torch.tanh(pull)
        cost = cost_at(reached - HOPE * math.log(2), lowest, costs.float())
        return ((cost + EFFORT * pull**2) * stakes).sum() / stakes.sum()

    def _pulls(self, phi: Tensor, features: Tensor) -> Tensor:
        """Return the head's first number at each look, (trainings, looks): `TailReference`, all at once."""
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
            "bias_hh_l0": torch.zeros(4 * size),
        }
        hidden, _ = torch.func.functional_call(self._cell, parameters, (features,))
        pulls: Tensor = hidden @ weights["head.weight"][0] + weights["head.bias"][0]
        return pulls


_VALIDATIONS = slice(FEATURES - VALIDATION_FEATURES, FEATURES)
_SIGNALS = slice(_VALIDATIONS.start - SIGNAL_FEATURES, _VALIDATIONS.start)
"""Where in the features those of signals and of validation losses are; all 0 where none are shown."""


def _stakes(steps: Tensor, horizon: int) -> Tensor:
    """Return how much the choices at some looks count, (looks,), 1 together: the root of how long they hold.

    Looks come thick at first; by their number alone the first steps would count most, by time hardly at all.
    """
    shares = steps.float() / horizon
    held = torch.diff(shares, append=torch.ones(1)).clamp(1e-6, 0.02)
    stakes = held.sqrt() * ((1 - shares) / COOLING).clamp(0.0, 1.0)
    return stakes / stakes.sum().clamp(min=1e-6)
