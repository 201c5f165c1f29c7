"""How the runs of a ledger are opened: the caller's options, and the requests that follow from them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from mlrs.errors import (
    InvalidArgumentError,
    MlrsError,
    NotBuiltError,
    RunExistsError,
    RunNotFoundError,
)
from mlrs.values.options import OnExisting
from mlrs.values.types import RunConfig

Mode = Literal["open", "create", "resume", "begin", "restart"]
"""The contract's ways to open a run."""
Explored = Literal["careful", "full", "none"]
"""What a new run takes from the memory of its task; `none`: the best known."""
STATED = ("model", "schedule", "meta", "initial_lr", "lr_offset", "scale", "snapshot")
"""The fields of a config that decide what the memory would: a run that is given one leaves it out."""


class Way(NamedTuple):
    """The mode of opening a run, and the step to go back to."""

    mode: Mode
    resume_from: int | None


class FallbackSteps(NamedTuple):
    """Steps that the fallback answered since the runs were opened last."""

    first: int
    """The first of them."""
    steps: int
    """How many they are."""


@dataclass(slots=True, eq=False, kw_only=True)
class Start:
    """The options of runs that are opened when their first step is known."""

    run_ids: tuple[str, ...]
    """The runs' ids."""
    configs: list[RunConfig]
    """The config of each."""
    task: str
    """The task; empty: each run is a task of its own."""
    timeout_s: float
    """The deadline of opening them, in seconds."""
    long_timeout_s: float = 0.0
    """The least deadline where the daemon replays them up to a step, or may have to compile code for them, in
    seconds. A daemon that cannot be reached is waited for no longer than `timeout_s`."""
    is_named: bool = True
    """Whether the caller gave the ids; otherwise the client made them, and the runs are new."""
    on_existing: OnExisting = "error"
    """What to do where they exist and begin at step 0."""
    must_exist: bool = False
    """Whether runs that are resumed at their next step must exist."""
    resume_from: int | None = None
    """The step to go back to."""
    is_ranked: bool = False
    """Whether each of several ranks opens the run."""
    world_size: int | None = None
    """The number of ranks, if that was given."""
    read_off: RunConfig = dataclasses.field(default_factory=RunConfig)
    """What an adapter read from the training loop. The caller's options take precedence."""
    explore: Explored | None = None
    """What new runs take from the memory of their task; `None`: they take no part in it."""
    fallback: FallbackSteps | None = None
    """What the daemon is told of the fallback when they are opened next; `None`: nothing."""
    tags: Mapping[str, str] = dataclasses.field(default_factory=dict)
    """The tags of new runs."""
    note: str = ""
    """The note on new runs."""

    def limit_s(self, first_step: int | None) -> float:
        """Return the deadline of opening the runs, whose first step is `first_step`, in seconds."""
        configs = (*self.configs, self.read_off)
        is_long = first_step or any(one.model or one.meta or one.rescue for one in configs)
        return max(self.timeout_s, self.long_timeout_s if is_long else 0.0)

    def way(self, first_step: int | None) -> Way:
        """Return how to open the runs, whose first step is `first_step`; `None`: it is not known yet."""
        if self.resume_from is not None:
            return Way("resume" if self.resume_from else "open", self.resume_from)
        if self.is_ranked or (self.on_existing == "resume" and self.is_named):
            return Way("resume" if self.must_exist else "open", None)
        if not self.is_named:
            if first_step:
                raise InvalidArgumentError(
                    f"step: run {self.run_ids[0]!r} is new and begins at step 0, not {first_step}; to"
                    " continue an earlier run, give its id: advisor.run(task, id=..., resume_from=...), or"
                    " load the scheduler's checkpoint",
                    field="step",
                )
            return Way("create", None)
        if first_step:
            return Way("resume", first_step)
        return Way("restart" if self.on_existing == "restart" else "begin", None)

    def asked(self, way: Way) -> Sequence[RunConfig]:
        """Return the configs to send; for new runs, completed by what an adapter read."""
        if way.mode in ("open", "resume"):
            return self.configs
        return [completed(config, self.read_off) for config in self.configs]

    def explored(self, index: int) -> Explored | None:
        """Return what a run takes from the memory of its task when it is created; `None`: no part in it."""
        return None if self.stated(index) else self.explore

    def stated(self, index: int) -> str:
        """Return the option of a run that decides what the memory would; "" if none does."""
        config = self.configs[index]
        name = next((name for name in STATED if getattr(config, name) is not None), "")
        return "policy" if name == "schedule" else name

    def lacking(self, config: RunConfig, next_step: int) -> RunConfig | None:
        """Return the fields read by an adapter that the config of an opened run lacks; `None`: nothing.

        Without fields that a begun run does not have, since these cannot be added later. Fields that differ
        are included, so that the daemon refuses them.
        """
        lacks = {}
        for field in dataclasses.fields(RunConfig):
            value, has = getattr(self.read_off, field.name), getattr(config, field.name)
            if value is None or getattr(self.configs[0], field.name) is not None or value == has:
                continue
            if has is not None or next_step == 0:
                lacks[field.name] = value
        return RunConfig(**lacks) if lacks else None

    def explained(self, error: MlrsError, first_step: int | None) -> MlrsError:
        """Return why opening failed, with what the caller can do."""
        if isinstance(error, RunExistsError) and self.is_named:
            return RunExistsError(
                f"{error}. To begin it again, open it with on_existing='restart', which drops its record; to"
                " continue where it is, with on_existing='resume' and run.next_step; to go back to a"
                " checkpoint, with resume_from= its step. Or leave id= out, for a new run",
                reason=error.reason,
                field="id",
            )
        if isinstance(error, InvalidArgumentError) and error.field == "mode":
            return NotBuiltError(
                f"the daemon is of a version that cannot begin runs as this client asks for it ({error});"
                " upgrade the daemon",
                reason=error.reason,
            )
        if isinstance(error, RunNotFoundError) and (first_step or self.resume_from):
            step = first_step or self.resume_from
            return RunNotFoundError(
                f"there is no run {self.run_ids[0]!r} here, so it cannot continue at step {step}. Look at"
                " `mlrs runs list` for its id, and at whether this is the daemon that had it; a new run"
                " begins at step 0",
                reason=error.reason,
                field="id",
            )
        return error


def completed(config: RunConfig, other: RunConfig) -> RunConfig:
    """Return a config whose missing fields are taken from another."""
    lacks = {
        field.name: getattr(other, field.name)
        for field in dataclasses.fields(RunConfig)
        if getattr(config, field.name) is None
    }
    return dataclasses.replace(config, **lacks)
