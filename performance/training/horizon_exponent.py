"""How the best learning rate depends on the horizon: tuned at a quarter of the steps, and at all of them.

Every built-in row of the quality benchmark with 800 steps or more is tuned under `wsd` at a quarter of its
horizon, as the benchmark tunes it at the whole. The best rate of each is the minimum of a parabola through
the best point and its neighbours, in the logarithms of rate and validation loss. With rate ~ horizon**e, e
follows:

python -m performance.training.horizon_exponent --cells docs/quality/cells.jsonl.gz --cache FOLDER
"""

from __future__ import annotations

import argparse
import math
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from mlrs_bench.bench import Request, Table
from mlrs_bench.cache import read_cells
from mlrs_bench.cell import Cell

METHOD, FACTOR, LEAST = "tuned-wsd", 4, 800
TASKS = f"""
import dataclasses
from mlrs_bench.tasks import TASKS as BUILT_IN

MADE = [make() for make in BUILT_IN.values()]
TASKS = [
    dataclasses.replace(task, name=task.name + "-quarter", horizon=task.horizon // {FACTOR})
    for task in MADE
    if task.horizon >= {LEAST}
]
"""
"""The file of tasks."""


def best_octaves(cells: Iterable[Cell]) -> dict[tuple[str, str], float]:
    """Return the base-2 logarithm of the best learning rate, by task and optimizer."""
    losses: dict[tuple[str, str], dict[float, list[float]]] = defaultdict(lambda: defaultdict(list))
    for cell in cells:
        if cell.method == METHOD and cell.purpose == "tune" and cell.base_lr is not None:
            losses[cell.row][math.log2(cell.base_lr)].append(math.log(cell.valid_loss))
    return {
        row: _minimum({at: float(np.mean(each)) for at, each in by_rate.items()})
        for row, by_rate in losses.items()
    }


def _minimum(losses: dict[float, float]) -> float:
    """Return where a parabola through the least of some points and its neighbours is least."""
    rates = sorted(losses)
    index = min(range(len(rates)), key=lambda one: losses[rates[one]])
    if index in (0, len(rates) - 1):
        return rates[index]
    near = rates[index - 1 : index + 2]
    bend, slope, _ = np.polyfit(np.array(near) - near[1], [losses[one] for one in near], 2)
    return float(np.clip(near[1] - slope / (2 * bend), near[0], near[2]))


def main() -> None:
    """Tune at the short horizons, and print the exponent of each row, their mean and median."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--cells", type=Path, required=True, help="results of `mlrs bench quality --save`")
    parser.add_argument("--cache", type=Path, required=True, help="the folder where results are kept")
    options = parser.parse_args()
    options.cache.mkdir(parents=True, exist_ok=True)
    file = options.cache / "quarter_tasks.py"
    file.write_text(TASKS, encoding="utf-8")
    names = _names(file)
    table = Table(
        Request(cache=options.cache, tasks=tuple(names), methods=(METHOD,), seeds=1, task_file=file)
    )
    table.run(workers=1, watch=lambda state, _: print(f"\r{state.cells_done} of {state.cells}", end=""))
    short, whole = best_octaves(table.cells()), best_octaves(read_cells(options.cells).values())
    exponents = []
    print()
    for (task, optimizer), at in sorted(short.items()):
        longer = whole[task.removesuffix("-quarter"), optimizer]
        exponents.append((longer - at) / math.log2(FACTOR))
        print(f"{task:32} {optimizer:6} 2**{at:+.2f} -> 2**{longer:+.2f}: {exponents[-1]:+.2f}")
    error = np.std(exponents, ddof=1) / math.sqrt(len(exponents))
    mean, median = np.mean(exponents), np.median(exponents)
    print(f"mean {mean:+.2f} ± {2 * error:.2f} (two standard errors), median {median:+.2f}")


def _names(file: Path) -> list[str]:
    from mlrs_bench.tasks.task_file import load_task_file

    return [task.name for task in load_task_file(file, taken=())]


if __name__ == "__main__":
    main()
