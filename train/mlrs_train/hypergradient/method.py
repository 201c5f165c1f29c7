"""The paper's algorithm: base learners interleaved under one network phi.

Each learner's step is a step of plain SGD at lr = gamma * sigma(loss; phi). On every T_val-th one,
phi is updated first, from a virtual step; then the real step is made under the new phi from the
*same* LSTM state. So the LSTM advances exactly once per step, which the authors' code does not keep
(there, a meta step advances it twice).

Several tasks: the learner that has gone through the smallest part of its epoch goes next (ties in
the order in which tasks were named). So all of them finish each epoch together, and share the epochs
after which snapshots are taken, however long their epochs are.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mlrs_core.models.model import Model
from mlrs_core.networks import Weights
from mlrs_core.networks.paper.reference import PaperNet, weights_of
from mlrs_core.networks.scale import shu_gamma
from mlrs_train.errors import DivergedError
from mlrs_train.hypergradient.gradient import (
    learning_rate,
    meta_gradient,
    sgd_direction,
    sgd_step,
    value_and_grad,
)
from mlrs_train.hypergradient.learner import BaseLearner
from mlrs_train.hypergradient.settings import HypergradientSettings
from mlrs_train.method import LogRecord
from mlrs_train.tasks import BaseTask, Params


class Hypergradient:
    """`TrainingMethod` of the paper's algorithm."""

    def __init__(self, settings: HypergradientSettings, tasks: Mapping[str, BaseTask]) -> None:
        """Build a training at its first step."""
        self.settings = settings
        self.net = _network(settings)
        self.adam = torch.optim.Adam(
            self.net.parameters(), lr=settings.meta_lr, weight_decay=settings.meta_weight_decay
        )
        self.learners = [BaseLearner(name, task, self.net, settings.seed) for name, task in tasks.items()]
        self.snapshots: list[Weights] = []
        self.meta_updates = 0

    @property
    def steps_done(self) -> int:
        """Steps of all base learners."""
        return sum(learner.step for learner in self.learners)

    @property
    def steps_total(self) -> int:
        """Steps that all base learners make."""
        return self.settings.epochs * sum(learner.task.steps_per_epoch for learner in self.learners)

    def advance(self) -> LogRecord | None:
        """Make one step of the base learner whose turn it is; return a record when one is due."""
        learner = min(self.learners, key=lambda learner: learner.epochs_done)
        lr = self._step(learner)
        finished = min(learner.epochs_done for learner in self.learners)
        if finished in self.settings.snapshot_epochs()[len(self.snapshots) :]:
            self.snapshots.append(weights_of(self.net))
        if learner.step % self.settings.log_every and learner.epochs_done < self.settings.epochs:
            return None
        return self._record(learner, lr)

    def _step(self, learner: BaseLearner) -> float:
        """Make one step of a base learner; return its learning rate."""
        batch = learner.next_batch()
        loss, gradients = value_and_grad(lambda params: learner.task.loss(params, batch), learner.params)
        _check(learner, "training", float(loss))
        if learner.gamma is None:
            learner.gamma = shu_gamma(float(loss), math.log(learner.task.num_classes))
        direction = sgd_direction(learner.params, gradients, self.settings.weight_decay)
        if (learner.step + 1) % self.settings.t_val == 0:
            self._meta_update(learner, learner.gamma, loss, direction)
        with torch.no_grad():
            lr, learner.lstm = learning_rate(self.net, learner.lstm, loss, learner.gamma)
        learner.params = sgd_step(learner.params, direction, lr.item())
        learner.step += 1
        learner.loss_sum += float(loss)
        learner.loss_count += 1
        return lr.item()

    def _meta_update(self, learner: BaseLearner, gamma: float, loss: Tensor, direction: Params) -> None:
        """Make one step of Adam on phi. The learner's weights and LSTM state stay as they are."""
        batch = learner.held_out_batch()
        result = meta_gradient(
            self.net,
            state=learner.lstm,
            loss=loss,
            gamma=gamma,
            params=learner.params,
            direction=direction,
            validation_loss=lambda params: learner.task.loss(params, batch),
        )
        _check(learner, "validation", result.validation_loss)
        _check(learner, "alignment of the", result.alignment)
        for weight, gradient in zip(self.net.parameters(), result.gradients, strict=True):
            weight.grad = gradient
        self.adam.step()
        self.meta_updates += 1
        learner.validation_loss = result.validation_loss

    def _record(self, learner: BaseLearner, lr: float) -> LogRecord:
        values = {
            "train_loss": learner.mean_loss(),
            "validation_loss": learner.validation_loss,
            "learning_rate": lr,
            "meta_updates": self.meta_updates,
        }
        return LogRecord(task=learner.name, step=learner.step, epoch=learner.epoch, values=values)

    def state_dict(self) -> dict[str, Any]:
        """Return all that later steps depend on, as tensors and plain values."""
        return {
            "net": self.net.state_dict(),
            "adam": self.adam.state_dict(),
            "learners": {learner.name: learner.state_dict() for learner in self.learners},
            "snapshots": [_to_torch(snapshot) for snapshot in self.snapshots],
            "meta_updates": self.meta_updates,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from where `state_dict` was taken."""
        self.net.load_state_dict(state["net"])
        self.adam.load_state_dict(state["adam"])
        for learner in self.learners:
            learner.load_state_dict(state["learners"][learner.name])
        self.snapshots = [
            {name: tensor.numpy() for name, tensor in snapshot.items()} for snapshot in state["snapshots"]
        ]
        self.meta_updates = state["meta_updates"]

    def model(self, provenance: Mapping[str, Any]) -> Model:
        """Return the trained model, with what the method adds to its provenance."""
        facts = {
            "meta_updates": self.meta_updates,
            "snapshot_epochs": self.settings.snapshot_epochs(),
            "gamma": {learner.name: learner.gamma for learner in self.learners},
            "training_examples_sha256": {
                learner.name: learner.task.train.digest() for learner in self.learners
            },
        }
        return Model(
            architecture=self.settings.architecture(),
            snapshots=tuple(self.snapshots),
            provenance={**provenance, **facts},
        )


def _network(settings: HypergradientSettings) -> PaperNet:
    """Return a network with torch's default initialisation, drawn from the seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        return PaperNet(settings.architecture())


def _to_torch(weights: Weights) -> Params:
    return {name: torch.from_numpy(np.array(array)) for name, array in weights.items()}


def _check(learner: BaseLearner, kind: str, loss: float) -> None:
    if not math.isfinite(loss):
        raise DivergedError(
            f"{learner.name}: the {kind} loss is {loss} at step {learner.step}; "
            "try another seed, or a smaller meta learning rate"
        )
