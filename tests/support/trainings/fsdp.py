"""One process of a training in meta mode under `fully_shard`, or, as the only one, without it.

It trains once with each optimizer and order, a run each, and writes what every process has to agree on.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import distributed as dist
from torch import nn
from torch.distributed.fsdp import fully_shard

import mlrs
from mlrs.torch import AdvisedLR, MetaStep

STEPS, EVERY = 5, 2
WORLD_SIZE = 2
OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "sgd": lambda weights: torch.optim.SGD(weights, lr=0.1, momentum=0.9, weight_decay=0.01),
    "adamw": lambda weights: torch.optim.AdamW(weights, lr=0.1, amsgrad=True),
    "other": lambda weights: torch.optim.RMSprop(weights, lr=0.1),
}
RUNS = [(kind, order) for kind in OPTIMIZERS for order in ("before_step", "after_step")]


class Counting(nn.Linear):
    """A layer that counts in a buffer how often it is called."""

    calls: torch.Tensor

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs)
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, input: torch.Tensor) -> torch.Tensor:  # noqa: A002 # its name in nn.Linear
        """Return the outputs."""
        self.calls += 1
        return super().forward(input)


def network() -> nn.Module:
    """Return a small network: one layer does not divide by the processes, one parameter is frozen."""
    torch.manual_seed(0)
    model = nn.Sequential(Counting(3, 5), nn.Tanh(), nn.Linear(5, 2)).double()
    model[2].bias.requires_grad_(requires_grad=False)
    return model


def whole(weight: torch.Tensor) -> torch.Tensor:
    """Return all of a parameter, in every process."""
    full = getattr(weight, "full_tensor", None)
    return weight.detach() if full is None else full().detach()


def weights_of(model: nn.Module) -> list[torch.Tensor]:
    """Return all of a model's weights."""
    return [whole(weight) for weight in model.parameters()]


class Training:
    """A training with one optimizer and order."""

    def __init__(self, advisor: mlrs.Advisor | None, kind: str, order: str, rank: int) -> None:
        """Begin; the process without an advisor is not the first."""
        self.rank, self.world_size = rank, dist.get_world_size() if dist.is_initialized() else 1
        self.model = network()
        if self.world_size > 1:
            for layer in (self.model[0], self.model):
                fully_shard(layer)
        self.optimizer = OPTIMIZERS[kind](self.model.parameters())
        self.run: mlrs.Run | None = None
        if advisor is not None:
            meta = mlrs.Meta(every=EVERY, order=order)
            name = f"{kind}-{order}-{self.world_size}"
            self.run = advisor.run("task", id=name, meta=meta, fallback=None)
        self.scheduler = AdvisedLR(self.optimizer, self.run) if kind != "other" else None
        self.is_refused = False
        with torch.no_grad():
            self.loss(self.model, self.batch(0))  # after which FSDP leaves parameters gathered
        self.meta = MetaStep(self.model, self.loss, self.optimizer, self.scheduler or self.run)

    def batch(self, step: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Return a batch of its own for each step and rank; the only process has those of all ranks."""
        drawn = []
        for rank in range(WORLD_SIZE) if self.world_size == 1 else [self.rank]:
            chance = torch.Generator().manual_seed(1000 * rank + step)
            drawn.append(torch.randn(8, 5, generator=chance, dtype=torch.float64))
        rows = torch.cat(drawn)
        return rows[:, :3], rows[:, 3:]

    def loss(self, model: Any, batch: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
        """Return the mean squared error of a batch."""
        return nn.functional.mse_loss(
            model(batch[0]), batch[1], reduction="none" if self.is_refused else "mean"
        )

    def observe(self, step: int) -> None:
        """Have the learning rate of a step."""
        if self.scheduler is not None:
            self.scheduler.observe(1.0)
            return
        lr = self.run.next_lr(step, 1.0, timeout_s=120.0) if self.run else 0.0
        shared = torch.tensor([lr], dtype=torch.float64)
        if self.world_size > 1:
            dist.broadcast(shared, 0)
        self.optimizer.param_groups[0]["lr"] = float(shared)

    def step(self, step: int) -> None:
        """Take a step, and check that the update leaves gradients and buffers alone."""
        self.optimizer.zero_grad()
        loss = self.loss(self.model, self.batch(step))
        self.observe(step)
        loss.backward()  # type: ignore[no-untyped-call]
        gradients = [
            weight.grad if weight.grad is None else whole(weight.grad).clone()
            for weight in self.model.parameters()
        ]
        calls = float(self.model[0].calls)
        self.meta.step(lambda: self.batch(100 + step))
        assert float(self.model[0].calls) == calls
        for weight, gradient in zip(self.model.parameters(), gradients, strict=True):
            assert (weight.grad is None) == (gradient is None)
            if weight.grad is not None and gradient is not None:
                assert torch.equal(whole(weight.grad), gradient)
        if self.scheduler is not None:
            self.scheduler.step()

    def refuse(self) -> None:
        """Check that a validation loss that is refused leaves the weights as they are, to the bit."""
        self.optimizer.zero_grad()
        self.loss(self.model, self.batch(STEPS)).backward()  # type: ignore[no-untyped-call]
        self.observe(STEPS)
        before = weights_of(self.model)
        self.is_refused = True
        try:
            self.meta.step(self.batch(100))
        except mlrs.errors.InvalidArgumentError:
            assert all(map(torch.equal, before, weights_of(self.model)))
            return
        raise AssertionError("an update was made of a loss that is no scalar")


def main(target: str, store: str, rank: int, world_size: int, runs: int) -> None:
    """Train with the first so many optimizers and orders; write the weights that each ends with."""
    torch.set_num_threads(1)
    if world_size > 1:
        dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=world_size)
    advisor = mlrs.connect(target, timeout_s=120.0) if rank == 0 else None
    for kind, order in RUNS[:runs]:
        training = Training(advisor, kind, order, rank)
        for step in range(STEPS):
            training.step(step)
        assert training.meta.updates == STEPS // EVERY
        weights = torch.cat([weight.flatten() for weight in weights_of(training.model)])
        sys.stdout.write(json.dumps(weights.tolist()) + "\n")
        if order == "before_step" and kind != "other":
            training.refuse()
    if advisor is not None:
        advisor.close()
    if world_size > 1:
        dist.destroy_process_group()


def trained(target: str, store: Path, world_size: int, runs: int = len(RUNS)) -> list[list[list[float]]]:
    """Train in some processes, which have three minutes; return the weights that each wrote for each run."""
    arguments = [str(world_size), str(runs)]
    ranks = [
        subprocess.Popen(  # our own interpreter
            [sys.executable, "-m", __name__, target, str(store), str(rank), *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(world_size)
    ]
    try:
        wrote = []
        for rank in ranks:
            out, err = rank.communicate(timeout=180)
            assert rank.returncode == 0, err
            wrote.append([json.loads(line) for line in out.splitlines()])
        return wrote
    finally:
        for rank in ranks:
            rank.kill()
            rank.wait()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), int(sys.argv[5]))
