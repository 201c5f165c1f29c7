"""How much two models differ: in their weights, and in the learning rates that they advise."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mlrs_core.advise import advise
from mlrs_core.config import Optimizer, RunConfig
from mlrs_core.models.model import Model
from mlrs_core.policy import Floats, no_networks, table_of

STEPS = 1000
"""The length of a reference training, in steps."""
CONFIG = RunConfig(horizon=STEPS, num_classes=10, optimizer=Optimizer.MOMENTUM, momentum=0.9)
"""The config of a reference training."""
COLORS = ("#0072b2", "#d55e00")
"""The colours of the two models, by Okabe and Ito: the colour-blind can distinguish them."""
DPI = 85


@dataclass(frozen=True)
class RateComparison:
    """Learning rates of two models for the same losses."""

    curve: str
    """The losses' name."""
    first: Floats
    """The learning rates of the first model, (STEPS,)."""
    second: Floats
    """The learning rates of the second model, (STEPS,)."""

    @property
    def logs(self) -> Floats:
        """The absolute logarithms of their ratios, step by step, (STEPS,)."""
        distances: Floats = np.abs(np.log(self.second / self.first))
        return distances


def reference_losses() -> dict[str, Floats]:
    """Return the losses of four made-up trainings, in nats, (STEPS,) each: the same on every machine."""
    steps = np.arange(STEPS)
    falling = math.log(10) * (1 + steps / 50) ** -0.7
    rng = np.random.default_rng(0)
    jump = np.where((steps >= STEPS // 2) & (steps < STEPS // 2 + STEPS // 10), 3.0, 1.0)
    return {
        "falling": falling,
        "plateau": 1.2 + (math.log(10) - 1.2) * np.exp(-steps / 60),
        "noisy": falling * np.exp(rng.normal(0, 0.3, STEPS)),
        "jump": falling * jump,
    }


def rates_of(model: Model, losses: Floats) -> Floats:
    """Return the learning rates that a model advises for losses, (STEPS,) both."""
    policy = model.policy()
    rows, steps = np.zeros(STEPS, np.int64), np.arange(STEPS)
    state, last = policy.init_state(1), np.full(1, np.nan)
    return advise(policy, state, no_networks(policy, 1), table_of([CONFIG]), rows, steps, losses, last)


def compare_rates(first: Model, second: Model) -> list[RateComparison]:
    """Return the learning rates of two models on the reference trainings."""
    return [
        RateComparison(name, rates_of(first, losses), rates_of(second, losses))
        for name, losses in reference_losses().items()
    ]


def weight_changes(first: Model, second: Model) -> dict[str, list[float]] | None:
    """Return how far each weight tensor went, and all of them: the difference's norm over the first's.

    Returns:
        By name, one a snapshot; `None` if the models are not of one architecture.
    """
    alike = first.architecture.to_json() == second.architecture.to_json()
    if not alike or len(first.snapshots) != len(second.snapshots):
        return None
    pairs = list(zip(first.snapshots, second.snapshots, strict=True))
    changes = {name: [_relative([one[name]], [other[name]]) for one, other in pairs] for name in pairs[0][0]}
    changes["all"] = [
        _relative([one[name] for name in one], [other[name] for name in one]) for one, other in pairs
    ]
    return changes


def _relative(before: Sequence[Any], after: Sequence[Any]) -> float:
    old, new = (
        np.concatenate([np.ravel(array) for array in arrays]).astype(float) for arrays in (before, after)
    )
    change, size = float(np.linalg.norm(new - old)), float(np.linalg.norm(old))
    return change / size if size else math.inf if change else 0.0


def draw(compared: Sequence[RateComparison], names: tuple[str, str], path: Path) -> None:
    """Draw the learning rates of two models as a PNG.

    Raises:
        ModuleNotFoundError: matplotlib is missing.
        OSError: the file cannot be written.
    """
    # Not pyplot: it would look for a display.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 6), layout="constrained")
    grid: Any = figure.subplots(2, math.ceil(len(compared) / 2), squeeze=False)
    for axis, one in zip(grid.ravel(), compared, strict=False):
        for rates, name, color in zip((one.first, one.second), names, COLORS, strict=True):
            axis.semilogy(rates, label=name, color=color, linewidth=1.3)
        axis.set_title(one.curve, fontsize=10, loc="left")
        axis.grid(visible=True, which="major", alpha=0.25)
        axis.spines[["top", "right"]].set_visible(False)
        axis.set_xlabel("step", fontsize=9)
    grid[0, 0].set_ylabel("learning rate", fontsize=9)
    grid[0, 0].legend(frameon=False, fontsize=8)
    FigureCanvasAgg(figure)
    figure.savefig(path, format="png", dpi=DPI, metadata={"Software": "mlrs"})
