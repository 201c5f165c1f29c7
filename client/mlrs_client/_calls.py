"""Unary calls as values: which method, what request, and what the answer means.

Both flavours of the client send these; neither knows more of a call than is here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from mlrs_client import _arguments as check
from mlrs_client import _convert as convert
from mlrs_client._exceptions import InvalidArgumentError
from mlrs_client._types import ModelInfo, RunConfig, RunInfo, RunStatus
from mlrs_proto.v1 import advisor_pb2 as pb

T = TypeVar("T")
_MODES: dict[check.OpenMode, pb.OpenMode.ValueType] = {
    "open": pb.OPEN_MODE_UNSPECIFIED,
    "create": pb.OPEN_MODE_CREATE,
    "resume": pb.OPEN_MODE_RESUME,
}


@dataclass(frozen=True, slots=True)
class Call(Generic[T]):
    """One unary call."""

    method: str
    """The method of `AdvisorServiceStub`."""
    request: Any
    """Its request."""
    read: Callable[[Any], T]
    """What its response means."""


@dataclass(frozen=True, slots=True)
class OpenedRun:
    """What the daemon says of a run that it opened."""

    info: RunInfo
    """The run."""
    handle: int
    """Its name in StreamAdvice."""
    created: bool
    """Whether this call created it."""


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """A page of a list."""

    items: tuple[T, ...]
    """What is on it."""
    next_token: str
    """Names the next page; empty: there is none."""


def open_run(
    run_id: str,
    config: RunConfig,
    mode: check.OpenMode = "resume",
    resume_from: int | None = None,
) -> Call[OpenedRun]:
    """Create a run, resume it, or whichever applies."""
    return Call(
        "CreateRun",
        pb.CreateRunRequest(
            run_id=run_id,
            config=convert.config_to_proto(config),
            mode=_MODES[mode],
            resume_from=resume_from,
        ),
        lambda response: OpenedRun(
            convert.run_from_proto(response.run), response.run_handle, response.created
        ),
    )


def checked_open_run(run_id: object, config: RunConfig, mode: object, resume_from: object) -> Call[OpenedRun]:
    """Open a run as a user asks for it.

    Raises:
        InvalidArgumentError: an argument is wrong; the error names it.
    """
    checked = check.mode(mode)
    if resume_from is None:
        return open_run(check.run_id(run_id), config, checked)
    if checked == "create":
        raise InvalidArgumentError(
            "resume_from rewinds a run that exists; leave it out with mode='create'", field="resume_from"
        )
    return open_run(check.run_id(run_id), config, checked, check.step(resume_from, "resume_from"))


def get_run(run_id: object) -> Call[RunInfo]:
    """Read a run."""
    return Call("GetRun", pb.GetRunRequest(run_id=check.run_id(run_id)), _run)


def finish_run(run_id: str) -> Call[RunInfo]:
    """Mark a run as finished."""
    return Call("FinishRun", pb.FinishRunRequest(run_id=run_id), _run)


def delete_run(run_id: object) -> Call[None]:
    """Delete a run and its record."""
    return Call("DeleteRun", pb.DeleteRunRequest(run_id=check.run_id(run_id)), lambda _: None)


def list_runs(prefix: str, status: RunStatus | None, token: str) -> Call[Page[RunInfo]]:
    """Read a page of the runs."""
    request = pb.ListRunsRequest(prefix=prefix, status=convert.status_to_proto(status), page_token=token)
    return Call(
        "ListRuns",
        request,
        lambda response: Page(tuple(map(convert.run_from_proto, response.runs)), response.next_page_token),
    )


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
