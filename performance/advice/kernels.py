"""What a step of a run costs without a wire, by how many step together: kernels against the torch module.

Runs go from the first step of their horizon to the last: of the drift network most steps are cheaper than
its ticks.

    python -m performance.advice.kernels [--quick] [--json FILE]
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from mlrs_core.networks.paper import PaperSpec
from mlrs_core.networks.paper.reference import net_with
from performance.report import results
from performance.shared import blocks
from performance.shared.in_process import DRIFT, PAPER, Answers, Kernel, shipped_model
from performance.shared.messages import COLUMNS, losses_of

HORIZON = 1000
"""Steps of a run."""
BLOCK = 50
"""Steps of a block."""
PASSES = {1: 5, 16: 5, 64: 5, 256: 3, 1024: 2, 4096: 1}
"""How often the horizon is walked, by how many runs step together."""
BASELINE = "torch"
Step = Callable[[int], None]


def torch_module(runs: int) -> Step:
    """Return a step of the paper's network as a torch module, with one thread."""
    model = shipped_model(PAPER)
    assert isinstance(model.architecture, PaperSpec)
    net = net_with(model.architecture, model.snapshots[0])
    losses = torch.from_numpy(losses_of(runs).astype(np.float32))
    state = net.init_state(runs)

    def step(number: int) -> None:
        nonlocal state
        with torch.no_grad():
            _, state = net(losses[number % COLUMNS], state)

    return step


def cases(runs: int) -> dict[str, Step]:
    """Return a step of so many runs, by what takes it; all begin before their first."""
    paper, drift = shipped_model(PAPER).policy(), shipped_model(DRIFT).policy()
    return {
        BASELINE: torch_module(runs),
        "paper": Kernel(paper, runs, HORIZON).step,
        "drift": Kernel(drift, runs, HORIZON).step,
        "answers": Answers(drift, runs, HORIZON).step,
    }


def walk(runs: int) -> dict[str, float]:
    """Return the seconds that each case takes for the horizon; they alternate every BLOCK steps."""
    seconds = dict.fromkeys(steps := cases(runs), 0.0)
    for first in range(0, HORIZON, BLOCK):
        for name, step in steps.items():
            start = time.perf_counter()
            for number in range(first, first + BLOCK):
                step(number)
            seconds[name] += time.perf_counter() - start
    return seconds


def figures_of(walks: list[dict[str, float]], runs: int) -> dict[str, Any]:
    """Return µs a run a step, the mean over the horizon, and the ratio to the torch module."""
    taken = {name: [walked[name] for walked in walks] for name in walks[0]}
    return {
        name: {
            "us_per_run": float(np.median(values)) / HORIZON * 1e6 / runs,
            "ratio": blocks.ratio(values, taken[BASELINE]),
        }
        for name, values in taken.items()
    }


def measure(quick: bool) -> results.Figures:  # noqa: FBT001  # what every benchmark is given
    """Return the figures of each number of runs."""
    torch.set_num_threads(1)
    walk(1)  # machine code is loaded
    sizes = {runs: 1 for runs in PASSES if runs <= 256} if quick else PASSES
    return {str(runs): figures_of([walk(runs) for _ in range(n)], runs) for runs, n in sizes.items()}


if __name__ == "__main__":
    results.run(__file__, __doc__, measure)
