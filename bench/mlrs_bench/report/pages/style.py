"""What the report's pictures share: colours, sizes, the file format."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlrs_bench.report.figures.methods import ADVISED, BEST_TUNED, CONSTANT, COSINE

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DPI = 85
"""Pixels per inch: 935 across, about what a README shows."""
WIDTH = 11.0
"""Inches."""

LINES: dict[str, dict[str, Any]] = {
    CONSTANT: {"color": "#7f7f7f", "linestyle": ":", "linewidth": 1.4},
    COSINE: {"color": "#009e73", "linestyle": "-.", "linewidth": 1.4},
    BEST_TUNED: {"color": "#0072b2", "linestyle": "--", "linewidth": 1.6},
    ADVISED: {"color": "#d55e00", "linestyle": "-", "linewidth": 1.8},
}
"""How the methods that curves show are drawn, the first at the back: colours of Okabe and Ito, which
the colour-blind can distinguish, and a dash pattern each."""

GROUPS: tuple[dict[str, Any], ...] = (
    {"color": "#000000", "marker": "o", "markersize": 7, "linewidth": 2.0},
    {"color": "#d55e00", "marker": "s", "markersize": 5, "linewidth": 1.2},
    {"color": "#0072b2", "marker": "^", "markersize": 5, "linewidth": 1.2},
    {"color": "#009e73", "marker": "D", "markersize": 5, "linewidth": 1.2},
    {"color": "#cc79a7", "marker": "v", "markersize": 5, "linewidth": 1.2},
)
"""How groups of rows are drawn: all rows, then an optimizer each, from the start again past the last."""


def new_figure(height: float, title: str) -> Figure:
    """Return an empty figure of the report's width, its height in inches."""
    # Not pyplot: it would look for a display, and keep every figure alive.
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    figure.suptitle(title, fontsize=12, fontweight="bold", x=0.01, ha="left")
    return figure


def save(figure: Figure, path: Path) -> None:
    """Write a figure as a PNG."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    FigureCanvasAgg(figure)
    figure.savefig(path, format="png", dpi=DPI, metadata={"Software": "mlrs"})
