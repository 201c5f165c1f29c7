"""Pictures over rows: gap closed with its intervals, and who beats whom."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mlrs_bench.report.figures.bootstrap import Estimate
from mlrs_bench.report.figures.comparisons import Matchup
from mlrs_bench.report.figures.methods import ADVISED
from mlrs_bench.report.figures.summary import Summary
from mlrs_bench.report.figures.targets import EVERY
from mlrs_bench.report.pages.style import GROUPS, new_figure, save

LEFT, RIGHT = -1.0, 2.0
"""Gap closed beyond these is drawn as an arrow with its figure: one bad method would squash the rest."""


def draw_gaps(summary: Summary, path: Path) -> None:
    """Draw the interquartile mean of gap closed by method, with its intervals, as a PNG."""
    methods = [method for method in summary.methods if (summary.groups[0], method) in summary.comparisons]
    figure = new_figure(1.4 + 0.42 * len(methods), "Gap to the best tuned schedule closed")
    axis: Any = figure.subplots()
    for number, group in enumerate(summary.groups):
        offset = 0.7 * ((number + 0.5) / len(summary.groups) - 0.5)
        for line, method in enumerate(methods):
            comparison = summary.comparisons.get((group, method))
            if comparison is not None and comparison.gap is not None:
                _interval(axis, comparison.gap, line + offset, GROUPS[number % len(GROUPS)])
        axis.plot([], [], label="all rows" if group == EVERY else group, **GROUPS[number % len(GROUPS)])
    for value, name in ((0.0, "default constant"), (1.0, "best tuned")):
        axis.axvline(value, color="#999999", linewidth=0.8, zorder=0)
        axis.text(value, -1.0, name, fontsize=8, color="#666666", ha="center")
    axis.set_xlim(LEFT - 0.1, RIGHT + 0.1)
    axis.set_ylim(len(methods) - 0.4, -0.9)
    _methods(axis.yaxis, methods)
    axis.set_xlabel("interquartile mean, 95 % interval; further right is better", fontsize=9)
    axis.grid(visible=True, axis="x", alpha=0.25)
    axis.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside lower left", ncols=len(summary.groups), frameon=False, fontsize=9)
    save(figure, path)


def _interval(axis: Any, estimate: Estimate, line: float, style: Mapping[str, Any]) -> None:
    if not LEFT <= estimate.point <= RIGHT:
        left = estimate.point < LEFT
        edge, arrow = (LEFT, "<") if left else (RIGHT, ">")
        axis.plot([edge], [line], **{**style, "marker": arrow})
        shift = (6, -3) if left else (-6, -3)
        axis.annotate(
            f"{estimate.point:.1f}",
            (edge, line),
            xytext=shift,
            textcoords="offset points",
            fontsize=7,
            ha="left" if left else "right",
        )
        return
    ends = np.clip([estimate.low, estimate.high], LEFT, RIGHT)
    axis.plot(ends, [line, line], color=style["color"], linewidth=style["linewidth"])
    axis.plot([estimate.point], [line], **style)


def draw_matchups(summary: Summary, path: Path) -> None:
    """Draw each method's wins, ties and losses against each other one as a PNG."""
    methods = summary.methods
    figure = new_figure(1.6 + 0.5 * len(methods), "Wins-ties-losses, left against above")
    axis: Any = figure.subplots()
    image = axis.imshow(balance(methods, summary.matchups), cmap="RdBu", vmin=-1, vmax=1, aspect="auto")
    for (method, other), matchup in summary.matchups.items():
        if matchup.decided:
            shade = abs(matchup.wins - matchup.losses) / matchup.decided
            axis.text(
                methods.index(other),
                methods.index(method),
                f"{matchup.wins}-{matchup.ties}-{matchup.losses}",
                ha="center",
                va="center",
                fontsize=8,
                color="white" if shade > 0.65 else "black",
            )
    _methods(axis.xaxis, methods)
    axis.tick_params(axis="x", labelrotation=25, top=True, bottom=False, labeltop=True, labelbottom=False)
    for label in axis.get_xticklabels():
        label.set_ha("left")
    _methods(axis.yaxis, methods)
    bar = figure.colorbar(image, ax=axis, shrink=0.8)
    bar.set_label("(wins - losses) / rows", fontsize=8)
    bar.ax.tick_params(labelsize=8)
    save(figure, path)


def balance(
    methods: Sequence[str], matchups: Mapping[tuple[str, str], Matchup]
) -> np.ma.MaskedArray[Any, Any]:
    """Return (wins - losses) / decided rows, (methods, methods) float64, masked where none is decided."""
    shares = np.full((len(methods), len(methods)), np.nan)
    for (method, other), matchup in matchups.items():
        if matchup.decided:
            net = (matchup.wins - matchup.losses) / matchup.decided
            shares[methods.index(method), methods.index(other)] = net
    return np.ma.masked_invalid(shares)


def _methods(axis: Any, methods: Sequence[str]) -> None:
    axis.set_ticks(range(len(methods)), list(methods), fontsize=9)
    for label, method in zip(axis.get_ticklabels(), methods, strict=True):
        label.set_fontweight("bold" if method == ADVISED else "normal")
