"""A schedule you did not tune: cosine schedules from seven learning rates, and advised trainings.

python examples/tutorial_untuned.py [--quick] [--address HOST:PORT] [--out demo-output/tutorial-untuned.png]
"""

from __future__ import annotations

import uuid
from argparse import ArgumentParser, RawDescriptionHelpFormatter
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import torch
from matplotlib.figure import Figure
from support.endings import Trained, draw, report
from support.scenes import Scenes, load_scenes
from torch import nn
from torch.nn.functional import cross_entropy

import mlrs
from mlrs.torch import AdvisedLR

STEPS, BATCH_SIZE, SEEDS = 1000, 64, [0, 1, 2]
RATES = [10 ** (half / 2) for half in range(-6, 1)]  # 0.001 to 1, half a decade apart
NETWORKS = ["plain", "normalised"]
TRAIN, VALIDATION, TEST = load_scenes()
torch.set_num_threads(1)


def cnn(network: str) -> nn.Module:
    """Return a network for pictures (n, 3, 16, 16), with batch normalisation or without."""

    def layer(inputs: int, outputs: int) -> list[nn.Module]:
        norm = [nn.BatchNorm2d(outputs)] if network == "normalised" else []
        return [nn.Conv2d(inputs, outputs, 3, padding=1), *norm, nn.ReLU(), nn.MaxPool2d(2)]

    layers = [*layer(3, 16), *layer(16, 32), nn.Flatten()]
    return nn.Sequential(*layers, nn.Linear(32 * 4 * 4, 64), nn.ReLU(), nn.Linear(64, 10))


def batch_loss(model: nn.Module, rows: torch.Tensor) -> torch.Tensor:
    """Return the training loss of a batch."""
    return cross_entropy(model(TRAIN.images[rows]), TRAIN.labels[rows])


@torch.no_grad()
def score(model: nn.Module, scenes: Scenes) -> tuple[float, float]:
    """Return loss and accuracy on pictures that the training did not see."""
    scores = model.eval()(scenes.images)
    accuracy = (scores.argmax(1) == scenes.labels).float().mean()
    return cross_entropy(scores, scenes.labels).item(), accuracy.item()


def train_with_cosine(network: str, rate: float, seed: int, steps: int) -> Trained:
    """Train from a learning rate down to 0 along a cosine."""
    torch.manual_seed(seed)
    model = cnn(network)
    optimizer = torch.optim.SGD(model.parameters(), lr=rate, momentum=0.9)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    rates = []
    for rows in torch.randint(len(TRAIN.labels), (steps, BATCH_SIZE)):
        loss = batch_loss(model, rows)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        rates.append(scheduler.get_last_lr()[0])
        scheduler.step()
    return Trained(rates, None, score(model, VALIDATION)[0], *score(model, TEST))


def train_advised(advisor: mlrs.Advisor, task: str, network: str, seed: int, steps: int) -> Trained:
    """Train as the daemon advises; what the search takes is taken from `steps`."""
    torch.manual_seed(seed)
    model = cnn(network)
    optimizer = torch.optim.SGD(model.parameters(), momentum=0.9)  # no learning rate
    run = advisor.run(task, horizon=steps, num_classes=10, batch_size=BATCH_SIZE)
    scheduler = AdvisedLR(optimizer, run)
    batches = torch.randint(len(TRAIN.labels), (steps, BATCH_SIZE))
    found = scheduler.search(model, batch_loss, batches, charge_steps=True)
    rates = []
    for rows in batches[found.steps :]:
        loss = batch_loss(model, rows)
        scheduler.observe(loss)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        rates.append(optimizer.param_groups[0]["lr"])
        scheduler.step()
    validation, _ = score(model, VALIDATION)
    run.finish(metric=validation)
    return Trained(rates, found, validation, *score(model, TEST))


def train_three_times(
    address: str | None, task: str, network: str, seeds: list[int], steps: int
) -> list[Trained]:
    """Train one task three times, each time with another seed."""
    with mlrs.connect(address) as advisor:
        return [train_advised(advisor, task, network, seed, steps) for seed in seeds]


def train_all(
    pool: ProcessPoolExecutor,
    address: str | None,
    network: str,
    steps: int,
    rates: list[float],
    seeds: list[int],
) -> tuple[dict[float, list[Trained]], list[list[Trained]]]:
    """Return the trainings of the sweep, by learning rate, and the advised ones, by their number."""
    cosines = {
        rate: [pool.submit(train_with_cosine, network, rate, seed, steps) for seed in seeds] for rate in rates
    }
    series = []
    for seed in seeds:
        task = f"untuned-{network}-{uuid.uuid4().hex[:6]}"
        order = SEEDS[seed:] + SEEDS[:seed]  # so that each of the three runs has each seed once
        series.append(pool.submit(train_three_times, address, task, network, order, steps))
    swept = {rate: [one.result() for one in trainings] for rate, trainings in cosines.items()}
    return swept, [list(runs) for runs in zip(*(one.result() for one in series), strict=True)]


def main() -> None:
    """Train in all ways, print a table, save a picture."""
    parser = ArgumentParser(description=__doc__, formatter_class=RawDescriptionHelpFormatter)
    parser.add_argument("--address", help="the daemon, HOST:PORT; default: this user's own")
    parser.add_argument("--quick", action="store_true", help="fewer steps, learning rates and seeds")
    parser.add_argument("--out", type=Path, default=Path("demo-output/tutorial-untuned.png"))
    arguments = parser.parse_args()
    steps, rates, seeds = (200, RATES[2:5], [0]) if arguments.quick else (STEPS, RATES, SEEDS)
    figure = Figure(figsize=(11, 8), layout="constrained")
    columns = figure.subplots(2, 2).T
    reports = []
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        for axes, network in zip(columns, NETWORKS, strict=True):
            swept, advised = train_all(pool, arguments.address, network, steps, rates, seeds)
            reports.append(report(network, swept, advised))
            print(reports[-1])
            draw(axes, swept, advised)
            axes[0].set_title(network)
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(arguments.out, dpi=150, metadata={"Description": "\n".join(reports)})
    print(f"picture: {arguments.out}")


if __name__ == "__main__":
    main()
