"""What the ranks of a job wrote of their steps, before and after a restart, and how it is drawn."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

Steps = dict[int, dict[str, Any]]
"""By step: its learning rate, the rank's loss, and the process."""
Job = list[tuple[Steps, Steps]]
"""Of each rank, the steps before and after a restart."""


def record_of(folder: Path, rank: int, attempt: int) -> Path:
    """Return the file to which a rank writes a line for each step; attempt 1 is after the restart."""
    return folder / f"rank-{rank}-attempt-{attempt}.jsonl"


def steps_in(record: Path) -> Steps:
    """Return the steps that a rank wrote; none, if it has not begun."""
    text = record.read_text(encoding="utf-8") if record.exists() else ""
    whole = text.rpartition("\n")[0].splitlines()  # the last line may be half written
    return {step["step"]: step for step in map(json.loads, whole)}


def draw(undisturbed: Job, killed: Job, path: Path) -> None:
    """Draw the losses and the learning rates of a killed job, and those of an undisturbed one underneath."""
    figure = Figure(figsize=(9, 6.5), layout="constrained")
    losses, rates = figure.subplots(2, 1, sharex=True)
    for axes, name in ((losses, "loss"), (rates, "lr")):
        _draw_ranks(axes, name, undisturbed, killed)
        (before, after) = killed[0]
        axes.axvline(max(before), color="black", linewidth=1.2, label="rank 0 killed (kill -9)")
        axes.axvline(min(after), color="black", linewidth=1.2, linestyle=":", label="both go on from here")
        axes.grid(alpha=0.25)
    losses.set(yscale="log", ylabel="training loss of the rank, nats")
    rates.set(ylabel="learning rate", xlabel="step")
    rates.legend(frameon=False, loc="upper right")
    figure.savefig(path, dpi=150)


def _draw_ranks(axes: Axes, name: str, undisturbed: Job, killed: Job) -> None:
    for rank, (steps, _) in enumerate(undisturbed):
        values = [step[name] for step in steps.values()]
        label = None if rank else "the undisturbed job, both ranks"
        axes.plot(list(steps), values, color="#c4cad4", linewidth=5, label=label, zorder=1)
    for rank, (color, style) in enumerate([("#2e86ab", "-"), ("#d1495b", "--")]):
        for attempt, steps in enumerate(killed[rank]):
            values = [step[name] for step in steps.values()]
            label = None if attempt else f"the killed job, rank {rank}"
            axes.plot(list(steps), values, style, color=color, linewidth=1.3, label=label)
