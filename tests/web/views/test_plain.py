"""Values of the client as plain JSON."""

from __future__ import annotations

import datetime as dt
import json
import math

from hypothesis import given as examples
from hypothesis import strategies as st

from mlrs.types import Ending, FinishedTrial, RunConfig, Search, Trial
from mlrs_web.views.plain import encoded, figures, given, plain
from mlrs_web.views.runs import search


def test_a_value_with_its_parts() -> None:
    """A dataclass is an object with its fields; times are seconds, enumerations their values."""
    made = FinishedTrial(learning_rate=0.1, steps=8, loss=math.inf)
    found = Search(start="s", attempt=1, trials=(made,), next=Trial(1, 0.2, 8))
    assert plain(found) == {
        "start": "s",
        "attempt": 1,
        "trials": [{"learning_rate": 0.1, "steps": 8, "loss": None}],
        "next": {"number": 1, "learning_rate": 0.2, "steps": 8},
    }
    assert plain(dt.datetime(1970, 1, 2, tzinfo=dt.UTC)) == 86_400.0
    assert plain((Ending.REACHED, True, None)) == ["reached", True, None]


def test_only_what_is_given() -> None:
    """Of a config, fields that were not given are left out."""
    assert given(RunConfig(horizon=10, momentum=0.0)) == {"horizon": 10, "momentum": 0.0}


def test_trials_say_how_they_went() -> None:
    """The loss at the start, a trial that was made, and one that diverged, are told apart."""
    trials = tuple(FinishedTrial(0.1, steps, loss) for steps, loss in ((0, 2.3), (8, 2.0), (3, math.nan)))
    shown = search(Search(start="s", attempt=1, trials=trials, next=Trial(3, 0.2, 8)))
    assert [trial["status"] for trial in shown["trials"]] == ["start", "made", "diverged"]
    assert shown["found"] is None
    assert shown["next"]["number"] == 3


@examples(st.lists(st.floats()))
def test_figures_are_close_or_null(values: list[float]) -> None:
    """Numbers to draw keep nine digits; those that are not finite are null, which JSON can carry."""
    shown = json.loads(encoded(figures(values)))
    for value, figure in zip(values, shown, strict=True):
        if math.isfinite(value):
            assert math.isclose(value, figure, rel_tol=1e-8, abs_tol=5e-324)
        else:
            assert figure is None


@examples(st.text())
def test_every_text_is_json(text: str) -> None:
    """Whatever characters a note has, it arrives as it is; half a character becomes a question mark."""
    assert json.loads(encoded(text)) == text.encode("utf-8", "replace").decode()
