"""Requests to open runs, and the checks whether they are allowed. Nothing here changes a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from mlrs_core.config import MAX_WORLD_SIZE, RunConfig
from mlrs_core.errors import InvalidFieldError
from mlrs_core.memory import Explore
from mlrs_server.domain.ledger import RunStatus
from mlrs_server.domain.notes import check_note, check_tags
from mlrs_server.errors import SHOWN, AdvisorError, Reason, finished_run, invalid_field, run_not_found
from mlrs_server.live.live_runs import LiveRuns
from mlrs_server.live.policies import check_config, check_same_policy, config_mismatch, new_run
from mlrs_server.live.views import RunView
from mlrs_server.models.catalog import ModelsNow
from mlrs_server.storage import NewRun, RunKey, StoredRun
from mlrs_server.tenancy import check_feeder, check_full_name, check_run_id

OpenMode = Literal["open", "create", "resume", "begin", "restart"]
"""What opening may do: create or resume, create only, resume only, or begin at step 0, where "begin" also
takes a run without observations, and "restart" drops the run that exists."""
MAX_BATCH = 1000
"""The largest number of runs in a call."""


@dataclass(frozen=True, kw_only=True)
class OpenRequest:
    """A run to create or resume.

    Raises:
        AdvisorError: an id, a tag or the note is malformed, the world size is out of range, or the mode and
            the step of `resume_from` contradict each other.
    """

    run_id: str
    """The run's full name (`tenancy.py`)."""
    asked: RunConfig = field(default_factory=RunConfig)
    """The config asked for; a field that is not given keeps the run's value."""
    model: str = ""
    """A model's name, alias or reference; "" is the default, or the run's."""
    mode: OpenMode = "open"
    """What opening may do."""
    group: str = ""
    """The group of a new run; the runs of a group are in one shard. "" is a group of the run alone."""
    resume_from: int | None = None
    """The step to rewind to, dropping the record from there on."""
    world_size: int | None = None
    """The number of ranks from the next step on; `None` keeps the run's, which begins as one."""
    task: str = ""
    """The name of a new run's task, as the tenant gives it; "" is the run's id."""
    feeder: str = ""
    """The id of the process that asks and will send the run's observations; "" if it gave none."""
    explore: Explore | None = None
    """What a new run takes from the memory of its task; `None`: nothing."""
    fallback_from: int | None = None
    """The first step that the client's fallback has answered since it opened the run last; `None`: none."""
    fallback_steps: int | None = None
    """The number of these steps; `None`: as many as there are up to the run's next step, maybe none."""
    tags: Mapping[str, str] = field(default_factory=dict)
    """The tags of a new run."""
    note: str = ""
    """The note on a new run."""

    def __post_init__(self) -> None:
        """Check the ids, the world size and the step."""
        check_full_name(self.run_id)
        check_feeder(self.feeder)
        check_tags(self.tags)
        check_note(self.note)
        if self.task:
            check_run_id(self.task, "task")
        if self.resume_from and self.mode in {"begin", "restart"}:
            raise invalid_field(
                "resume_from",
                f"must be 0 or left out, as the mode begins the run at step 0, is {self.resume_from}",
            )
        if self.world_size is not None and not 1 <= self.world_size <= MAX_WORLD_SIZE:
            raise invalid_field("world_size", f"must be 1 to {MAX_WORLD_SIZE}, is {self.world_size}")
        if self.group:
            check_full_name(self.group, "group")

    def changes_feeder(self, run: RunKey) -> bool:
        """Return whether the request makes another process the feeder of a run."""
        return bool(self.feeder) and self.feeder != run.feeder


@dataclass(frozen=True)
class Opened:
    """The result of opening a run."""

    view: RunView
    handle: int
    created: bool
    took_over: bool
    """Whether the run was taken over from another feeder that is connected."""


def check_batch_size(field: str, size: int) -> None:
    """Check the number of runs of a call; `field` is the field that lists them.

    Raises:
        AdvisorError: there are none, or too many.
    """
    if not 1 <= size <= MAX_BATCH:
        raise invalid_field(field, f"a call is about 1 to {MAX_BATCH} runs, this one about {size}; split it")


def check_batch(field: str, run_ids: Sequence[str]) -> None:
    """Check the run ids of a call; `field` is the field that lists them.

    Raises:
        AdvisorError: there are none or too many, or one is given twice.
    """
    check_batch_size(field, len(run_ids))
    seen: set[str] = set()
    for run_id in run_ids:
        if run_id in seen:
            raise invalid_field(field, f"run {run_id[:SHOWN]!r} is given twice; name each run once")
        seen.add(run_id)


def run_to_create(request: OpenRequest, models: ModelsNow) -> NewRun:
    """Return the run that a request creates where no run has its id.

    Raises:
        AdvisorError: only resuming is allowed, or as `new_run`.
    """
    if request.mode == "resume":
        raise run_not_found(request.run_id)
    if request.resume_from:
        raise invalid_field(
            "resume_from",
            f"run {request.run_id!r} does not exist, so it has no step {request.resume_from}",
        )
    _check_ranks(request.asked, request)
    new = new_run(
        request.run_id, request.asked, request.model, models, group=request.group, task=request.task
    )
    world_size = (request.world_size or 1) if new.config.ranks else 0
    return replace(new, world_size=world_size, feeder=request.feeder, tags=request.tags, note=request.note)


def _check_ranks(config: RunConfig, request: OpenRequest) -> None:
    """Check that only a run that has ranks is given a number of them."""
    if request.world_size is not None and config.ranks is None:
        raise invalid_field(
            "world_size",
            f"run {request.run_id!r} has no config.ranks, so it has one rank; give config.ranks when the run "
            "is created, or leave world_size out",
        )


def request_to_resume(
    stored: StoredRun, request: OpenRequest, live: LiveRuns, *, unstored: bool
) -> OpenRequest:
    """Return a request for a run that exists; beginning such a run becomes a rewind to step 0.

    Args:
        stored: the run.
        request: how the run is to be opened; not "restart".
        live: the runs in memory.
        unstored: whether no client can know of an observation of the run that it is stored.

    Raises:
        AdvisorError: the request may not begin this run.
    """
    if request.mode not in {"create", "begin"}:
        return request
    observed = live.next_step(stored) > 0
    is_own = bool(request.feeder) and request.feeder == stored.feeder
    if (is_own and (unstored or not observed)) or (request.mode == "begin" and not observed):
        return replace(request, mode="open", resume_from=0)
    raise AdvisorError(
        Reason.RUN_EXISTS,
        f"run_id: run {stored.run_id!r} exists, at step {live.next_step(stored)}; "
        "resume it, restart it, or use another run_id",
        field="run_id",
    )


def config_to_resume(stored: StoredRun, request: OpenRequest, live: LiveRuns, models: ModelsNow) -> RunConfig:
    """Return the config of a run once it is resumed: its own, completed by the fields that it lacked.

    Raises:
        AdvisorError: the run cannot be resumed as asked.
    """
    if live.status(stored) == RunStatus.FINISHED and request.resume_from is None:
        raise finished_run(stored.run_id)
    check_same_policy(stored, request.asked, request.model, models)
    config = _reconciled(stored, request, live, models)
    _check_ranks(config, request)
    must_rewind(stored, request, live)
    return config


def must_rewind(stored: StoredRun, request: OpenRequest, live: LiveRuns) -> bool:
    """Return whether a run must be rewound to an earlier step, or resumed though it is finished.

    Raises:
        AdvisorError: the run has not reached the step.
    """
    step, at = request.resume_from, live.next_step(stored)
    if step is None:
        return False
    if step > at:
        raise invalid_field("resume_from", f"run {stored.run_id!r} has {at} steps, so none is {step}")
    return step < at or live.status(stored) == RunStatus.FINISHED


def _reconciled(stored: StoredRun, request: OpenRequest, live: LiveRuns, models: ModelsNow) -> RunConfig:
    """Check the fields asked for against the run's; return its config with those it lacked.

    A run that has begun without rescue goes on without it. Its batch size stays what it was: advice does not
    depend on it, and over all ranks it may change with their number.
    """
    begun = live.next_step(stored) > 0 and request.resume_from != 0
    has = stored.config.values()
    asked = replace(request.asked, rescue=False, batch_size=None) if begun else request.asked
    for name, want in asked.values().items():
        if (have := has.get(name)) != want and (begun or name in has):
            raise config_mismatch(stored, f"config.{name}", have, want)
    try:
        config = stored.config.completed_by(asked)
    except InvalidFieldError as error:  # the values are valid one by one, but not together
        raise invalid_field(f"config.{error.field}", error.problem) from error
    if config.ranks is not None:
        config = replace(config, ranks=config.ranks.resolved())
    if config != stored.config:
        check_config(stored, config, models.catalog)
    return config
