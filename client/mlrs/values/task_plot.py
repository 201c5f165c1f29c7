"""A figure of what is remembered of a task: how runs ended over their learning rates."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from mlrs.errors import UsageError
from mlrs.values.task_types import Ending, Expected, Measure, PastRun


def drawn(
    runs: Sequence[PastRun],
    curve: Sequence[Expected],
    best: Expected | None,
    next_: Expected | None,
    measure: Measure | None,
) -> Any:
    """Return a Matplotlib figure: each policy in a colour of its own, diverged runs as vertical lines.

    Policies with learning rates have a panel with a log axis. Models, which choose their own, have one over
    the octaves by which their learning rates were multiplied.

    Raises:
        UsageError: Matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ModuleNotFoundError as error:
        raise UsageError("plot needs Matplotlib: pip install matplotlib") from error
    known: list[Expected | PastRun] = [*curve, *runs]
    policies = list(dict.fromkeys(one.policy for one in known))
    colours = {policy: f"C{index % 10}" for index, policy in enumerate(policies)}
    kinds = sorted({one.learning_rate is None for one in known}) or [False]
    figure = Figure(figsize=(6.0 * len(kinds), 4.0), layout="constrained")
    for axes, of_models in zip(figure.subplots(1, len(kinds), squeeze=False)[0], kinds, strict=True):
        _label(axes, measure, of_models=of_models)
        for policy, colour in colours.items():
            line = [one for one in curve if _belongs(one, policy, of_models=of_models)]
            points = [one for one in runs if _belongs(one, policy, of_models=of_models)]
            _draw_curve(axes, line, policy, colour)
            _draw_runs(axes, points, measure, policy, colour)
        _draw_mark(axes, best, "*", "best known", of_models=of_models)
        _draw_mark(axes, next_, "D", "next", of_models=of_models)
        handles = dict(zip(*axes.get_legend_handles_labels()[::-1], strict=True))
        if handles:
            axes.legend(handles.values(), handles.keys())
    return figure


def _belongs(one: Expected | PastRun, policy: str, *, of_models: bool) -> bool:
    return one.policy == policy and (one.learning_rate is None) == of_models


def _place(one: Expected | PastRun) -> float:
    """Return where on its panel's axis a run, or a point of the curve, is."""
    return one.lr_offset if one.learning_rate is None else one.learning_rate


def _label(axes: Any, measure: Measure | None, *, of_models: bool) -> None:
    axes.set_ylabel("how the run ended" if measure is None else measure.words)
    if of_models:
        axes.set_xlabel("octaves by which the model's learning rates were multiplied")
    else:
        axes.set_xscale("log")
        axes.set_xlabel("learning rate")


def _draw_curve(axes: Any, line: Sequence[Expected], policy: str, colour: str) -> None:
    if line:
        line = sorted(line, key=_place)
        places = [_place(one) for one in line]
        axes.plot(places, [one.value for one in line], color=colour, label=policy)
        lows, highs = [one.low for one in line], [one.high for one in line]
        axes.fill_between(places, lows, highs, color=colour, alpha=0.2, linewidth=0.0)


def _draw_runs(axes: Any, runs: Sequence[PastRun], measure: Measure | None, policy: str, colour: str) -> None:
    ended = [(_place(one), one.measured(measure)) for one in runs if one.ending != Ending.DIVERGED]
    known = [(place, value) for place, value in ended if value is not None and math.isfinite(value)]
    if known:
        axes.plot(*zip(*known, strict=True), "o", color=colour, label=policy)
    for one in runs:
        if one.ending == Ending.DIVERGED:
            axes.axvline(_place(one), color=colour, linestyle=":", label=f"{policy}, diverged")


def _draw_mark(axes: Any, one: Expected | None, marker: str, label: str, *, of_models: bool) -> None:
    """Mark the best known, or what the next run begins with."""
    if one is not None and (one.learning_rate is None) == of_models:
        style = {"color": "black", "markersize": 12, "fillstyle": "none", "linestyle": "none"}
        axes.plot(_place(one), one.value, marker, label=label, **style)
