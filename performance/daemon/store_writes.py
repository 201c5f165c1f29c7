"""What a flush costs: 1,000 runs' chunks and snapshots in one transaction, by engine and how durable.

python -m performance.daemon.store_writes
"""

from __future__ import annotations

import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

from mlrs_server.storage import SqlStore, open_store
from tests.server.storage.stored import new_run, snapshot_at, stretch, updates
from tests.support.postgres import PostgresServer

RUNS, STEPS, FLUSHES = 1000, 35, 20
"""A chunk of 35 steps is 599 bytes."""


def measure() -> dict[str, Any]:
    """Return the milliseconds of a flush of each engine."""
    figures: dict[str, Any] = {"runs": RUNS, "bytes": 17 * STEPS + 4, "ms": {}}
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as folder:
        figures["fsync_ms"] = _fsync_ms(Path(folder) / "probe")
        for level in ("NORMAL", "FULL"):
            where = Path(folder) / f"{level}.sqlite3"
            figures["ms"][f"sqlite {level}"] = _flushes(lambda: open_store(where), level)  # noqa: B023  # it is called before the loop goes on
    for durable in (False, True):
        server = PostgresServer(durable=durable)
        try:
            name = f"postgresql fsync {'on' if durable else 'off'}"
            figures["ms"][name] = _flushes(lambda: open_store(server.new_database()))  # noqa: B023  # it is called before the loop goes on
        finally:
            server.remove()
    return figures


def _flushes(opened: Callable[[], SqlStore], level: str = "") -> dict[str, float]:
    """Return how long flushes of all runs, and of one, take in the middle, in milliseconds."""
    with closing(opened()) as store:
        if level:
            with store.reading() as connection:
                driver: Any = connection.connection.driver_connection
            driver.execute(f"PRAGMA synchronous = {level}")
        created = store.create([new_run(f"run-{index}") for index in range(RUNS)])
        many, one = [], []
        for flush in range(FLUSHES):
            start, end = flush * STEPS, (flush + 1) * STEPS
            rows = [(run, start, stretch(start, end), snapshot_at(end)) for run in created]
            many.append(_timed(store, rows[1:]))
            one.append(_timed(store, rows[:1]))
    return {"1000 rows": statistics.median(many), "1 row": statistics.median(one), "worst": max(many)}


def _timed(store: SqlStore, rows: Any) -> float:
    update = updates(rows)
    began = time.perf_counter()
    store.append([update])
    return 1e3 * (time.perf_counter() - began)


def _fsync_ms(path: Path) -> float:
    """Return how long the disk takes to make a write durable."""
    taken = []
    with path.open("wb", buffering=0) as file:
        for _ in range(50):
            file.write(b"x" * 4096)
            began = time.perf_counter()
            os.fsync(file.fileno())
            taken.append(time.perf_counter() - began)
    return 1e3 * statistics.median(taken)


if __name__ == "__main__":
    print(json.dumps(measure(), indent=2))
