"""Train a small CNN on digits with PyTorch, advised by a daemon or by a hand-made schedule.

python examples/train_torch.py
"""

from __future__ import annotations

import time
from contextlib import ExitStack
from typing import Any

import torch
from support.digits import load_split, parse_arguments, report
from support.schedules import DEFAULT_LR, scheduled_lr
from torch import nn
from torch.nn import functional

import mlrs
from mlrs.torch import AdvisedLR


def make_model() -> nn.Module:
    """Return a CNN for (n, 1, 8, 8) images."""
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(16, 32, 3, padding=1, stride=2),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(32 * 16, 10),
    )


class Stopwatch:
    """Adds up the time between `start` and `stop`."""

    def __init__(self) -> None:
        self.total_s = 0.0
        self._since = 0.0

    def start(self, *_: Any) -> None:
        """Begin; takes whatever a hook gets."""
        self._since = time.perf_counter()

    def stop(self, *_: Any) -> None:
        """Add the time since `start`."""
        self.total_s += time.perf_counter() - self._since


def main() -> None:
    """Train and report."""
    arguments = parse_arguments(__doc__)
    torch.manual_seed(arguments.seed)
    torch.set_num_threads(1)
    train, test = load_split(arguments.seed)
    images, labels = torch.tensor(train[0]).view(-1, 1, 8, 8), torch.tensor(train[1])
    model = make_model()
    optimizer = torch.optim.SGD(model.parameters(), lr=DEFAULT_LR)
    watch = Stopwatch()
    with ExitStack() as stack:
        scheduler: Any
        if arguments.schedule == "advised":
            advisor = stack.enter_context(mlrs.connect(arguments.address))
            settings = {"horizon": arguments.steps, "num_classes": 10}
            run = stack.enter_context(advisor.run(arguments.task, id=arguments.run_id, **settings))
            optimizer.register_step_pre_hook(watch.start)
            scheduler = AdvisedLR(optimizer, run)  # waits for its advice in a hook of its own, here between
            optimizer.register_step_pre_hook(watch.stop)
        else:
            scheduler = torch.optim.lr_scheduler.LambdaLR(
                optimizer, lambda step: scheduled_lr(arguments.schedule, step, arguments.steps) / DEFAULT_LR
            )
        for step in range(arguments.steps):
            batch = torch.randint(len(labels), (arguments.batch_size,))
            loss = functional.cross_entropy(model(images[batch]), labels[batch])
            if arguments.schedule == "advised":
                watch.start()
                scheduler.observe(loss)
                watch.stop()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            lr = optimizer.param_groups[0]["lr"]
            watch.start()
            scheduler.step()
            watch.stop()
            report(step=step, loss=loss.item(), lr=lr)
        if arguments.schedule == "advised":
            run.finish()
    with torch.no_grad():
        final = functional.cross_entropy(model(images), labels).item()
        scores = model(torch.tensor(test[0]).view(-1, 1, 8, 8))
        accuracy = (scores.argmax(1) == torch.tensor(test[1])).double().mean().item()
    report(train_loss=final, test_accuracy=accuracy, advice_s=watch.total_s / arguments.steps)


if __name__ == "__main__":
    main()
