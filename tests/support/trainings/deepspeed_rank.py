"""One rank of a training with DeepSpeed on the CPU, with ZeRO: it writes a line for each update."""

from __future__ import annotations

import os
import sys
from typing import Any

os.environ["DS_ACCELERATOR"] = "cpu"

import deepspeed
import torch
from torch import distributed as dist
from torch import nn

import mlrs
from mlrs.torch import AdvisedLR

ACCUMULATION, UPDATES = 2, 4


class Training:
    """A training of two parameter groups, made anew each time."""

    def __init__(self, advisor: mlrs.Advisor, stage: int) -> None:
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1))
        groups = [{"params": model[0].parameters()}, {"params": model[2].parameters(), "lr": 0.05}]
        config = {
            "train_micro_batch_size_per_gpu": 4,
            "gradient_accumulation_steps": ACCUMULATION,
            "zero_optimization": {"stage": stage},
        }
        optimizer = torch.optim.AdamW(groups, lr=0.1)
        self.engine, self.optimizer, _, _ = deepspeed.initialize(
            model=model, optimizer=optimizer, config=config
        )
        self.scheduler = AdvisedLR(
            self.optimizer,
            "deepspeed",
            advisor=advisor,
            accumulation_steps=ACCUMULATION,
            memory=False,
            signals=False,
            rescue=False,
        )
        self.batch = 0
        self.losses: list[float] = []
        self.lrs: list[list[float]] = []

    def train(self, updates: int) -> None:
        """Make updates as the page says."""
        for _ in range(updates * ACCUMULATION):
            chance = torch.Generator().manual_seed(100 * self.batch + dist.get_rank())
            loss = self.engine(torch.randn(4, 4, generator=chance)).square().mean()
            self.batch += 1
            self.losses.append(loss.item())
            self.scheduler.observe(loss)
            self.engine.backward(loss)
            if self.engine.is_gradient_accumulation_boundary():
                self.scheduler.step()
                self.lrs.append(list(self.engine.get_lr()))
            self.engine.step()


def main(address: str, folder: str, stage: int) -> None:
    """Train undisturbed, and again with a checkpoint after which everything is made anew."""
    torch.set_num_threads(1)
    with mlrs.connect(address, timeout_s=60.0) as advisor:
        whole = Training(advisor, stage)
        whole.train(2 * UPDATES)
        first = Training(advisor, stage)
        first.train(UPDATES)
        first.engine.save_checkpoint(folder, client_state={"scheduler": first.scheduler.state_dict()})
        first.train(2)  # is lost
        second = Training(advisor, stage)
        _, state = second.engine.load_checkpoint(folder)
        second.scheduler.load_state_dict(state["scheduler"])
        second.batch = first.batch - 2 * ACCUMULATION
        second.train(UPDATES)
        assert first.lrs[:UPDATES] + second.lrs == whole.lrs
        assert first.losses[: UPDATES * ACCUMULATION] + second.losses == whole.losses
        write(whole.losses, whole.lrs)
        dist.barrier()
    dist.destroy_process_group()


def write(losses: list[float], lrs: list[Any]) -> None:
    """Write the losses and the learning rates of each update, behind the rank."""
    for update, (first, second) in enumerate(lrs):
        micro = losses[update * ACCUMULATION : (update + 1) * ACCUMULATION]
        sys.stdout.write(f"rank {dist.get_rank()} {sum(micro) / len(micro)!r} {first!r} {second!r}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
