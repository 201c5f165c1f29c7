"""One of several replicas: it renews its lease, claims shards that prefer it, and hands the others over.

Runs of shards that it hands over are stored first, so that the next owner finds them complete. Shards that
it has lost, because its lease expired and another replica claimed them, are dropped from memory: clients keep
the observations that were not stored, and send them to the new owner.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection

import structlog

from mlrs_server.cluster.leases import Membership
from mlrs_server.cluster.membership import SharedOwnership
from mlrs_server.cluster.preference import preferred
from mlrs_server.errors import AdvisorError, Reason
from mlrs_server.live.live_runs import LiveRuns
from mlrs_server.runs.watchers import Watchers

log = structlog.get_logger()

RENEWALS = 3
"""The number of renewals per lease: two may fail before it expires."""


class Replica:
    """Keeps runs in memory consistent with the shards that are held. Used from one event loop."""

    def __init__(
        self, ownership: SharedOwnership, live: LiveRuns, watchers: Watchers, *, lease_s: float
    ) -> None:
        """`watchers` are woken when a run moves to another replica."""
        self._ownership = ownership
        self._live = live
        self._watchers = watchers
        self._lease_s = lease_s
        self._dropping: set[asyncio.Task[None]] = set()
        self._failing = False
        self.on_health: Callable[[bool], None] = lambda _works: None
        """Called after each renewal of the lease with whether it succeeded."""
        self._renewing: asyncio.Task[None] | None = None
        self._handover: asyncio.Task[None] | None = None
        live.journal.when_fenced(self.lose)

    def start(self) -> None:
        """Renew the lease in the background, until `leave`."""
        self._renewing = asyncio.get_running_loop().create_task(self._renew_forever())

    async def _renew_forever(self) -> None:
        """Reconcile at every renewal, until cancelled."""
        while True:
            await asyncio.sleep(self._lease_s / RENEWALS)
            try:
                await self.reconcile()
            except AdvisorError as error:
                if not self._failing:
                    log.error("lease_failing", problem=str(error))
                self._failing = True
                self.on_health(False)
            except Exception as error:  # a defect: the next round may succeed
                log.error("replica_failed", exc_info=error)
            else:
                self._failing = False
                self.on_health(True)

    async def reconcile(self) -> None:
        """Renew the lease; drop lost shards, claim free ones, hand over those that prefer another replica.

        Raises:
            AdvisorError: the database cannot be read or written.
        """
        before = self._ownership.epochs
        membership = await self._ownership.renew()
        stored = membership.held_by(self._ownership.replica_id)
        held = self._ownership.epochs
        lost = {s for s, epoch in before.items() if held.get(s) == epoch and stored.get(s) != epoch}
        if lost:
            self.lose(lost)
        if self._ownership.draining:
            return
        if wanted := {shard for shard in membership.free() if self._is_preferred(membership, shard)}:
            await self._ownership.claim(wanted)
        foreign = {shard for shard in self._ownership.epochs if not self._is_preferred(membership, shard)}
        if foreign and (
            self._handover is None or self._handover.done()
        ):  # in the background: leases must not wait for it
            self._handover = asyncio.get_running_loop().create_task(self._try_hand_over(foreign))

    def _is_preferred(self, membership: Membership, shard: int) -> bool:
        best = preferred(membership.replicas.values(), shard)
        return best is not None and best.id == self._ownership.replica_id

    # ------------------------------------------------------------------------------- leaving

    async def drain(self, *, within_s: float | None = None) -> None:
        """Hand all shards over, if there is another replica and the database can be written.

        Shards that are not handed over in time stay here; their runs are stored before `leave`.
        """
        self._ownership.draining = True
        try:
            async with asyncio.timeout(within_s):
                await self._hand_all_over()
        except TimeoutError:
            log.error("not_given_away", problem=f"it took longer than {within_s:g} s")

    async def _hand_all_over(self) -> None:
        try:
            membership = await self._ownership.renew()
        except AdvisorError as error:
            log.error("not_given_away", problem=str(error))
            return
        if self._handover is not None:
            await self._handover
        if preferred(membership.replicas.values(), 0) is not None:
            await self._try_hand_over(self._ownership.epochs.keys())

    async def leave(self, *, within_s: float | None = None) -> None:
        """Delete the lease after everything is stored, so that other replicas need not wait for its expiry.

        Raises:
            AdvisorError: the database cannot be written, or not in time.
        """
        if self._renewing is not None:
            self._renewing.cancel()
        try:
            async with asyncio.timeout(within_s):
                while self._dropping:
                    await asyncio.wait(self._dropping)
                await self._ownership.leave()
        except TimeoutError as error:
            raise AdvisorError(
                Reason.STORE, "all is stored, but the lease could not be deleted in time; it will expire"
            ) from error

    # ------------------------------------------------------------------------------- moving

    async def _try_hand_over(self, shards: Collection[int]) -> None:
        try:
            await self.hand_over(shards)
        except AdvisorError as error:  # a later round tries again
            log.error("not_given_away", problem=str(error))

    async def hand_over(self, shards: Collection[int]) -> None:
        """Store the runs of shards, drop them from memory, and release the shards to other replicas.

        Raises:
            AdvisorError: the database cannot be written; the shards are still held then.
        """
        shards = set(shards)
        self._ownership.begin_move(shards)
        try:
            await self._ownership.unused(shards)
            await self._live.journal.flush()  # stores most of it while the runs continue
            closed = self._live.close_shards(shards)
            try:
                await self._live.journal.flush()
            except BaseException:
                for rows in closed:
                    rows.reopen()
                raise
            moved = await self._live.drop_shards(shards)
            await self._ownership.release(shards & self._ownership.epochs.keys())
        finally:
            self._ownership.end_move(shards)
        self._watchers.moved(moved)
        log.info("shards_given_away", shards=len(shards), runs=len(moved))

    def lose(self, shards: Collection[int]) -> None:
        """Drop shards that another replica has claimed: their runs are not answered from now on."""
        log.warning("shards_lost", shards=len(shards))
        self._ownership.lose(shards)
        self._ownership.begin_move(shards)
        self._live.forget_shards(shards)
        task = asyncio.get_running_loop().create_task(self._drop(shards))
        self._dropping.add(task)
        task.add_done_callback(self._dropping.discard)

    async def _drop(self, shards: Collection[int]) -> None:
        """Free the memory of lost runs after the calls about them have failed."""
        try:
            await self._ownership.unused(shards)
            moved = await self._live.drop_shards(shards)
        finally:
            self._ownership.end_move(shards)
        self._watchers.moved(moved)
