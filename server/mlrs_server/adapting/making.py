"""Meta updates as they come in: each is made once, and repeated from the record after that."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from mlrs_core.adapting.protocol import MAX_ALIGNMENT
from mlrs_server.adapting.updates import MetaUpdate
from mlrs_server.answers import finished_run, stale_handle
from mlrs_server.errors import AdvisorError, Reason, invalid_field
from mlrs_server.ledger import ADAPTED, MAX_GROUPS, MAX_ROWS, ROW_BITS, RunStatus
from mlrs_server.live import LiveRuns
from mlrs_server.places import LiveRun
from mlrs_server.runs import adaptive

MAX_SHARDS = 65_536
"""The most parts of an alignment."""
MAX_PARTS = 2**20
"""Parts kept of all runs while others are missing: 100 MiB."""


@dataclass(frozen=True)
class Made:
    """What became of a meta update, or of a part of one."""

    updates: int
    """The run's so far."""
    update: MetaUpdate | None
    """It; `None` while parts are missing."""
    missing: int = 0
    """How many parts are."""


@dataclass
class _Parts:
    """The parts of an alignment that have come in."""

    step: int
    count: int
    parts: dict[int, float] = field(default_factory=dict)
    validation_loss: float | None = None


class Adaptation:
    """Makes the meta updates of runs in memory. Used from one event loop."""

    def __init__(self, live: LiveRuns) -> None:
        """`live` are the runs."""
        self._live = live
        self._parts: dict[int, _Parts] = {}  # by handle: those of before a rewind are of another
        self._waiting = 0  # how many parts all of them have

    async def make(
        self, handle: int, tenant: int, step: int, alignment: float, validation_loss: float | None = None
    ) -> Made:
        """Make the meta update of a run's newest step, or return what became of it before.

        Args:
            handle: the run's.
            tenant: the number of the caller's tenant.
            step: what the update is about.
            alignment: the whole of it.
            validation_loss: kept in the record.

        Raises:
            AdvisorError: as the contract's AdaptRequest says, or the handle is stale.
        """
        place = self._place(handle, tenant)
        if not abs(alignment) <= MAX_ALIGNMENT:
            raise invalid_field(
                "alignment",
                f"must be finite and within ±{MAX_ALIGNMENT:g}, is {alignment}; leave out the update of a "
                "step whose gradients are not finite",
            )
        if self._is_made(place, step):
            update = await self._recorded(place, step)
            place = self._place(handle, tenant)  # its row may be another run's by now
            if update is None or not update.is_of(alignment):
                raise _stale(place, step, update)
        else:
            self._live.journal.check_room()
            update = place.group.adapt(place.row, alignment, validation_loss)
            self._live.journal.note(place.group, 1)
        return Made(_updates(place), update)

    async def make_part(
        self,
        handle: int,
        tenant: int,
        step: int,
        part: float,
        shard: tuple[int, int],
        validation_loss: float | None = None,
    ) -> Made:
        """Take a part of an alignment, and make the update once all are there.

        A part of an update that was made returns what became of that.

        Args:
            handle: the run's.
            tenant: the number of the caller's tenant.
            step: what the update is about.
            part: of the alignment.
            shard: which of how many.
            validation_loss: the first that is sent is kept in the record.

        Raises:
            AdvisorError: as `make`; or the parts contradict each other, or too many are kept.
        """
        index, count = shard
        if not 2 <= count <= MAX_SHARDS:
            raise invalid_field("shard_count", f"must be 0 to {MAX_SHARDS}, is {count}")
        if index >= count:
            raise invalid_field("shard", f"must be below shard_count, {count}, is {index}")
        if not abs(part) <= MAX_ALIGNMENT:  # sums of larger ones may overflow
            raise invalid_field("alignment", f"must be finite and within ±{MAX_ALIGNMENT:g}, is {part}")
        place = self._place(handle, tenant)
        if self._is_made(place, step):
            update = await self._recorded(place, step)
            place = self._place(handle, tenant)  # as in `make`
            if update is None:
                raise _stale(place, step, None)
            return Made(_updates(place), update)
        parts = self._with_part(place, step, part, shard)
        if parts.validation_loss is None:
            parts.validation_loss = validation_loss
        if missing := count - len(parts.parts):
            return Made(_updates(place), None, missing)
        self._live.journal.check_room()  # else the parts stay: whoever is refused sends only its own again
        del self._parts[handle]
        self._waiting -= len(parts.parts)
        # The sum is rounded once, so the order of the parts changes no bit.
        return await self.make(handle, tenant, step, math.fsum(parts.parts.values()), parts.validation_loss)

    def _with_part(self, place: LiveRun, step: int, part: float, shard: tuple[int, int]) -> _Parts:
        """Keep a part of the newest step's alignment; return all there are of it."""
        handle, (index, count) = place.handle, shard
        parts = self._parts.get(handle)
        if parts is not None and parts.step != step:  # the run has gone on without the rest of it
            self._waiting -= len(parts.parts)
            del self._parts[handle]
            parts = None
        parts = parts or _Parts(step, count)
        if parts.count != count:
            raise invalid_field(
                "shard_count", f"is {count}, and a part of step {step} that came before said {parts.count}"
            )
        if parts.parts.get(index, part) != part:
            raise invalid_field("shard", f"{index} of step {step} was sent before, with another alignment")
        if index not in parts.parts:
            self._make_room()
            self._waiting += 1
        self._parts[handle] = parts
        parts.parts[index] = part
        return parts

    def _make_room(self) -> None:
        """See to it that one more part can be kept.

        Raises:
            AdvisorError: it cannot.
        """
        if self._waiting >= MAX_PARTS:
            self._parts = {name: one for name, one in self._parts.items() if self._is_open(name, one)}
            self._waiting = sum(len(parts.parts) for parts in self._parts.values())
        if self._waiting >= MAX_PARTS:
            raise AdvisorError(
                Reason.QUEUE_FULL,
                f"alignment: {MAX_PARTS} parts wait for others, the most that are kept; send it again later",
                field="alignment",
            )

    def _is_open(self, handle: int, parts: _Parts) -> bool:
        """Return whether the missing parts of an alignment may still come."""
        place = self._find(handle)
        return place is not None and int(place.group.records["next_step"][place.row]) - 1 == parts.step

    def _find(self, handle: int) -> LiveRun | None:
        """Return where the run of a handle is, if it names one."""
        number, row = handle >> ROW_BITS & (MAX_GROUPS - 1), handle & (MAX_ROWS - 1)
        groups = self._live.groups
        if not handle or number >= len(groups) or row >= len(groups[number].records):
            return None
        return LiveRun(groups[number], row) if groups[number].records["handle"][row] == handle else None

    def _place(self, handle: int, tenant: int) -> LiveRun:
        """Return where the run of a handle is.

        Raises:
            AdvisorError: the handle is stale, or the run is not in meta mode.
        """
        place = self._find(handle)
        if place is None or int(place.group.records["tenant"][place.row]) != tenant:
            raise stale_handle()
        if not place.group.policy.network_size:
            raise AdvisorError(
                Reason.CONFIG_MISMATCH,
                f"config.meta: run {_run_id(place)!r} is not in meta mode, so its network does not "
                "change; set config.meta when the run is created",
                field="config.meta",
            )
        return place

    def _is_made(self, place: LiveRun, step: int) -> bool:
        """Return whether the update of a step was made, or can be no more.

        Raises:
            AdvisorError: the step has no advice yet, or the run is finished and the step has no update.
        """
        record = place.group.records[place.row]
        newest = int(record["next_step"]) - 1
        if step > newest:
            raise AdvisorError(
                Reason.STEP_AHEAD,
                f"step: {step} of run {_run_id(place)!r} has no learning rate yet; observe it first",
                field="step",
                expected_step=newest + 1,
            )
        if step < newest or record["last_reason"] & ADAPTED:
            return True
        if record["status"] == RunStatus.FINISHED:
            raise finished_run(_run_id(place))
        return False

    async def _recorded(self, place: LiveRun, step: int) -> MetaUpdate | None:
        """Return the update of a step as the store has it."""
        stored = await self._live.required(_run_id(place))
        found = await self._live.in_store(lambda store: store.read_updates(stored.key, step, 1))
        return found[0] if found else None


def _run_id(place: LiveRun) -> str:
    return place.group.run_ids[place.row]


def _updates(place: LiveRun) -> int:
    state = place.group.states[place.row]
    return adaptive(place.group.policy).meta_counters(state).updates


def _stale(place: LiveRun, step: int, made: MetaUpdate | None) -> AdvisorError:
    """Return the error of an update of a step that had another, or had none and is over."""
    newest = int(place.group.records["next_step"][place.row]) - 1
    had = f"was made of the alignment {made.alignment!r}" if made else "was not made, and the run has gone on"
    return AdvisorError(
        Reason.STALE_STEP,
        f"step: the meta update of step {step} of run {_run_id(place)!r} {had}; its newest step is {newest}. "
        f"To go back, open the run with resume_from={step}",
        field="step",
        expected_step=newest,
    )
