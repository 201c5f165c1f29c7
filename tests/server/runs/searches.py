"""Searches of the run `a`, made as a client would, without a wire."""

from __future__ import annotations

import math
from typing import Any

from mlrs_core.search import Found, Trial
from mlrs_proto import v1 as pb
from mlrs_server.runs.searching import Report, SearchView
from tests.server.support import Harness

BEST = 0.07
"""The learning rate after which the loss of a trial is lowest."""
START_LOSS = 100.0
"""The loss before any update."""


def loss_of(trial: Trial | pb.Trial) -> float:
    """Return the loss after a trial."""
    return 1.0 + math.log10(trial.learning_rate / BEST) ** 2 if trial.steps else START_LOSS


async def ask(here: Harness, result: tuple[int, float, int] | None = None, **report: Any) -> SearchView:
    """Report a result of the run `a`, or ask for the trial that is due."""
    return await here.searches.report(Report(**{"run_id": "a", "start": "s", "result": result, **report}))


def due(view: SearchView) -> Trial:
    """Return the trial that a search asks for."""
    assert isinstance(view.next, Trial)
    return view.next


def found_by(view: SearchView) -> Found:
    """Return what a search has found."""
    assert isinstance(view.next, Found)
    return view.next


async def tried(here: Harness, view: SearchView, **report: Any) -> SearchView:
    """Make the trial that is due."""
    trial = due(view)
    result = (len(view.search.results), loss_of(trial), trial.steps)
    return await ask(here, result, **report)


async def tried_but_one(here: Harness, **report: Any) -> SearchView:
    """Make the trials up to the last one, which is due then."""
    view = await ask(here, **report)
    while isinstance(following(view), Trial):
        view = await tried(here, view, **report)
    return view


def following(view: SearchView) -> Trial | Found:
    """Return what comes after the trial that is due."""
    trial = due(view)
    return view.search.with_result(len(view.search.results), loss_of(trial), trial.steps).next()


async def begun(here: Harness, **report: Any) -> SearchView:
    """Begin a search, and make the trial that measures the start; the first one with steps is due then."""
    view = await tried(here, await ask(here, **report), **report)
    assert due(view).steps > 0
    return view


async def searched(here: Harness, **report: Any) -> SearchView:
    """Make a whole search."""
    return await tried(here, await tried_but_one(here, **report), **report)
