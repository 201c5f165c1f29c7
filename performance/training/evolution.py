"""How much faster meta-training by evolution is with workers, in updates per minute.

Both sides make the same updates, in alternating blocks, so that a ratio compares moments close
together. The median of the blocks' ratios counts; other work on the machine lowers it.

    python -m performance.training.evolution [--workers N] [--tasks-per-update N] [--blocks N]
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from contextlib import closing

import torch

from mlrs_train.evolution.engines.choice import EngineChoice
from mlrs_train.evolution.engines.engine import JobEngine
from mlrs_train.evolution.method import Evolution
from mlrs_train.evolution.settings import EvolutionSettings

UPDATES = 4
"""Updates in a block."""


def minutes_of_block(method: Evolution, engine: JobEngine) -> float:
    """Return how long some updates take."""
    method.engine, began = engine, time.monotonic()
    for _ in range(UPDATES):
        method.advance()
    return (time.monotonic() - began) / 60


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--tasks-per-update", type=int, default=4)
    parser.add_argument("--blocks", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(1)
    settings = EvolutionSettings(
        lesson_updates=0,
        tasks_per_update=options.tasks_per_update,
        first_tasks_per_update=options.tasks_per_update,
        min_horizon=50,
        max_horizon=100,
        population=20,
        log_every=10**6,
        validate_every=10**6,
    )
    alone, shared = Evolution(settings), Evolution(settings)
    here = EngineChoice(workers=1).open()
    rates: list[tuple[float, float]] = []
    with closing(EngineChoice(workers=options.workers).open()) as there:
        for block in range(options.blocks + 1):
            pair = minutes_of_block(alone, here), minutes_of_block(shared, there)
            if block:  # in the first, workers start and libraries are loaded
                rates.append((UPDATES / pair[0], UPDATES / pair[1]))
    assert torch.equal(alone.search.phi, shared.search.phi)
    print(
        f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, {options.tasks_per_update} tasks per update"
    )
    for name, values in zip(
        ("1 worker", f"{options.workers} workers"), zip(*rates, strict=True), strict=True
    ):
        print(f"{name}: {statistics.median(values):.1f} updates/min ({min(values):.1f} to {max(values):.1f})")
    ratios = sorted(many / one for one, many in rates)
    middle = statistics.median(ratios)
    print(f"ratio {middle:.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f}); phi is the same, bit for bit")


if __name__ == "__main__":
    main()
