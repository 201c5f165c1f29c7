"""Replicas over one database: ownership, takeovers and hand-overs."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import numpy as np
import pytest

from mlrs_core.config import RunConfig
from mlrs_core.models.checkpoint import read_model
from mlrs_core.policy import Floats
from mlrs_server.domain.ledger import RunStatus
from mlrs_server.domain.run_events import RunEventKind
from mlrs_server.domain.shards import SHARDS, shard_of
from mlrs_server.errors import AdvisorError, Reason
from mlrs_server.runs.open_request import OpenRequest
from mlrs_server.runs.summaries import Part, RunSummaries
from mlrs_server.storage import SqlStore, Store
from tests.server.cluster.conftest import Join, Member, expire
from tests.server.runs.searches import ask, found_by, tried, tried_but_one
from tests.server.support import LOSSES, raises, replayed, until
from tests.support.daemon import write_random_model

T = TypeVar("T")

CONFIG = RunConfig(horizon=1000)
STEPS = 40


async def _open(member: Member, run_id: str = "run") -> int:
    return (await member.harness.open(run_id, CONFIG)).handle


def _expected(member: Member, count: int) -> Floats:
    return replayed(member.harness.catalog.find("").policy, CONFIG, LOSSES[:count])


async def _divide(a: Member, b: Member) -> None:
    """Reconcile both until each has its part."""
    await a.replica.reconcile()
    assert a.replica._handover is not None
    await a.replica._handover
    await b.replica.reconcile()


def _run_of(member: Member) -> str:
    """Return the id of a run that a replica owns."""
    return next(f"run-{n}" for n in range(1000) if shard_of(f"run-{n}") in member.shards)


async def test_a_replica_that_is_alone_takes_every_shard(join: Join) -> None:
    """The first replica owns all shards."""
    async with join("a:1") as a:
        assert a.shards == set(range(SHARDS))


async def test_a_second_replica_gets_its_part_and_calls_are_referred(join: Join) -> None:
    """After both have reconciled, the shards are divided; a call at the wrong one names the owner."""
    async with join("a:1") as a, join("b:1") as b:
        await _divide(a, b)
        assert a.shards | b.shards == set(range(SHARDS))
        assert not a.shards & b.shards
        for member, other in ((a, b), (b, a)):
            with pytest.raises(AdvisorError, match="call there") as caught:
                await _open(member, _run_of(other))
            assert (caught.value.reason, caught.value.owner) == (Reason.NOT_OWNER, other.leases.address)
            await _open(other, _run_of(other))


async def test_a_run_handed_over_continues_bit_for_bit(join: Join) -> None:
    """A drained replica's run is complete at the next owner; at the old one its handle is stale."""
    async with join("a:1") as a:
        handle = await _open(a)
        first = await a.harness.follow(handle, LOSSES[:STEPS])
        async with join("b:1") as b:
            await a.replica.drain()
            assert a.shards == set()
            stale = await a.harness.ask(handle, STEPS, LOSSES[STEPS])
            assert stale.errors[0].reason == Reason.STALE_HANDLE
            with raises(Reason.NOT_OWNER):
                await _open(a)
            again = await b.harness.follow(await _open(b), LOSSES[STEPS : 2 * STEPS], start=STEPS)
            assert np.array_equal([*first, *again], _expected(b, 2 * STEPS))


async def test_a_replica_that_drains_alone_keeps_its_runs(join: Join) -> None:
    """Without another replica, runs are answered to the end."""
    async with join("a:1") as a:
        handle = await _open(a)
        await a.replica.drain()
        lrs = await a.harness.follow(handle, LOSSES[:STEPS])
        assert np.array_equal(lrs, _expected(a, STEPS))


async def test_a_resumed_former_owner_writes_nothing(join: Join, store: SqlStore) -> None:
    """Answers after the lease expired are fenced off; the next owner gives the same answers again."""
    async with join("a:1") as a, join("b:1") as b:
        handle = await _open(a)
        await a.harness.follow(handle, LOSSES[:STEPS])
        await a.harness.live.journal.flush()
        beyond = await a.harness.follow(handle, LOSSES[STEPS : STEPS + 5], start=STEPS)
        expire(store, a)
        await b.replica.reconcile()
        assert shard_of("run") in b.shards
        await a.harness.live.journal.flush()  # finds out
        assert shard_of("run") not in a.shards
        await a.replica.reconcile()  # finds out the rest
        assert not a.shards & b.shards
        gone = await a.harness.ask(handle, STEPS + 5, 1.0)
        assert gone.errors[0].reason == Reason.STALE_HANDLE
        opened = await b.harness.open("run")
        assert opened.view.snapshot.next_step == STEPS
        again = await b.harness.follow(opened.handle, LOSSES[STEPS : STEPS + 5], start=STEPS)
        assert np.array_equal(beyond, again)
        while a.replica._dropping:
            await asyncio.wait(a.replica._dropping)
        assert a.harness.live.find("run") is None


async def test_a_search_handed_over_continues(join: Join) -> None:
    """A search goes on at the next owner behind the trials of the first, which refuses further results."""
    async with join("a:1") as a:
        await _open(a)
        view = await tried_but_one(a.harness, run_id="run")
        async with join("b:1") as b:
            await a.replica.drain()
            with raises(Reason.NOT_OWNER):
                await tried(a.harness, view, run_id="run")
            assert await ask(b.harness, run_id="run") == view
            found = found_by(await tried(b.harness, view, run_id="run"))
            opened = await b.harness.open("run", CONFIG)
            assert opened.view.config.found is not None
            assert opened.view.config.found.learning_rate == found.learning_rate


async def test_a_former_owner_decides_no_search(join: Join, store: SqlStore) -> None:
    """The last trial that a replica takes after its lease expired is fenced off; the next owner decides."""
    async with join("a:1") as a, join("b:1") as b:
        await _open(a)
        view = await tried_but_one(a.harness, run_id="run")
        expire(store, a)
        await b.replica.reconcile()
        with raises(Reason.NOT_OWNER):
            await tried(a.harness, view, run_id="run")
        assert await ask(b.harness, run_id="run") == view
        assert (await b.harness.records.get("run")).config == CONFIG
        found_by(await tried(b.harness, view, run_id="run"))
        with raises(Reason.NOT_OWNER):
            await ask(a.harness, run_id="run", start="other")
        handle = (await b.harness.open("run", CONFIG)).handle
        assert len(await b.harness.follow(handle, LOSSES[:STEPS])) == STEPS


async def test_a_flush_that_failed_is_over_once_all_of_it_was_lost(join: Join, store: SqlStore) -> None:
    """With nothing left to store no flush fails any more, and health says so without waiting for the next."""
    async with join("a:1") as a, join("b:1") as b:
        reported: list[bool] = []
        a.harness.live.journal.on_health = reported.append
        await a.harness.follow(await _open(a), LOSSES[:STEPS])
        a.harness.store.failing |= {"append"}
        with raises(Reason.STORE):
            await a.harness.live.journal.flush()
        expire(store, a)
        await b.replica.reconcile()
        await a.replica.reconcile()
        await a.harness.live.journal.flush()
        assert reported == [False, True]


async def test_losing_one_shard_does_not_delay_others(join: Join, store: SqlStore) -> None:
    """A flush that is fenced off for one run stores the others."""
    async with join("a:1") as a, join("b:1") as b:
        mine, theirs = await _open(a, "mine"), await _open(a, "theirs")
        assert shard_of("mine") != shard_of("theirs")
        expire(store, a)
        await b.sharing.ownership.claim([shard_of("theirs")])
        await a.sharing.ownership.renew()
        await a.harness.ask([mine, theirs], [0, 0], [1.0, 2.0])
        await a.harness.live.journal.flush()
        assert (await a.harness.open("mine")).view.durable_step == 0
        assert (await b.harness.open("theirs")).view.durable_step == -1
        assert a.harness.live.journal._unflushed == 0


@pytest.mark.parametrize("call", ["finish", "delete", "rewind", "open"])
async def test_calls_at_a_former_owner_change_nothing(join: Join, store: SqlStore, call: str) -> None:
    """A replica that does not know yet that it lost a run cannot finish, delete, rewind or complete it."""
    async with join("a:1") as a, join("b:1") as b:
        handle = await _open(a)
        await a.harness.follow(handle, LOSSES[:STEPS] if call != "open" else [])
        await a.harness.live.journal.flush()
        expire(store, a)
        await b.replica.reconcile()
        with raises(Reason.NOT_OWNER):
            if call == "finish":
                await a.harness.finish("run")
            elif call == "delete":
                await a.harness.ending.delete("run")
            elif call == "rewind":
                await a.harness.open("run", resume_from=3)
            else:
                await a.harness.open("run", RunConfig(num_classes=7))
        view = (await b.harness.open("run")).view
        assert view.snapshot.status == RunStatus.ACTIVE
        assert view.snapshot.next_step == (0 if call == "open" else STEPS)
        assert view.config == CONFIG


async def test_a_run_that_its_owner_stored_meanwhile_is_read_again(join: Join) -> None:
    """A replica that claims a shard during a call sees what the previous owner stored last."""
    async with join("a:1") as a, join("b:1") as b:
        handle = await _open(a)
        await a.harness.follow(handle, LOSSES[:STEPS])
        read = asyncio.Event()
        in_store = b.harness.stored.in_store

        async def in_store_before(work: Callable[[Store], T]) -> T:
            runs = await in_store(work)
            if not read.is_set():  # between the first reading and the claim, the owner gives the run away
                read.set()
                await a.replica.drain()
            return runs

        b.harness.stored.in_store = in_store_before  # type: ignore[method-assign]
        await _open(a, "other")
        opened = await b.harness.open("run", CONFIG)
        assert opened.view.snapshot.next_step == STEPS


async def test_an_open_call_ends_before_its_run_is_handed_over(join: Join) -> None:
    """A hand-over waits for a rewind; calls that come meanwhile wait for the hand-over."""
    async with join("a:1") as a, join("b:1") as b:
        await a.harness.follow(await _open(a), LOSSES[:STEPS])
        await a.harness.live.journal.flush()
        a.harness.store.unblocked.clear()
        rewinding = asyncio.create_task(a.harness.open("run", resume_from=10))
        await until(lambda: a.harness.store.calls[-1:] == ["get"])
        a.harness.store.unblocked.set()
        await until(lambda: bool(a.sharing.ownership._users[shard_of("run")]))
        a.sharing.ownership.draining = True
        draining = asyncio.create_task(a.replica.hand_over(a.shards))
        await until(lambda: bool(a.sharing.ownership._moving[shard_of("run")]))
        late = asyncio.create_task(a.harness.open("run"))
        opened = await rewinding
        assert opened.view.snapshot.next_step == 10
        await draining
        with raises(Reason.NOT_OWNER):
            await late
        assert (await b.harness.open("run")).view.snapshot.next_step == 10


async def test_a_follower_is_sent_to_the_new_owner(join: Join) -> None:
    """A watch that follows a run ends with NOT_OWNER when the run moves, and begins only at the owner."""
    async with join("a:1") as a, join("b:1"):
        await _open(a)
        watching = a.harness.records.watch("run", 0, follow=True)
        await anext(watching)
        following = asyncio.create_task(anext(watching))
        await asyncio.sleep(0)
        await a.replica.drain()
        with raises(Reason.NOT_OWNER):
            await following
        with raises(Reason.NOT_OWNER):
            await anext(a.harness.records.watch("run", 0, follow=True))
        record = [part async for _, _, part in a.harness.records.watch("run", 0, follow=False)]
        assert [len(part) for part in record] == [0]


async def test_a_record_can_be_read_while_its_run_moves(join: Join) -> None:
    """A watch that does not follow the run ends at what is stored, wherever it is read."""
    async with join("a:1") as a, join("b:1"):
        await a.harness.follow(await _open(a), LOSSES[:STEPS])
        reading = a.harness.records.watch("run", 0, follow=False)
        await anext(reading)
        await a.replica.drain()
        assert sum([len(part) async for _, _, part in reading]) == STEPS


async def test_runs_of_one_group_share_an_owner(join: Join) -> None:
    """The runs of a sweep have the owner of its first run, whatever their ids."""
    async with join("a:1") as a, join("b:1") as b:
        await _divide(a, b)
        first = _run_of(a)
        requests = [OpenRequest(run_id=f"member-{n}", asked=CONFIG, group=first) for n in range(64)]
        assert len(await a.harness.opener.open_many(requests)) == 64
        with raises(Reason.NOT_OWNER):
            await b.harness.opener.open_many(requests)


async def test_a_batch_over_several_owners_is_refused_with_the_way_out(join: Join) -> None:
    """Runs without a group that lie at different owners cannot be opened together; the error says how."""
    async with join("a:1") as a, join("b:1") as b:
        await _divide(a, b)
        requests = [OpenRequest(run_id=_run_of(member), asked=CONFIG) for member in (a, b)]
        with raises(Reason.INVALID_FIELD, match="group"):
            await a.harness.opener.open_many(requests)


async def test_advice_continues_without_the_database_and_ownership_comes_back(join: Join) -> None:
    """While the database fails, answers continue and are not durable; afterwards nothing is lost."""
    async with join("a:1") as a:
        handle = await _open(a)
        a.harness.store.failing |= {"append"}
        before = await a.harness.follow(handle, LOSSES[:STEPS])
        with raises(Reason.STORE):
            await a.harness.live.journal.flush()
        a.harness.store.failing.clear()
        await a.replica.reconcile()
        await a.harness.live.journal.flush()
        assert (await a.harness.open("run")).view.durable_step == STEPS - 1
        assert np.array_equal(before, _expected(a, STEPS))


async def test_a_hand_over_that_cannot_be_stored_is_none(join: Join) -> None:
    """If the store fails during a hand-over, the runs stay, with their handles."""
    async with join("a:1") as a, join("b:1"):
        handle = await _open(a)
        await a.harness.follow(handle, LOSSES[:5])
        a.harness.store.failing |= {"append"}
        with raises(Reason.STORE):
            await a.replica.hand_over(a.shards)
        a.harness.store.failing.clear()
        assert a.shards == set(range(SHARDS))
        lrs = await a.harness.follow(handle, LOSSES[5:STEPS], start=5)
        assert np.array_equal(lrs, _expected(a, STEPS)[5:])


async def test_a_model_that_one_replica_imported_serves_its_runs_at_another(
    join: Join, tmp_path: Path
) -> None:
    """A run continues at a replica where its model was never imported: the store has the file."""
    async with join("a:1") as a, join("b:1") as b:
        a.harness.catalog.add_file(write_random_model(tmp_path / "other.safetensors", seed=5), "other")
        handle = (await a.harness.open("run", CONFIG, model="other")).handle
        first = await a.harness.follow(handle, LOSSES[:STEPS])
        await a.replica.drain()
        again = await b.harness.follow(await _open(b), LOSSES[STEPS : 2 * STEPS], start=STEPS)
        policy = a.harness.catalog.find("other").policy
        assert np.array_equal([*first, *again], replayed(policy, CONFIG, LOSSES[: 2 * STEPS]))


async def test_a_tenants_model_stays_its_own_at_another_replica(join: Join, tmp_path: Path) -> None:
    """A model that moved with its run is known to the run's tenant there, and to no other."""
    async with join("a:1") as a, join("b:1") as b:
        file = write_random_model(tmp_path / "secret.safetensors", seed=5)
        secret = a.harness.catalog.add(read_model(file)[0], "secret", "acme")
        await a.harness.open("acme!run", CONFIG, model="secret")
        await a.replica.drain()
        await b.harness.open("acme!run", CONFIG)
        assert b.harness.catalog.find(secret.ref, "acme").digest == secret.digest
        for tenant in ("", "other"):
            with raises(Reason.MODEL_NOT_FOUND):
                b.harness.catalog.find(secret.ref, tenant)
            assert secret.ref not in [model.ref for model in b.harness.catalog.page(tenant)]


async def test_any_replica_reads_records_in_buckets(join: Join) -> None:
    """A replica that does not own a run summarizes what its owner has stored, and notices its rewinds."""
    async with join("a:1") as a, join("b:1") as b:
        handle = await _open(a)
        await a.harness.follow(handle, LOSSES[:STEPS])
        reading = RunSummaries(b.harness.stored)
        assert (await reading.summarize("run", Part())).summary.end == 0
        await a.harness.live.journal.flush()
        read = await reading.summarize("run", Part(most_buckets=10))
        assert (read.summary.end, len(read.summary.held)) == (STEPS, 10)
        await a.harness.open("run", CONFIG, resume_from=9)
        again = await reading.summarize("run", read.position)
        assert (again.summary.first_step, again.summary.end) == (8, 9)
        (sample,) = await reading.sample(["run"], 3)
        assert sample.steps.tolist() == [0, 4, 8]
        (event,) = await b.harness.records.events("run", 0)
        assert (event.kind, event.step, event.from_step) == (RunEventKind.REWOUND, 9, STEPS)
