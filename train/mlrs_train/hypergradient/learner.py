"""A base learner: one task's weights, its position in the data, and the LSTM state that advises it."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from mlrs_core.networks.paper.reference import PaperNet
from mlrs_train.tasks import BaseTask, Batch


class BaseLearner:
    """A base learner at some step of its run.

    What it draws at random comes from its own generators, seeded from the training's seed and the
    task's name: its initial weights and data order do not depend on which others train beside it,
    nor on how often phi is updated.
    """

    def __init__(self, name: str, task: BaseTask, net: PaperNet, seed: int) -> None:
        """Build a learner before its first step."""
        self.name = name
        self.task = task
        self.shuffling, self.holding_out = (
            torch.Generator().manual_seed(_seed_of(name, seed, use)) for use in range(2)
        )
        self.params = task.init(self.shuffling)
        self.lstm = net.init_state(1)
        self.order = torch.empty(0, dtype=torch.long)
        self.gamma: float | None = None
        self.step = 0
        self.loss_sum, self.loss_count = 0.0, 0
        self.validation_loss: float | None = None

    @property
    def epochs_done(self) -> float:
        """How many passes over its data it has made; exact at the end of each."""
        return self.step / self.task.steps_per_epoch

    @property
    def epoch(self) -> int:
        """The epoch that the last step lay in, from 1."""
        return (self.step - 1) // self.task.steps_per_epoch + 1

    def next_batch(self) -> Batch:
        """Return the training batch of this step, in an order drawn anew for each epoch."""
        index = self.step % self.task.steps_per_epoch
        if index == 0:
            self.order = torch.randperm(len(self.task.train), generator=self.shuffling)
        size = self.task.batch_size
        return self.task.train.take(self.order[index * size : (index + 1) * size])

    def held_out_batch(self) -> Batch:
        """Return a batch drawn from the examples that are held out."""
        rows = torch.randperm(len(self.task.held_out), generator=self.holding_out)
        return self.task.held_out.take(rows[: self.task.batch_size])

    def mean_loss(self) -> float:
        """Return the mean training loss since the last call."""
        mean = self.loss_sum / self.loss_count
        self.loss_sum, self.loss_count = 0.0, 0
        return mean

    def state_dict(self) -> dict[str, Any]:
        """Return all that its later steps depend on."""
        return {
            "params": dict(self.params),
            "lstm": list(self.lstm),
            "generators": [self.shuffling.get_state(), self.holding_out.get_state()],
            **{name: getattr(self, name) for name in _PLAIN},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from where `state_dict` was taken."""
        self.params = dict(state["params"])
        self.lstm = [(hidden, memory) for hidden, memory in state["lstm"]]
        for generator, saved in zip((self.shuffling, self.holding_out), state["generators"], strict=True):
            generator.set_state(saved)
        for name in _PLAIN:
            setattr(self, name, state[name])


_PLAIN = ("order", "gamma", "step", "loss_sum", "loss_count", "validation_loss")
"""The attributes that are saved as they are."""


def _seed_of(name: str, seed: int, use: int) -> int:
    """Return a seed that looks unrelated for each task and use."""
    sequence = np.random.SeedSequence([seed, zlib.crc32(name.encode()), use])
    return int(sequence.generate_state(1, np.uint64)[0] >> 1)
