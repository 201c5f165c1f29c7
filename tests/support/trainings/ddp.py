"""One rank of a DDP training on digits, for `torchrun`: it fails where it is asked to, and writes its steps.

A line for each step goes to the folder's file of the rank and the attempt: the step, the learning rate, the
rank's own loss, and a sum over its weights, as hexadecimal floats.
"""

from __future__ import annotations

import os
import signal
import time
from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import Any

import torch
from sklearn.datasets import load_digits
from torch import distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

import mlrs
from mlrs.torch import AdvisedLR
from tests.support.runs import open_run


def arguments() -> Namespace:
    """Return what the test says."""
    parser = ArgumentParser()
    parser.add_argument("address")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--reports", choices=["first", "all"], default="first")
    parser.add_argument("--accumulate", type=int, default=1)
    parser.add_argument("--kill", help="RANK:STEP, killed between its loss and its update, the first time")
    parser.add_argument("--slow", help="RANK:STEP:SECONDS")
    parser.add_argument(
        "--wait", type=int, action="append", default=[], help="STEP, begun once go-STEP is there"
    )
    parser.add_argument("--nan", help="RANK:STEP")
    parser.add_argument("--straggler-timeout-s", type=float)
    parser.add_argument("--fallback", default="auto")
    return parser.parse_args()


def _is_at(what: str | None, rank: int, step: int) -> bool:
    return what is not None and what.split(":")[:2] == [str(rank), str(step)]


class Rank:
    """A process of the job."""

    def __init__(self, arguments: Namespace) -> None:
        """Join the others, and go on from the checkpoint, if there is one."""
        dist.init_process_group("gloo")
        torch.manual_seed(0)
        torch.set_num_threads(1)
        self.arguments = arguments
        self.rank, self.world_size = dist.get_rank(), dist.get_world_size()
        self.attempt = int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"))
        images, labels = load_digits(return_X_y=True)
        self.images, self.labels = torch.tensor(images / 16.0, dtype=torch.float32), torch.tensor(labels)
        self.model = DistributedDataParallel(nn.Sequential(nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 10)))
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.1)
        self.checkpoint = arguments.folder / "checkpoint.pt"
        self.saved: dict[str, Any] | None = None
        if self.checkpoint.exists():
            self.saved = torch.load(self.checkpoint, weights_only=True)
        self.step = 0 if self.saved is None else self.saved["scheduler"]["step"]

    def open(self, advisor: mlrs.Advisor) -> mlrs.Run | None:
        """Open the run, rewound to the checkpoint by one rank, before the others go on."""
        settings: dict[str, Any] = {"horizon": 100, "num_classes": 10, "fallback": self.arguments.fallback}
        if self.arguments.reports == "first":
            return open_run(advisor, "job", resume_from=self.step, **settings) if self.rank == 0 else None
        settings |= {"rank": self.rank, "world_size": self.world_size}
        settings["straggler_timeout_s"] = self.arguments.straggler_timeout_s
        run = open_run(advisor, "job", resume_from=self.step, **settings) if self.rank == 0 else None
        dist.barrier()
        return run or open_run(advisor, "job", **settings)

    def batch(self, micro: int) -> torch.Tensor:
        """Return the loss of a micro-batch, other samples on each rank."""
        index = (self.step * self.arguments.accumulate + micro) * self.world_size + self.rank
        which = (torch.arange(32) + 32 * index) % len(self.labels)
        loss = nn.functional.cross_entropy(self.model(self.images[which]), self.labels[which])
        return loss * float("nan") if _is_at(self.arguments.nan, self.rank, self.step) else loss

    def train(self, scheduler: AdvisedLR) -> None:
        """Train to the end."""
        name = f"rank-{self.rank}-{self.attempt}.txt"
        with (self.arguments.folder / name).open("w", encoding="ascii", buffering=1) as record:
            while self.step < self.arguments.steps:
                if _is_at(self.arguments.slow, self.rank, self.step):
                    time.sleep(float(self.arguments.slow.split(":")[2]))
                while (
                    self.step in self.arguments.wait
                    and not (self.arguments.folder / f"go-{self.step}").exists()
                ):
                    time.sleep(0.02)
                losses = []
                self.optimizer.zero_grad()
                for micro in range(self.arguments.accumulate):
                    loss = self.batch(micro)
                    scheduler.observe(loss)
                    losses.append(loss.item())
                    (loss / self.arguments.accumulate).backward()
                if _is_at(self.arguments.kill, self.rank, self.step) and self.attempt == 0:
                    os.kill(os.getpid(), signal.SIGKILL)
                self.optimizer.step()
                scheduler.step()
                weights = sum(float(weight.detach().double().sum()) for weight in self.model.parameters())
                lr, mean = scheduler.get_last_lr()[0], sum(losses) / len(losses)
                record.write(f"{self.step} {float(lr).hex()} {mean.hex()} {weights.hex()}\n")
                self.step += 1
                if self.step % 5 == 0 and self.rank == 0:
                    self.save(scheduler)

    def save(self, scheduler: AdvisedLR) -> None:
        """Write a checkpoint, whole or not at all."""
        unfinished = self.checkpoint.with_suffix(".new")
        parts = {"model": self.model, "optimizer": self.optimizer, "scheduler": scheduler}
        torch.save({name: part.state_dict() for name, part in parts.items()}, unfinished)
        unfinished.replace(self.checkpoint)


def main() -> None:
    """Be a rank."""
    here = Rank(arguments())
    with mlrs.connect(here.arguments.address) as advisor:
        scheduler = AdvisedLR(
            here.optimizer, here.open(advisor), accumulation_steps=here.arguments.accumulate
        )
        if here.saved is not None:
            here.model.load_state_dict(here.saved["model"])
            here.optimizer.load_state_dict(here.saved["optimizer"])
            scheduler.load_state_dict(here.saved["scheduler"])
        here.train(scheduler)
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
