"""The page and the pictures of what the scripts measured, from the files that they saved.

python -m performance.report [--results FOLDER] [--out FOLDER]
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from performance.report import plots, results, summaries, tables

OUT = Path(__file__).parents[2] / "docs" / "performance"
TITLES = {
    "latency": "A lone training loop",
    "stalled": "A daemon that is stopped",
    "kernels": "Without a wire",
    "adapting": "Meta mode without a wire",
    "signals": "Signals of a training",
    "load": "Many training processes",
    "columns": "Sweeps",
    "live_runs": "Many live runs",
    "ranks": "Many ranks of one run",
    "processes": "Several processes",
    "startup": "Starting",
    "meta_mode": "Meta mode beside others",
    "loop_lag": "The event loop",
    "records": "Pages about runs",
    "page_load": "The dashboard",
}


def section(name: str, result: dict[str, Any]) -> str:
    """Return the page's section of a benchmark."""
    parts = [
        f"## {TITLES[name]}\n",
        f"Made by `{result['command']}` in {result['seconds']:.0f} s, {_described(result['machine'])}.\n",
    ]
    if name in plots.PLOTS:
        parts.append(f"![{TITLES[name]}]({name}.png)\n")
    return "\n".join(parts + [tables.markdown(table) for table in summaries.TABLES[name](result["figures"])])


def _described(machine: dict[str, Any]) -> str:
    packages = ", ".join(f"{package} {version}" for package, version in machine["packages"].items())
    loads = ", ".join(f"{load:.2f}" for load in machine["load_average_at_start"])
    return (
        f"{machine['date']}: {machine['cpu']}, {machine['cores']} cores, {machine['memory_gib']} GiB, "
        f"{machine['system']}, Python {machine['python']}, {packages}; load average at the start {loads}"
    )


def page(saved: dict[str, dict[str, Any]]) -> str:
    """Return the page."""
    intro = (
        "# What advice costs: figures\n\n"
        "Written by `python -m performance.report`, the last step of `make performance`; "
        "[performance](../performance.md) says what follows from it. Everything is compared with a baseline "
        "that is measured in the same run, in alternating blocks: ratios carry from machine to machine, "
        "microseconds do not. The echo is a bare `grpc.aio` server on uvloop that parses and answers "
        "messages of the same sizes.\n"
    )
    return "\n".join([intro, *(section(name, result) for name, result in saved.items())])


def main() -> None:
    """Write the page and the pictures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--results", type=Path, default=results.FOLDER, help="where the scripts saved")
    parser.add_argument("--out", type=Path, default=OUT, help="where to write")
    options = parser.parse_args()
    loaded = {name: results.load(name, options.results) for name in TITLES}
    saved = {name: result for name, result in loaded.items() if result is not None}
    options.out.mkdir(parents=True, exist_ok=True)
    for name in saved.keys() & plots.PLOTS.keys():
        plots.save(plots.PLOTS[name](saved[name]["figures"]), options.out / f"{name}.png")
    (options.out / "figures.md").write_text(page(saved), encoding="utf-8")
    missing = ", ".join(loaded.keys() - saved.keys())
    print(f"wrote {options.out}" + (f"; not measured yet: {missing}" if missing else ""))


if __name__ == "__main__":
    main()
