"""A training with Accelerate on the CPU that accumulates gradients, checkpoints, and continues from there.

As a program it is one rank of a job: it writes a line for each update.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import mlrs
from mlrs.torch import AdvisedLR

ACCUMULATION, BATCHES = 2, 7
"""The micro-batches of an update, and those of an epoch: the last update of an epoch has one."""
UPDATES = -(-BATCHES // ACCUMULATION)
"""The updates of an epoch."""


class Training:
    """A training of a small network with momentum, and the learning rate of each of its updates."""

    def __init__(self, advisor: mlrs.Advisor, task: str) -> None:
        self.accelerator = Accelerator(cpu=True, gradient_accumulation_steps=ACCUMULATION)
        torch.manual_seed(0)
        processes = self.accelerator.num_processes
        rows = torch.randn(4 * BATCHES * processes, 3)
        data = TensorDataset(rows, rows.sum(1, keepdim=True).tanh())
        model = nn.Sequential(nn.Linear(3, 8), nn.Dropout(0.2), nn.Linear(8, 1))
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        self.model, self.optimizer, self.loader = self.accelerator.prepare(
            model, optimizer, DataLoader(data, batch_size=4)
        )
        self.scheduler = AdvisedLR(
            self.optimizer,
            task,
            accumulation_steps=ACCUMULATION,
            advisor=advisor,
            horizon=100,
            max_lr=0.1,
            memory=False,
        )
        self.accelerator.register_for_checkpointing(self.scheduler)
        self.losses: list[float] = []
        self.lrs: list[float] = []

    def epoch(self) -> None:
        """Train on every batch once."""
        for rows, targets in self.loader:
            with self.accelerator.accumulate(self.model):
                loss = nn.functional.mse_loss(self.model(rows), targets)
                self.losses.append(loss.item())
                self.scheduler.observe(loss)
                self.accelerator.backward(loss)
                self.optimizer.step()
                self.optimizer.zero_grad()
                if self.accelerator.sync_gradients:
                    self.scheduler.step()
                    self.lrs.append(self.optimizer.param_groups[0]["lr"])

    def weights(self) -> torch.Tensor:
        """Return all weights."""
        return torch.cat([weight.detach().flatten() for weight in self.model.parameters()])


def main(address: str, folder: Path) -> None:
    """Train two epochs as a rank, with a checkpoint between them that is loaded at once."""
    torch.set_num_threads(1)
    with mlrs.connect(address, timeout_s=60.0) as advisor:
        training = Training(advisor, "ranks")
        training.epoch()
        training.accelerator.save_state(str(folder))
        training.epoch()
        lost: Any = training.lrs[UPDATES:], training.weights()
        training.accelerator.wait_for_everyone()
        training.accelerator.load_state(str(folder))
        training.epoch()
        assert training.lrs[UPDATES : 2 * UPDATES] == lost[0] == training.lrs[2 * UPDATES :]
        assert torch.equal(training.weights(), lost[1])
        for lr in training.lrs[: 2 * UPDATES]:
            sys.stdout.write(f"{training.accelerator.process_index} {lr.hex()}\n")
        sys.stdout.flush()
        training.accelerator.wait_for_everyone()
    training.accelerator.end_training()


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
