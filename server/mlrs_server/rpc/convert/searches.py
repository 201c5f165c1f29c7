"""Conversion of searches, and of the requests about them."""

from __future__ import annotations

from mlrs_core.search import Trial
from mlrs_proto import v1 as pb
from mlrs_server.runs.searching import Report, SearchView


def report_from_proto(message: pb.SearchTrialRequest, run_id: str) -> Report:
    """Return the report of a client that searches, about the run of this full name."""
    result = message.result
    return Report(
        run_id=run_id,
        start=message.start,
        result=(result.number, result.loss, result.steps) if message.HasField("result") else None,
        keep_policy=message.keep_policy,
        charge_steps=message.charge_steps,
    )


def search_to_proto(view: SearchView) -> pb.Search:
    """Return a search as a message."""
    search, following = view.search, view.next
    message = pb.Search(
        start=search.start,
        attempt=view.attempt,
        trials=[
            pb.FinishedTrial(learning_rate=one.learning_rate, steps=one.steps, loss=one.loss)
            for one in search.results
        ],
    )
    if isinstance(following, Trial):
        message.trial.CopyFrom(
            pb.Trial(number=len(search.results), learning_rate=following.learning_rate, steps=following.steps)
        )
    else:
        message.found.CopyFrom(
            pb.FoundRate(
                learning_rate=following.learning_rate,
                octaves=following.octaves,
                steps=following.steps,
                charged=search.charge_steps,
            )
        )
    return message
