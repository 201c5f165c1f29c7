"""The unary calls of searches as values."""

from __future__ import annotations

from mlrs.protocol.routing import Call
from mlrs.values import arguments as check
from mlrs.values.search_types import FinishedTrial, FoundRate, Search, Trial
from mlrs_proto import v1 as pb


def search_trial(
    run_id: str, start: str, result: FinishedTrial | None, number: int, *, keep_policy: bool, charge: bool
) -> Call[Search]:
    """Report the result of a trial of this number, if there is one, and ask what comes next."""
    request = pb.SearchTrialRequest(run_id=run_id, start=start, keep_policy=keep_policy, charge_steps=charge)
    if result is not None:
        request.result.CopyFrom(pb.TrialResult(number=number, loss=result.loss, steps=result.steps))
    return Call("SearchTrial", request, lambda response: _search_from_proto(response.search))


def get_search(run_id: object) -> Call[Search]:
    """Read the search of a run."""
    request = pb.GetSearchRequest(run_id=check.run_id(run_id))
    return Call("GetSearch", request, lambda response: _search_from_proto(response.search))


def found_from_proto(message: pb.FoundRate) -> FoundRate:
    """Return what a search found."""
    return FoundRate(
        learning_rate=message.learning_rate,
        octaves=message.octaves,
        steps=message.steps,
        charged=message.charged,
    )


def _search_from_proto(message: pb.Search) -> Search:
    trial = message.trial
    return Search(
        start=message.start,
        attempt=message.attempt,
        trials=tuple(FinishedTrial(one.learning_rate, one.steps, one.loss) for one in message.trials),
        next=found_from_proto(message.found)
        if message.HasField("found")
        else Trial(trial.number, trial.learning_rate, trial.steps),
    )
