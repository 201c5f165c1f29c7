"""One replica among several: renews its lease, takes up shards that are to be its own, gives others away.

What it gives away is stored first, so that the next owner finds it whole. What it has lost, because its
lease ran out and another claimed it, it forgets: what was not stored of it, clients keep, and send to the
new owner.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection

import structlog

from mlrs_server.cluster.leases import Membership
from mlrs_server.cluster.membership import SharedOwnership
from mlrs_server.cluster.preference import preferred
from mlrs_server.errors import AdvisorError, Reason
from mlrs_server.live.live import LiveRuns
from mlrs_server.runs.watchers import Watchers

log = structlog.get_logger()

RENEWALS = 3
"""How often in a lease it is renewed: two may fail before it runs out."""


class Replica:
    """Keeps what is in memory and what is owned together. Used from one event loop."""

    def __init__(
        self, ownership: SharedOwnership, live: LiveRuns, watchers: Watchers, *, lease_s: float
    ) -> None:
        """`watchers` hear when a run moves."""
        self._ownership = ownership
        self._live = live
        self._watchers = watchers
        self._lease_s = lease_s
        self._forgetting: set[asyncio.Task[None]] = set()
        self._failing = False
        self.on_health: Callable[[bool], None] = lambda _works: None
        """Hears whether the database could be asked, each time that the lease was to be renewed."""
        self._keeping: asyncio.Task[None] | None = None
        self._giving: asyncio.Task[None] | None = None
        live.journal.when_fenced(self.lose)

    def start(self) -> None:
        """Keep the lease from now on, until `leave`."""
        self._keeping = asyncio.get_running_loop().create_task(self._keep())

    async def _keep(self) -> None:
        """Renew the lease, and see what is to come and go; goes on until cancelled."""
        while True:
            await asyncio.sleep(self._lease_s / RENEWALS)
            try:
                await self.reconcile()
            except AdvisorError as error:
                if not self._failing:
                    log.error("lease_failing", problem=str(error))
                self._failing = True
                self.on_health(False)
            except Exception as error:  # a defect: the next turn may fare better
                log.error("replica_failed", exc_info=error)
            else:
                self._failing = False
                self.on_health(True)

    async def reconcile(self) -> None:
        """Renew the lease; forget what was lost, claim what is free, give away what should be elsewhere.

        Raises:
            AdvisorError: the database cannot be asked.
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
        if foreign and (self._giving is None or self._giving.done()):  # leases do not wait for it
            self._giving = asyncio.get_running_loop().create_task(self._give_away_quietly(foreign))

    def _is_preferred(self, membership: Membership, shard: int) -> bool:
        best = preferred(membership.replicas.values(), shard)
        return best is not None and best.id == self._ownership.replica_id

    # ------------------------------------------------------------------------------- leaving

    async def drain(self, *, within_s: float | None = None) -> None:
        """Give everything away, if there is another replica to take it and the database can be written.

        What is not given away in time stays here, to be stored before `leave`.
        """
        self._ownership.draining = True
        try:
            async with asyncio.timeout(within_s):
                await self._give_all_away()
        except TimeoutError:
            log.error("not_given_away", problem=f"it took longer than {within_s:g} s")

    async def _give_all_away(self) -> None:
        try:
            membership = await self._ownership.renew()
        except AdvisorError as error:
            log.error("not_given_away", problem=str(error))
            return
        if self._giving is not None:
            await self._giving
        if preferred(membership.replicas.values(), 0) is not None:
            await self._give_away_quietly(self._ownership.epochs.keys())

    async def leave(self, *, within_s: float | None = None) -> None:
        """Give up the lease, once everything is stored: another replica need not wait for it to run out.

        Raises:
            AdvisorError: the database cannot be written, or not in time.
        """
        if self._keeping is not None:
            self._keeping.cancel()
        try:
            async with asyncio.timeout(within_s):
                while self._forgetting:
                    await asyncio.wait(self._forgetting)
                await self._ownership.leave()
        except TimeoutError as error:
            raise AdvisorError(
                Reason.STORE, "all is stored, but the lease could not be given up in time; it runs out"
            ) from error

    # ------------------------------------------------------------------------------- moving

    async def _give_away_quietly(self, shards: Collection[int]) -> None:
        try:
            await self.give_away(shards)
        except AdvisorError as error:  # a later look round tries again
            log.error("not_given_away", problem=str(error))

    async def give_away(self, shards: Collection[int]) -> None:
        """Store the runs of shards, forget them, and let another replica have them.

        Raises:
            AdvisorError: the database cannot be written; all is as before.
        """
        shards = set(shards)
        self._ownership.begin_move(shards)
        try:
            await self._ownership.unused(shards)
            await self._live.journal.flush()  # most of it, while the runs go on
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
        """Forget shards that another replica has: their runs answer nothing from now on."""
        log.warning("shards_lost", shards=len(shards))
        self._ownership.lose(shards)
        self._ownership.begin_move(shards)
        self._live.forget_shards(shards)
        task = asyncio.get_running_loop().create_task(self._forget(shards))
        self._forgetting.add(task)
        task.add_done_callback(self._forgetting.discard)

    async def _forget(self, shards: Collection[int]) -> None:
        """Free the memory of lost runs, once the calls about them have failed."""
        try:
            await self._ownership.unused(shards)
            moved = await self._live.drop_shards(shards)
        finally:
            self._ownership.end_move(shards)
        self._watchers.moved(moved)
