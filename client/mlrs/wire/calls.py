"""Unary calls as values: the method, the request, and the conversion of the response.

The threaded and the asyncio client both send these.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

from mlrs.ledger.open_request import Explored, Mode, Start, Way
from mlrs.ledger.open_result import OpenedRun
from mlrs.ledger.outcome import Outcome
from mlrs.protocol.routing import Call
from mlrs.values import arguments as check
from mlrs.values.types import ModelInfo, RunConfig, RunInfo
from mlrs.wire import convert
from mlrs.wire.list_calls import Page
from mlrs.wire.memory_convert import explored_to_proto
from mlrs.wire.rank_convert import ranks_from_proto
from mlrs_proto import v1 as pb

MAX_BATCH = 1000
"""The most runs that the contract opens or finishes in one call."""
_MODES: dict[Mode, pb.OpenMode.ValueType] = {
    "open": pb.OPEN_MODE_UNSPECIFIED,
    "create": pb.OPEN_MODE_CREATE,
    "resume": pb.OPEN_MODE_RESUME,
    "begin": pb.OPEN_MODE_BEGIN,
    "restart": pb.OPEN_MODE_RESTART,
}
AGAIN = Way("resume", None)
"""How runs are opened to join a stream again."""


def opening(start: Start, way: Way, feeder: str, first: int = 0) -> Call[tuple[OpenedRun, ...]]:
    """Open runs of a ledger, as many as one call may, from index `first` on."""
    indexes = range(first, min(first + MAX_BATCH, len(start.run_ids)))
    configs, is_new = start.asked(way), way.mode != "resume"
    requests = [_opening(start, each, configs[each], way, feeder, is_new=is_new) for each in indexes]
    if len(start.run_ids) == 1:
        return _opening_one(requests[0])
    return Call(
        "BatchOpenRuns",
        pb.BatchOpenRunsRequest(requests=requests),
        lambda response: tuple(map(_opened, response.responses)),
    )


def reopening(start: Start, feeder: str, first: int = 0) -> Call[tuple[OpenedRun, ...]]:
    """Open runs again that were opened before, as many as one call may, from index `first` on."""
    bare = _bare(start, RunConfig())
    bare.fallback = start.fallback
    return opening(bare, AGAIN, feeder, first)


def completing(
    start: Start, config: RunConfig, feeder: str, *, is_new: bool = False
) -> Call[tuple[OpenedRun, ...]]:
    """Add to the config of a run that was opened before.

    If it `is_new`, without an observation, what is added may let the memory of its task decide.
    """
    bare = _bare(start, config, start.explored(0))
    return _opening_one(_opening(bare, 0, config, AGAIN, feeder, is_new=is_new))


def _bare(start: Start, config: RunConfig, explore: Explored | None = None) -> Start:
    """Return the options of runs that were opened before."""
    return Start(
        run_ids=start.run_ids,
        configs=[config] * len(start.run_ids),
        task="",
        timeout_s=start.timeout_s,
        is_ranked=start.is_ranked,
        explore=explore,
    )


def _opening_one(request: pb.OpenRunRequest) -> Call[tuple[OpenedRun, ...]]:
    return Call("OpenRun", request, lambda response: (_opened(response),))


def _opening(
    start: Start, index: int, config: RunConfig, way: Way, feeder: str, *, is_new: bool
) -> pb.OpenRunRequest:
    """Return the request that opens one run; those of a sweep have one owner."""
    return pb.OpenRunRequest(
        run_id=start.run_ids[index],
        config=convert.config_to_proto(config),
        mode=_MODES[way.mode],
        resume_from=way.resume_from,
        group=start.run_ids[0] if len(start.run_ids) > 1 else None,
        world_size=start.world_size,
        task=start.task or None,
        feeder=None if start.is_ranked else feeder,
        explore=explored_to_proto(start.explored(index) if is_new else None),
        tags=start.tags if is_new else None,
        note=start.note if is_new else "",
        fallback_from=None if start.fallback is None else start.fallback.first,
        fallback_steps=None if start.fallback is None else start.fallback.steps,
    )


def _opened(response: pb.OpenRunResponse) -> OpenedRun:
    return OpenedRun(
        convert.run_from_proto(response.run), response.run_handle, response.created, response.took_over
    )


def get_run(run_id: object) -> Call[RunInfo]:
    """Read a run, with its ranks."""
    return Call("GetRun", pb.GetRunRequest(run_id=check.run_id(run_id)), _ranked_run)


def finishing(
    run_ids: Sequence[str], next_step: int, outcome: Outcome
) -> Iterator[Call[tuple[RunInfo, ...]]]:
    """Mark runs with this next step as finished, in as few calls as the contract allows.

    Runs of a sweep that have a metric come first, since one call has a metric for each run or none.
    """
    known, unknown = outcome.of(run_ids)
    if len(run_ids) == 1:
        request = pb.FinishRunRequest(
            run_id=run_ids[0],
            next_step=next_step,
            metric=known[0][1] if known else None,
            higher_is_better=outcome.higher_is_better,
            validation_loss=outcome.validation_loss,
        )
        yield Call("FinishRun", request, lambda response: (_run(response),))
        return
    for start in range(0, len(known), MAX_BATCH):
        part = known[start : start + MAX_BATCH]
        yield _finishing([run_id for run_id, _ in part], next_step, [metric for _, metric in part], outcome)
    for start in range(0, len(unknown), MAX_BATCH):
        yield _finishing(unknown[start : start + MAX_BATCH], next_step, (), outcome)


def _finishing(
    run_ids: Sequence[str], next_step: int, metrics: Sequence[float], outcome: Outcome
) -> Call[tuple[RunInfo, ...]]:
    return Call(
        "BatchFinishRuns",
        pb.BatchFinishRunsRequest(
            run_ids=run_ids,
            next_steps=[next_step] * len(run_ids),
            metrics=metrics,
            higher_is_better=outcome.higher_is_better,
        ),
        lambda response: tuple(map(convert.run_from_proto, response.runs)),
    )


def delete_run(run_id: object) -> Call[None]:
    """Delete a run and its record."""
    return Call("DeleteRun", pb.DeleteRunRequest(run_id=check.run_id(run_id)), lambda _: None)


def list_models(token: str) -> Call[Page[ModelInfo]]:
    """Read a page of the models."""
    return Call(
        "ListModels",
        pb.ListModelsRequest(page_token=token),
        lambda response: Page(
            tuple(map(convert.model_from_proto, response.models)), response.next_page_token
        ),
    )


def get_model(name: object) -> Call[ModelInfo]:
    """Read a model."""
    return Call(
        "GetModel",
        pb.GetModelRequest(model=check.model(name)),
        lambda response: convert.model_from_proto(response.model),
    )


def watch_run(run_id: object, from_step: object, follow: object) -> pb.WatchRunRequest:
    """Return the request that streams the record of a run."""
    return pb.WatchRunRequest(
        run_id=check.run_id(run_id), from_step=check.step(from_step, "from_step"), follow=bool(follow)
    )


def _run(response: Any) -> RunInfo:
    return convert.run_from_proto(response.run)


def _ranked_run(response: pb.GetRunResponse) -> RunInfo:
    return dataclasses.replace(_run(response), ranks=ranks_from_proto(response))
