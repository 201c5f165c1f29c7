"""What a training step costs more where its signals are computed, on one core.

Perceptrons of 1 and of 25 million parameters train with SGD and momentum, and with AdamW. The CPU time of the
signals is compared with that of all else in the same steps, and blocks of steps with signals take turns with
blocks without. The steps are later ones, of which one in eight is measured. No daemon has a part.

    python -m performance.training.signals [--quick] [--json FILE]
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from mlrs.torch.signals.cadence import ALL_UNTIL, EVERY
from mlrs.torch.signals.recorder import Recorder
from mlrs.torch.signals.sums import numbers_of, signals_of
from performance.report import results
from performance.shared import blocks

SIZES = {"1M": (784, 800, 500, 10), "25M": (1024, 2048, 2048, 2048, 2048, 2048, 2048, 1000)}
"""The widths of the layers."""
BATCH = {"1M": 128, "25M": 64}
OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "momentum": partial(torch.optim.SGD, lr=1e-3, momentum=0.9),
    "adamw": partial(torch.optim.AdamW, lr=1e-4),
}


class Training:
    """A training, whose steps are measured or not."""

    def __init__(self, size: str, optimizer: str) -> None:
        """Make the model, and one batch."""
        torch.manual_seed(0)
        widths = SIZES[size]
        layers = [(nn.Linear(*pair), nn.ReLU()) for pair in itertools.pairwise(widths)]
        self.model = nn.Sequential(*[one for pair in layers for one in pair][:-1])
        self._optimizer = OPTIMIZERS[optimizer](self.model.parameters())
        self._inputs = torch.randn(BATCH[size], widths[0])
        self._labels = torch.randint(widths[-1], (BATCH[size],))

    def blocks(self, count: int) -> list[tuple[float, float]]:
        """Take steps with signals; return the CPU seconds of signals, and of all else, for each cadence."""
        recorder, clock = Recorder(self._optimizer, is_on=True), time.thread_time
        first = -(-ALL_UNTIL // EVERY) * EVERY - EVERY // 2  # in the middle of two measured steps
        taken = []
        for block in range(count + 1):
            own, since = 0.0, clock()
            for step in range(first + block * EVERY, first + (block + 1) * EVERY):
                self._optimizer.zero_grad()
                loss = functional.cross_entropy(self.model(self._inputs), self._labels)
                own -= clock()
                signals_of(numbers_of(recorder.take(step)))
                own += clock()
                loss.backward()  # type: ignore[no-untyped-call]  # torch's
                own -= clock()
                recorder.before(step)
                own += clock()
                self._optimizer.step()
                own -= clock()
                recorder.after()
                own += clock()
            taken.append((own, clock() - since - own))
        return taken[1:]  # the first one chooses the sample

    def seconds(self, count: int) -> list[float]:
        """Take steps without signals; return the CPU seconds of each cadence."""
        taken = []
        for _ in range(count):
            since = time.thread_time()
            for _ in range(EVERY):
                self._optimizer.zero_grad()
                loss = functional.cross_entropy(self.model(self._inputs), self._labels)
                loss.backward()  # type: ignore[no-untyped-call]  # torch's
                self._optimizer.step()
            taken.append(time.thread_time() - since)
        return taken


def costs(size: str, optimizer: str, rounds: int, cadences: int) -> results.Figures:
    """Return ms a step, the signals' share, and the ratio of all to steps without signals."""
    training = Training(size, optimizer)
    cases: dict[str, Callable[[], list[Any]]] = {
        "without": partial(training.seconds, cadences),
        "with": partial(training.blocks, cadences),
    }
    taken = blocks.take_turns(cases, rounds)
    without = [float(np.mean(block)) for block in taken["without"]]
    own, rest = (
        [float(np.mean([pair[part] for pair in block])) for block in taken["with"]] for part in (0, 1)
    )
    return {
        "parameters": sum(one.numel() for one in training.model.parameters()),
        "ms": float(np.median(without)) / EVERY * 1e3,
        "own_ms": float(np.median(own)) / EVERY * 1e3,
        "share": blocks.ratio(own, rest),
        "ratio": blocks.ratio(np.add(own, rest).tolist(), without),
    }


def measure(quick: bool) -> results.Figures:  # noqa: FBT001  # what every benchmark is given
    """Return the figures of both sizes and optimizers."""
    torch.set_num_threads(1)
    plan = {"1M": (3, 3) if quick else (21, 5), "25M": (2, 1) if quick else (9, 1)}
    return {
        "costs": {
            f"{size}/{optimizer}": costs(size, optimizer, *plan[size])
            for size in SIZES
            for optimizer in OPTIMIZERS
        },
        "every": EVERY,
    }


if __name__ == "__main__":
    results.run(__file__, __doc__, measure)
