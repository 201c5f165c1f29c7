"""Meta updates as they arrive: each is applied once; a repeated one gets its recorded result."""

from __future__ import annotations

from dataclasses import dataclass

from mlrs_core.adapting.protocol import MAX_ALIGNMENT
from mlrs_server.domain.ledger import ADAPTED, RunStatus
from mlrs_server.domain.updates import MetaUpdate
from mlrs_server.errors import AdvisorError, Reason, finished_run, invalid_field, stale_handle
from mlrs_server.live.arrays import adaptive
from mlrs_server.live.live_runs import LiveRuns
from mlrs_server.live.run_groups import LiveRun
from mlrs_server.live.stored_runs import StoredRuns


@dataclass(frozen=True)
class Applied:
    """The result of a meta update."""

    updates: int
    """The number of the run's updates so far."""
    update: MetaUpdate


class Adaptation:
    """Applies meta updates to runs in memory. Used from one event loop."""

    def __init__(self, live: LiveRuns, stored: StoredRuns) -> None:
        """Apply updates to the runs of `live`, and read recorded updates from `stored`."""
        self._live = live
        self._stored = stored

    async def apply(
        self, handle: int, tenant: int, step: int, alignment: float, validation_loss: float | None = None
    ) -> Applied:
        """Apply the meta update of a run's newest step, or return its recorded result.

        Args:
            handle: the run's handle.
            tenant: the number of the caller's tenant.
            step: the step of the update.
            alignment: the dot product of the validation gradient and the update direction.
            validation_loss: a loss to record with the update.

        Raises:
            AdvisorError: as the contract's AdaptRequest says, or the handle is stale.
        """
        slot = self._slot(handle, tenant)
        if not abs(alignment) <= MAX_ALIGNMENT:
            raise invalid_field(
                "alignment",
                f"must be finite and within ±{MAX_ALIGNMENT:g}, is {alignment}; leave out the update of a "
                "step whose gradients are not finite",
            )
        if self._is_applied(slot, step):
            update = await self._recorded(slot, step)
            slot = self._slot(handle, tenant)  # its row may be another run's by now
            if update is None or not update.is_of(alignment):
                raise _stale(slot, step, update)
        else:
            self._live.journal.check_capacity()
            update = slot.group.adapt(slot.row, alignment, validation_loss)
            self._live.journal.note(slot.group, 1)
        return Applied(_updates(slot), update)

    def _slot(self, handle: int, tenant: int) -> LiveRun:
        """Return the slot of the run that a handle names; the run must be in meta mode."""
        slot = self._live.at(handle)
        if slot is None or int(slot.record["tenant"]) != tenant:
            raise stale_handle()
        if not slot.group.policy.network_size:
            raise AdvisorError(
                Reason.CONFIG_MISMATCH,
                f"config.meta: run {slot.run_id!r} is not in meta mode, so its network does not "
                "change; set config.meta when the run is created",
                field="config.meta",
            )
        return slot

    def _is_applied(self, slot: LiveRun, step: int) -> bool:
        """Return whether the update of a step was applied, or can no longer be."""
        record = slot.record
        newest = int(record["next_step"]) - 1
        if step > newest:
            raise AdvisorError(
                Reason.STEP_AHEAD,
                f"step: {step} of run {slot.run_id!r} has no learning rate yet; observe it first",
                field="step",
                next_step=newest + 1,
            )
        if step < newest or record["last_reason"] & ADAPTED:
            return True
        if record["status"] == RunStatus.FINISHED:
            raise finished_run(slot.run_id)
        return False

    async def _recorded(self, slot: LiveRun, step: int) -> MetaUpdate | None:
        """Return the stored update of a step."""
        stored = await self._stored.get(slot.run_id)
        found = await self._stored.in_store(lambda store: store.read_updates(stored.key, step, 1))
        return found[0] if found else None


def _updates(slot: LiveRun) -> int:
    state = slot.group.states[slot.row]
    return adaptive(slot.group.policy).meta_counters(state).updates


def _stale(slot: LiveRun, step: int, applied: MetaUpdate | None) -> AdvisorError:
    """Return the error of an update of a step that had another update, or had none before the next step."""
    newest = int(slot.record["next_step"]) - 1
    had = (
        f"was applied with the alignment {applied.alignment!r}"
        if applied
        else "was not applied before the next step"
    )
    return AdvisorError(
        Reason.STALE_STEP,
        f"step: the meta update of step {step} of run {slot.run_id!r} {had}; its newest step is {newest}. "
        f"To go back, open the run with resume_from={step}",
        field="step",
        next_step=newest,
    )
