"""What a rewind costs: reading a run's record, replaying it, and dropping what comes after, per 1,000 steps.

python -m performance.daemon.rewind
"""

from __future__ import annotations

import asyncio
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from mlrs_core.config import RunConfig
from mlrs_server.ops.compaction import compact_round
from mlrs_server.runs.open_request import OpenRequest
from tests.server.support import harness, observed
from tests.support.postgres import PostgresServer
from tests.support.reliability import save

STEPS, FLUSH, REPEATS = 50_000, 50, 9
"""Of the run; of each of its chunks; and how often it is rewound to its middle."""
CONFIG = RunConfig(horizon=STEPS, num_classes=10)


async def measure(store: str | None) -> dict[str, float]:
    """Return the milliseconds per 1,000 steps replayed, of chunks as flushed, and merged."""
    losses = np.abs(np.random.default_rng(1).normal(2.0, 0.5, STEPS)) + 0.01
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as folder:
        async with harness(Path(folder), None, store=store) as here:
            figures = {}
            for name in ("as flushed", "merged"):
                await observe(here, 0, losses)
                if name == "merged":
                    await compact_round(here.live, here.stored, time.time() + 1)
                taken = []
                for repeat in range(REPEATS):
                    step = STEPS - 2500 * (repeat + 1)
                    began = time.perf_counter()
                    await here.open_one(OpenRequest(run_id="run", resume_from=step))
                    taken.append(1e3 * (time.perf_counter() - began) / (step / 1000))
                figures[name] = statistics.median(taken)
                await here.ending.delete("run")
    return figures


async def observe(here: Any, start: int, losses: Any) -> None:
    """Have a run observed from a step on, flushed every so many steps."""
    handle = (await here.open_one(OpenRequest(run_id="run", asked=CONFIG))).handle
    for first in range(start, len(losses), FLUSH):
        some = losses[first : first + FLUSH]
        steps = np.arange(first, first + len(some))
        await here.engine.answer(observed(np.full(len(some), handle), steps, some))
        await here.live.journal.flush()


def main() -> None:
    """Measure both engines, print the figures, and save them for docs/reliability.md."""
    began = time.monotonic()
    figures = {"sqlite": asyncio.run(measure(None))}
    server = PostgresServer(durable=True)
    try:
        figures["postgresql"] = asyncio.run(measure(server.new_database()))
    finally:
        server.remove()
    print(json.dumps(figures, indent=2))
    per_1000_steps = {
        f"{engine}_{chunks.replace(' ', '_')}_ms": round(taken, 1)
        for engine, both in figures.items()
        for chunks, taken in both.items()
    }
    save("rewind", "python -m performance.daemon.rewind", began, time.monotonic(), **per_1000_steps)


if __name__ == "__main__":
    main()
