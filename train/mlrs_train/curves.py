"""The log of a training as a picture: a row of panels per task, losses and learning rate."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlrs_train.method import LogRecord


@dataclass(frozen=True)
class Panel:
    """What is drawn beside each other."""

    title: str
    unit: str
    lines: Mapping[str, tuple[str | None, Mapping[str, Any]]]
    """Label and style by the name of the value, the first at the back."""
    logarithmic: bool = True


PANELS = (
    Panel(
        "loss",
        "cross-entropy (nats)",
        {
            "validation_loss": (
                "held out, after the virtual step",
                {"color": "#b9cbe4", "linewidth": 0.8},
            ),
            "train_loss": ("training", {"color": "#1f4e8c", "linewidth": 1.2}),
        },
    ),
    Panel(
        "learning rate", "learning rate", {"learning_rate": (None, {"color": "#b5482a", "linewidth": 1.0})}
    ),
    Panel(
        "held-out tasks, above the best of 46 schedules: median",
        "ln (loss / its loss)",
        {
            "held_out_schedule": ("a search alone", {"color": "#999999", "linewidth": 1.0}),
            "held_out_alone": ("the default rate, no search", {"color": "#b9cbe4", "linewidth": 1.0}),
            "held_out_losses": ("a search, losses only", {"color": "#b5482a", "linewidth": 1.0}),
            "held_out_signals": ("and signals", {"color": "#4c8c4a", "linewidth": 1.0}),
            "held_out_all": ("and validation losses", {"color": "#1f4e8c", "linewidth": 1.4}),
        },
        logarithmic=False,
    ),
    Panel(
        "held-out tasks, above the best of 46 schedules: mean",
        "ln (loss / its loss)",
        {
            "held_out_schedule_mean": ("a search alone", {"color": "#999999", "linewidth": 1.0}),
            "held_out_alone_mean": ("the default rate, no search", {"color": "#b9cbe4", "linewidth": 1.0}),
            "held_out_losses_mean": ("a search, losses only", {"color": "#b5482a", "linewidth": 1.0}),
            "held_out_signals_mean": ("and signals", {"color": "#4c8c4a", "linewidth": 1.0}),
            "held_out_all_mean": ("and validation losses", {"color": "#1f4e8c", "linewidth": 1.4}),
        },
        logarithmic=False,
    ),
)
"""Every panel there is; a task has those whose values it logs, two of them."""
DPI = 85
"""Pixels per inch: 935 across."""


def draw_curves(records: Sequence[LogRecord], path: Path, *, title: str) -> None:
    """Draw a training's losses and learning rates as a PNG."""
    # Not pyplot: it would look for a display, and keep every figure alive.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    tasks = list(dict.fromkeys(record.task for record in records))
    figure = Figure(figsize=(11, 0.9 + 2.7 * max(len(tasks), 1)), layout="constrained")
    figure.suptitle(title, fontsize=12, fontweight="bold", x=0.01, ha="left")
    grid: Any = figure.subplots(max(len(tasks), 1), 2, squeeze=False, sharex="row")
    for axes, task in zip(grid, tasks, strict=False):
        chosen = [record for record in records if record.task == task]
        logged = {name for record in chosen for name in record.values}
        for axis, panel in zip(
            axes, (panel for panel in PANELS if logged & panel.lines.keys()), strict=False
        ):
            _draw(axis, chosen, panel, task)
    for axis in grid[-1]:
        axis.set_xlabel("step", fontsize=9)
    FigureCanvasAgg(figure)
    figure.savefig(path, format="png", dpi=DPI, metadata={"Software": "mlrs"})


def _draw(axis: Any, records: Sequence[LogRecord], panel: Panel, task: str) -> None:
    for name, (label, style) in panel.lines.items():
        points = [
            (record.step, value) for record in records if (value := record.values.get(name)) is not None
        ]
        if points:
            marker = "." if len(points) < 20 else None
            axis.plot(*zip(*points, strict=True), marker=marker, label=label, **style)
    axis.set_title(f"{task}: {panel.title}", fontsize=10, loc="left")
    axis.set_ylabel(panel.unit, fontsize=9)
    if axis.lines and panel.logarithmic:
        _logarithmic(axis)
    if any(label for label, _ in panel.lines.values()):
        axis.legend(frameon=False, fontsize=8)
    axis.grid(visible=True, which="major", alpha=0.25)
    axis.spines[["top", "right"]].set_visible(False)
    axis.tick_params(labelsize=8)


def _logarithmic(axis: Any) -> None:
    from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

    axis.set_yscale("log")
    low, high = axis.get_ylim()
    axis.yaxis.set_major_locator(LogLocator(subs=(1, 1.5, 2, 3, 5, 7) if high < 30 * low else (1,)))
    axis.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axis.yaxis.set_minor_formatter(NullFormatter())
