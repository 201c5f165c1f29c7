"""Pictures of how figures grow, one a benchmark."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure  # not pyplot: it would look for a display

DPI = 85
"""Pixels per inch."""
WIDTH, HEIGHT = 11.0, 3.8
"""Inches."""
ECHO: dict[str, Any] = {"color": "#7f7f7f", "linestyle": ":", "marker": "o"}
DAEMON: dict[str, Any] = {"color": "#d55e00", "linestyle": "-", "marker": "s"}
OTHERS: tuple[dict[str, Any], ...] = (
    {"color": "#0072b2", "linestyle": "--", "marker": "^"},
    {"color": "#009e73", "linestyle": "-.", "marker": "D"},
    {"color": "#cc79a7", "linestyle": "--", "marker": "v"},
)
"""How sides are drawn: colours of Okabe and Ito, which the colour-blind can distinguish, and a dash pattern
and a marker each."""

Figures = dict[str, Any]
Lines = dict[str, tuple[Sequence[float], dict[str, Any]]]
"""Values and how they are drawn, by name."""


def kernels(figures: Figures) -> Figure:
    """Draw what a step costs by how many runs take it together."""
    named = {
        "torch": ("torch module, `paper`", ECHO),
        "paper": ("`paper` kernel", OTHERS[0]),
        "drift": ("`drift` kernel", OTHERS[1]),
        "answers": ("`drift`, the whole answer", DAEMON),
    }
    lines: Lines = {
        title: ([row[name]["us_per_run"] for row in figures.values()], style)
        for name, (title, style) in named.items()
    }
    figure, (axes,) = _panels("A step in process", 1)
    _draw(axes, "µs a run a step", "runs that step together", _numbers(figures), lines)
    return figure


def load(figures: Figures) -> Figure:
    """Draw CPU, messages and latency by the number of streams."""
    by_streams = figures["streams"]
    figure, (cpu, rate, wait) = _panels("Many streams at once", 3)
    for axes, title, key in (
        (cpu, "server's CPU µs a message", "server_us"),
        (rate, "messages per second", "rate"),
    ):
        _draw(axes, title, "streams", _numbers(by_streams), _both(by_streams, key, 1.0), log=False)
    waits = _both(by_streams, "p50_us", 1e-3) | {
        f"{name}, p99": (values, style | {"alpha": 0.45})
        for name, (values, style) in _both(by_streams, "p99_us", 1e-3).items()
    }
    _draw(wait, "ms to the answer, p50 and p99", "streams", _numbers(by_streams), waits)
    return figure


def columns(figures: Figures) -> Figure:
    """Draw entries per second by entries in a message."""
    named = {
        "echo/1": ("echo, 1 on its way", ECHO),
        "echo/4": ("echo, 4", ECHO | {"alpha": 0.45}),
        "in_process": ("in process", OTHERS[1]),
        "daemon/1": ("daemon, 1 on its way", DAEMON),
        "daemon/2": ("daemon, 2", OTHERS[0]),
        "daemon/4": ("daemon, 4", OTHERS[2]),
    }
    lines: Lines = {
        title: ([row[name]["rate"] for row in figures.values()], style)
        for name, (title, style) in named.items()
    }
    figure, (axes,) = _panels("Steps of many runs in a message", 1)
    _draw(axes, "entries per second", "entries in a message", _numbers(figures), lines)
    return figure


def live_runs(figures: Figures) -> Figure:
    """Draw the wait for advice and memory by the number of live runs."""
    runs = figures["runs"]
    figure, (wait, memory) = _panels("Live runs in one daemon", 2)
    ratios: Lines = {
        "a daemon with 1 run": ([row["alone_ratio"]["median"] for row in runs.values()], DAEMON),
        "an echo": ([row["echo_ratio"]["median"] for row in runs.values()], ECHO),
    }
    _draw(wait, "advice about one run, p50, over that of", "live runs", _numbers(runs), ratios, log=False)
    megabytes: Lines = {"daemon": ([row["rss"] / 2**20 for row in runs.values()], DAEMON)}
    _draw(memory, "memory, MiB", "live runs", _numbers(runs), megabytes, log=False)
    return figure


def ranks(figures: Figures) -> Figure:
    """Draw what a step takes by the number of ranks that report."""
    figure, (step, cpu) = _panels("One run, many ranks", 2)
    named = {
        "daemon/each": ("daemon, a stream a rank", DAEMON),
        "echo/each": ("echo, as many streams", ECHO),
        "daemon/one": ("daemon, all in one message", OTHERS[0]),
        "echo/one": ("echo, one message", ECHO | {"alpha": 0.45}),
    }
    for axes, title, key in (
        (step, "ms a step, all ranks", "step_us"),
        (cpu, "server's CPU ms a step", "server_us"),
    ):
        lines: Lines = {
            name: ([row[case][key] / 1e3 for row in figures.values()], style)
            for case, (name, style) in named.items()
        }
        _draw(axes, title, "ranks", _numbers(figures), lines)
    return figure


PLOTS: dict[str, Callable[[Figures], Figure]] = {
    "kernels": kernels,
    "load": load,
    "columns": columns,
    "live_runs": live_runs,
    "ranks": ranks,
}
"""By benchmark."""


def save(figure: Figure, path: Path) -> None:
    """Write a figure as a PNG."""
    FigureCanvasAgg(figure)
    figure.savefig(path, format="png", dpi=DPI, metadata={"Software": "mlrs"})


def _panels(title: str, count: int) -> tuple[Figure, list[Axes]]:
    figure = Figure(figsize=(WIDTH, HEIGHT), layout="constrained")
    figure.suptitle(title, fontsize=12, fontweight="bold", x=0.01, ha="left")
    return figure, [figure.add_subplot(1, count, index + 1) for index in range(count)]


def _draw(axes: Axes, title: str, over: str, at: list[int], lines: Lines, *, log: bool = True) -> None:
    for name, (values, style) in lines.items():
        axes.plot(at, values, label=name, markersize=5, linewidth=1.6, **style)
    axes.set_xscale("log")
    axes.set_xticks(at, [f"{number:,}" for number in at])
    axes.minorticks_off()
    if log:
        axes.set_yscale("log")
    else:
        axes.set_ylim(bottom=0)
    axes.set_title(title, fontsize=10, loc="left")
    axes.set_xlabel(over)
    axes.grid(visible=True, alpha=0.3)
    axes.legend(fontsize=8)


def _numbers(figures: Figures) -> list[int]:
    return [int(name) for name in figures]


def _both(figures: Figures, key: str, scale: float) -> Lines:
    styles = {"daemon": DAEMON, "echo": ECHO}
    return {
        name: ([row[name][key] * scale for row in figures.values()], style) for name, style in styles.items()
    }
