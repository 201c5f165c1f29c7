"""Train a small network on digits from a learning rate that is far too low, with and without meta mode.

python examples/meta_mode.py --plot meta_mode.png

Prints a JSON object for each run. With --plot, draws learning rates and validation losses (needs matplotlib).
"""

from __future__ import annotations

from argparse import ArgumentParser
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from support.digits import load_split, report
from torch import nn
from torch.nn import functional

import mlrs
from mlrs import Meta
from mlrs.torch import AdvisedLR, MetaStep

Batch = tuple[torch.Tensor, torch.Tensor]
BATCH_SIZE = 64


def loss_fn(model: Callable[..., torch.Tensor], batch: Batch) -> torch.Tensor:
    """Return the cross entropy of a batch."""
    images, labels = batch
    return functional.cross_entropy(model(images), labels)


def train(run: mlrs.Run, steps: int, seed: int, every: int) -> tuple[list[float], list[float]]:
    """Train a new network; return its learning rates, and validation losses every ten steps."""
    torch.manual_seed(seed)
    (images, labels), (others, theirs) = (map(torch.from_numpy, split) for split in load_split(seed))
    half = len(theirs) // 2  # the first half is what updates see, the second is what is reported
    model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    scheduler = AdvisedLR(optimizer, run)
    meta = MetaStep(model, loss_fn, optimizer, scheduler, every=every) if run.config.meta else None
    chance = torch.Generator().manual_seed(seed)
    rates, losses = [], []
    for step in range(steps):
        chosen = torch.randint(len(labels), (BATCH_SIZE,), generator=chance)
        optimizer.zero_grad()
        loss = loss_fn(model, (images[chosen], labels[chosen]))
        scheduler.observe(loss)
        loss.backward()
        if meta:
            meta.step((others[:half], theirs[:half]))
        else:
            optimizer.step()
        rates.append(optimizer.param_groups[0]["lr"])
        scheduler.step()
        if step % 10 == 9:
            with torch.no_grad():
                losses.append(loss_fn(model, (others[half:], theirs[half:])).item())
    return rates, losses


def draw(path: Path, seen: dict[str, tuple[list[float], list[float]]]) -> None:
    """Draw learning rates and validation losses."""
    import matplotlib.pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.2), layout="constrained")
    for name, (rates, losses) in seen.items():
        left.semilogy(rates, label=name)
        right.semilogy(range(9, len(rates), 10), losses, label=name)
    left.set(xlabel="step", ylabel="learning rate")
    right.set(xlabel="step", ylabel="validation loss")
    left.legend()
    figure.savefig(path, dpi=150)


def main() -> None:
    """Train twice, report, and draw."""
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("--address", help="the daemon, HOST:PORT; default: this user's own")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--initial-lr", type=float, default=1e-3, help="what both runs start from")
    parser.add_argument("--every", type=int, default=5, help="steps from one update to the next")
    parser.add_argument("--model", help="the network; default: the daemon's")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--plot", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    seen: dict[str, tuple[list[float], list[float]]] = {}
    with mlrs.connect(arguments.address, timeout_s=60.0) as advisor:
        for name in ("without", "with"):
            given: dict[str, Any] = {"meta": Meta(every=arguments.every)} if name == "with" else {}
            run = advisor.run(
                f"digits-{name}-meta-mode",
                model=arguments.model,
                horizon=arguments.steps,
                num_classes=10,
                initial_lr=arguments.initial_lr,
                **given,
            )
            seen[name] = train(run, arguments.steps, arguments.seed, arguments.every)
            info = run.finish()
            rates, losses = seen[name]
            report(
                meta_mode=name,
                updates=info.meta.updates if info.meta else 0,
                mean_lr=sum(rates) / len(rates),
                last_lr=rates[-1],
                validation_loss=losses[-1],
            )
    if arguments.plot:
        draw(arguments.plot, seen)


if __name__ == "__main__":
    main()
