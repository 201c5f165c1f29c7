"""The torch modules in double precision, as oracles of what meta mode differentiates."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mlrs_core.adapting.kernel import AdaptiveKernel
from mlrs_core.config import MetaConfig
from mlrs_core.models.model import Model
from mlrs_core.networks import Architecture, Weights
from mlrs_core.networks.drift import DriftSpec
from mlrs_core.networks.drift.reference import DriftReference, DriftRuns
from mlrs_core.networks.paper import PaperSpec
from mlrs_core.networks.paper.reference import PaperNet
from mlrs_core.networks.tail import TailSpec
from mlrs_core.networks.tail.reference import Observed, TailReference, TailRuns
from mlrs_core.policy import RunTable, States, columns_of

Leaves = dict[str, Tensor]
"""Weights by name, in double precision, with gradients."""


@dataclass
class Seen:
    """A step of one run, as the oracle needs it."""

    before: States
    """The frozen policy's state before it, (1, frozen_size)."""
    after: States
    """The frozen policy's state after it, (1, frozen_size)."""
    loss: float
    step: int


Oracle = Callable[[Leaves, list[Seen], RunTable], Tensor]
"""From weights, the steps of a run since the one that is differentiated, and its config, to its learning
rate."""


def adaptive(model: Model, **settings: Any) -> AdaptiveKernel:
    """Return a model's policy under some meta settings."""
    policy = model.adaptive_policy(MetaConfig(**settings))
    assert isinstance(policy, AdaptiveKernel)
    return policy


def leaves_of(weights: Weights) -> Leaves:
    """Return weights to differentiate by."""
    return {name: torch.from_numpy(array).double().requires_grad_() for name, array in weights.items()}


def paper_rate(spec: PaperSpec) -> Oracle:
    """Return the learning rate of the last step under the paper's network."""

    def rate(weights: Leaves, steps: list[Seen], table: RunTable) -> Tensor:
        newest, size = steps[-1], spec.hidden_size
        parts = torch.from_numpy(newest.before[:, :-3]).double().split(size, dim=1)
        state = list(zip(parts[: spec.num_layers], parts[spec.num_layers :], strict=True))
        loss = np.float32(np.clip(newest.loss, -spec.max_loss, spec.max_loss))
        net = PaperNet(spec).double()
        losses = torch.tensor([float(loss)], dtype=torch.float64)
        sigma, _ = torch.func.functional_call(net, weights, (losses, state))
        scale = float(table["scale"][0])
        return sigma[0] * (float(newest.after[0, -3]) if np.isnan(scale) else scale)

    return rate


def drift_rate(spec: DriftSpec) -> Oracle:
    """Return the learning rate of the last step under the drift network, from the first step on."""
    reference = DriftReference(spec)

    def rate(weights: Leaves, steps: list[Seen], table: RunTable) -> Tensor:
        columns = columns_of(table)
        names = ("horizon", "log_classes", "initial_lr", "optimizer", "momentum")
        runs = DriftRuns(*(torch.from_numpy(getattr(columns, name)) for name in names))
        state = torch.from_numpy(steps[0].before)
        for seen in steps:
            losses = torch.tensor([seen.loss], dtype=torch.float64)
            lrs, state = reference.step(weights, state, losses, seen.step, runs)
        return lrs[0]

    return rate


def tail_rate(spec: TailSpec) -> Oracle:
    """Return the learning rate of the last step under the tail network, from the first step on."""
    reference = TailReference(spec)

    def rate(weights: Leaves, steps: list[Seen], table: RunTable) -> Tensor:
        columns = columns_of(table)
        names = ("horizon", "log_classes", "initial_lr", "octaves", "optimizer", "momentum")
        runs = TailRuns(*(torch.from_numpy(getattr(columns, name)) for name in names))
        state = torch.from_numpy(steps[0].before)
        for seen in steps:
            observed = Observed(torch.tensor([seen.loss], dtype=torch.float64))
            lrs, state = reference.step(weights, state, observed, seen.step, runs)
        return lrs[0]

    return rate


def oracle_of(spec: Architecture) -> Oracle:
    """Return the oracle of an architecture."""
    match spec:
        case PaperSpec():
            return paper_rate(spec)
        case DriftSpec():
            return drift_rate(spec)
        case TailSpec():
            return tail_rate(spec)
    raise AssertionError(spec)


def ours(policy: AdaptiveKernel, state: np.ndarray, network: np.ndarray, table: RunTable) -> tuple:
    """Return what the kernel says of a run: trace, snapshot, learning rate, and its gradient by name."""
    learner = policy._learner
    trace, snapshot, lr = learner.find(state, network, table, 0)
    gradient = np.zeros(learner.shared.shape[1])
    if trace >= 0:
        weights = policy._blocks(network, snapshot)[0]
        learner.slope(policy._traces(state)[trace], table, 0, weights, gradient)
    return trace, snapshot, lr, learner.unpacked(gradient * lr)


def distance(left: dict, right: dict) -> float:
    """Return the distance of two gradients by name, over the size of the second."""
    distance = sum(float(((left[name] - right[name]) ** 2).sum()) for name in right)
    return float(np.sqrt(distance / sum(float((right[name] ** 2).sum()) for name in right)))
