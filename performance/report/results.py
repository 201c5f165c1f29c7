"""What a benchmark's script is made of: its options, the machine it ran on, the file that it writes."""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

from performance.report import summaries, tables

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "performance" / "results"
"""Where the files are; git ignores it."""
PACKAGES = ("grpcio", "protobuf", "uvloop", "numpy", "numba", "torch")
"""Whose versions matter."""

Figures = dict[str, Any]
"""What was measured, as JSON values."""


def run(script: str, document: str | None, measure: Callable[[bool], Figures]) -> None:
    """Be the script of a benchmark: measure, print tables and save.

    Args:
        script: the path of the script; its file has the same name.
        document: what the script says of itself.
        measure: returns figures; it is given whether to be quick about it.
    """
    path = Path(script).relative_to(ROOT).with_suffix("")
    name = path.stem
    parser = argparse.ArgumentParser(description=document, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few and short blocks: a try, not a measurement")
    parser.add_argument("--json", type=Path, default=FOLDER / f"{name}.json", help="where to save")
    options = parser.parse_args()
    here, began = machine(), time.monotonic()
    figures = measure(options.quick)
    result = {
        "command": f"python -m {'.'.join(path.parts)}" + (" --quick" if options.quick else ""),
        "machine": here,
        "seconds": round(time.monotonic() - began, 1),
        "figures": figures,
    }
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    for table in summaries.TABLES[name](figures):
        tables.show(table)
    print(f"{result['seconds']} s; saved to {options.json}")


def load(name: str, folder: Path = FOLDER) -> dict[str, Any] | None:
    """Return what a benchmark saved; `None` if it has not run."""
    file = folder / f"{name}.json"
    return json.loads(file.read_text(encoding="utf-8")) if file.exists() else None


def machine() -> dict[str, Any]:
    """Describe the machine, and how busy it is now."""
    return {
        "cpu": _cpu_model(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30, 1),
        "system": f"{platform.system()} {platform.release().partition('-')[0]}",
        "python": platform.python_version(),
        "packages": {name: version(name) for name in PACKAGES},
        "load_average_at_start": [round(load, 2) for load in os.getloadavg()],
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
    }


def _cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()
