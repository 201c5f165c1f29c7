"""The log of a training as a picture: a row of panels per task, losses and learning rate."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mlrs_train.method import Record

LOSSES = {
    "validation_loss": ("held out, after the virtual step", {"color": "#b9cbe4", "linewidth": 0.8}),
    "train_loss": ("training", {"color": "#1f4e8c", "linewidth": 1.2}),
}
"""The lines in a panel of losses, the first at the back: label and style."""
RATE = {"color": "#b5482a", "linewidth": 1.0}
"""The style of a learning rate."""
DPI = 85
"""Pixels per inch: 935 across."""


def draw_curves(records: Sequence[Record], path: Path, *, title: str) -> None:
    """Draw a training's losses and learning rates as a PNG."""
    # Not pyplot: it would look for a display, and keep every figure alive.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    tasks = list(dict.fromkeys(record.task for record in records))
    figure = Figure(figsize=(11, 0.9 + 2.7 * max(len(tasks), 1)), layout="constrained")
    figure.suptitle(title, fontsize=12, fontweight="bold", x=0.01, ha="left")
    grid: Any = figure.subplots(max(len(tasks), 1), 2, squeeze=False, sharex="row")
    for (losses, rates), task in zip(grid, tasks, strict=False):
        chosen = [record for record in records if record.task == task]
        for name, (label, style) in LOSSES.items():
            _line(losses, chosen, name, label=label, **style)
        _line(rates, chosen, "learning_rate", **RATE)
        _dress(losses, f"{task}: loss", "cross-entropy (nats)")
        _dress(rates, f"{task}: learning rate", "learning rate")
        losses.legend(frameon=False, fontsize=8)
    for panel in grid[-1]:
        panel.set_xlabel("step of the base learner", fontsize=9)
    FigureCanvasAgg(figure)
    figure.savefig(path, format="png", dpi=DPI, metadata={"Software": "mlrs"})


def _line(panel: Any, records: Sequence[Record], name: str, **style: Any) -> None:
    points = [(record.step, value) for record in records if (value := record.values.get(name)) is not None]
    if points:
        marker = "." if len(points) < 20 else None
        panel.plot(*zip(*points, strict=True), marker=marker, **style)


def _dress(panel: Any, title: str, unit: str) -> None:
    from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

    panel.set_title(title, fontsize=10, loc="left")
    panel.set_ylabel(unit, fontsize=9)
    if panel.lines:
        panel.set_yscale("log")
        low, high = panel.get_ylim()
        panel.yaxis.set_major_locator(LogLocator(subs=(1, 1.5, 2, 3, 5, 7) if high < 30 * low else (1,)))
        panel.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        panel.yaxis.set_minor_formatter(NullFormatter())
    panel.grid(visible=True, which="major", alpha=0.25)
    panel.spines[["top", "right"]].set_visible(False)
    panel.tick_params(labelsize=8)
