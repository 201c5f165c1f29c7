"""What is remembered of a task, drawn."""

from __future__ import annotations

import datetime as dt
import math
import sys
from pathlib import Path
from typing import Any

import pytest

from mlrs.errors import UsageError
from mlrs.types import Ending, Expected, Measure, PastRun, TaskInfo, TaskMemory

NOW = dt.datetime(2025, 1, 1, tzinfo=dt.UTC)


def past(loss: float | None, *, rate: float | None = 0.1, policy: str = "cosine", **others: Any) -> PastRun:
    """Return a run that ended at a validation loss."""
    facts: dict[str, Any] = {
        "id": "task/a",
        "time": NOW,
        "ending": Ending.REACHED,
        "lr_offset": 0.0,
        "searched": False,
        "optimizer": "adam",
        "momentum": None,
        "horizon": 100,
        "batch_size": None,
        "metric": None,
        "higher_is_better": False,
        "training_loss": None,
        "recalled": None,
    }
    return PastRun(policy=policy, learning_rate=rate, validation_loss=loss, **(facts | others))


def expected(rate: float | None, value: float, *, policy: str = "cosine", offset: float = 0.0) -> Expected:
    """Return what is expected of a learning rate."""
    low, high = value - 0.5, value + 0.5
    return Expected(policy=policy, learning_rate=rate, lr_offset=offset, value=value, low=low, high=high)


def remembered(*runs: PastRun, curve: tuple[Expected, ...] = (), **others: Any) -> TaskMemory:
    """Return what is remembered of a task with these runs."""
    facts: dict[str, Any] = {"measure": Measure.VALIDATION_LOSS, "best": None, "next": None}
    task = TaskInfo(name="task", runs=len(runs), update_time=NOW)
    return TaskMemory(task=task, runs=runs, curve=curve, **(facts | others))


def labels(axes: Any) -> set[str]:
    """Return the texts of a panel's legend."""
    return {text.get_text() for text in axes.get_legend().get_texts()}


def test_a_figure_of_everything(tmp_path: Path) -> None:
    """Learning rates have a log axis; a run that diverged, the best known and the next are marked."""
    curve = (expected(0.3, 2.0), expected(0.1, 1.0), expected(0.1, 1.5, policy="wsd"))
    memory = remembered(
        past(1.0),
        past(None, ending=Ending.DIVERGED),
        past(math.nan),
        curve=curve,
        best=curve[1],
        next_arm=curve[0],
    )
    figure = memory.plot(tmp_path / "task.png")
    assert (tmp_path / "task.png").stat().st_size > 1000
    (axes,) = figure.axes
    assert axes.get_xscale() == "log"
    assert axes.get_ylabel() == "validation loss"
    assert labels(axes) == {"cosine", "wsd", "cosine, diverged", "best known", "next"}
    colours = {line.get_color() for line in axes.get_lines() if line.get_label() == "cosine"}
    assert len(colours) == 1
    (line,) = [
        line for line in axes.get_lines() if len(line.get_xdata()) == 2 and line.get_label() == "cosine"
    ]
    assert list(line.get_xdata()) == [0.1, 0.3]


def test_models_have_a_panel_of_their_own() -> None:
    """Models choose their learning rates, so their runs are drawn over the offsets of these."""
    memory = remembered(past(1.0), past(2.0, rate=None, policy="tail@1234", lr_offset=-1.0))
    rates, offsets = memory.plot().axes
    assert (labels(rates), labels(offsets)) == ({"cosine"}, {"tail@1234"})
    assert "octaves" in offsets.get_xlabel()


def test_a_figure_of_nothing() -> None:
    """A task without a run that ended is drawn as empty axes."""
    (axes,) = remembered(measure=None).plot().axes
    assert axes.get_legend() is None


def test_a_figure_needs_matplotlib(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without Matplotlib the error says what to install."""
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(UsageError, match="pip install matplotlib"):
        remembered(past(1.0)).plot()
