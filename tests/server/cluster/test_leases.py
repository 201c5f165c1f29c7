"""Leases and owners in the database, on every engine that a store can have."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
import sqlalchemy as sa

from mlrs_server.cluster.leases import Leases, check_epochs
from mlrs_server.domain.shards import SHARDS
from mlrs_server.errors import FencedError
from mlrs_server.storage import SqlStore
from mlrs_server.storage.tables import replicas

Make = Callable[..., Leases]


@pytest.fixture
def make(store: SqlStore) -> Make:
    """Return a function that adds a replica with a renewed lease."""

    def made(name: str, *, lease_s: float = 60.0) -> Leases:
        leases = Leases(store, name, lease_s=lease_s)
        leases.address = f"{name}:1"
        leases.renew()
        return leases

    return made


def _expire(store: SqlStore, name: str) -> None:
    """Make a replica's lease expired."""
    with store.transaction() as connection:
        connection.execute(replicas.update().where(replicas.c.id == name).values(lease_until=0.0))


def test_a_new_store_has_free_shards_only(make: Make) -> None:
    """Every shard is free, and the replica is a member."""
    membership = make("a").renew()
    assert membership.free() == set(range(SHARDS))
    assert membership.replicas["a"].address == "a:1"


def test_a_claim_holds_against_others_while_the_lease_is_valid(make: Make) -> None:
    """The second to claim gets what the first left."""
    a, b = make("a"), make("b")
    assert a.claim([1, 2]) == {1: 1, 2: 1}
    assert b.claim([2, 3]) == {3: 1}
    assert a.claim([1, 2, 3]) == {1: 1, 2: 1}, "claiming again finds what is held, at its epoch"


def test_a_lease_that_has_run_out_lets_others_claim_at_the_next_epoch(make: Make, store: SqlStore) -> None:
    """A takeover increments the epoch, and the previous owner is fenced off, also after it renews."""
    a, b = make("a"), make("b")
    held = a.claim([7])
    _expire(store, "a")
    assert b.claim([7]) == {7: 2}
    a.renew()
    assert a.claim([7]) == {}
    with store.transaction() as connection, pytest.raises(FencedError) as caught:
        check_epochs(connection, held, [7], 60.0)
    assert caught.value.shards == {7}


def test_a_lease_that_ran_out_unnoticed_costs_nothing(make: Make, store: SqlStore) -> None:
    """An owner that no replica replaced continues at its epoch."""
    a = make("a")
    held = a.claim([7])
    _expire(store, "a")
    assert a.renew().held_by("a") == held
    with store.transaction() as connection:
        check_epochs(connection, held, [7], 60.0)


def test_released_shards_are_free_at_once(make: Make) -> None:
    """Another claims them without waiting for the lease."""
    a, b = make("a"), make("b")
    a.release(a.claim([1, 2]))
    assert b.claim([1, 2]) == {1: 2, 2: 2}


def test_a_replica_that_leaves_frees_its_shards(make: Make) -> None:
    """Shards that it did not release are free after its lease is deleted."""
    a, b = make("a"), make("b")
    a.claim([1])
    a.leave()
    assert b.renew().replicas.keys() == {"b"}
    assert b.claim([1]) == {1: 2}


def test_shards_never_claimed_are_fenced_off(make: Make, store: SqlStore) -> None:
    """Writing a run of a shard that is not held is refused."""
    make("a")
    with store.transaction() as connection, pytest.raises(FencedError):
        check_epochs(connection, {}, [0], 60.0)


def test_of_many_that_claim_at_once_each_shard_gets_one_owner(make: Make, store: SqlStore) -> None:
    """Eight replicas that race for all shards divide them."""
    racing = [make(f"r{index}") for index in range(8)]
    with ThreadPoolExecutor(1 if store.engine_name == "sqlite" else 8) as threads:
        got = list(threads.map(lambda leases: leases.claim(range(SHARDS)), racing))
    claimed = [shard for claims in got for shard in claims]
    assert sorted(claimed) == list(range(SHARDS))


def test_a_claim_waits_for_a_write_that_has_checked_its_epochs(make: Make, store: SqlStore) -> None:
    """Between the check and the commit no replica claims the shard."""
    if store.engine_name == "sqlite":
        pytest.skip("one connection: its transactions come one after the other anyway")
    a, b = make("a"), make("b")
    held = a.claim([7])
    _expire(store, "a")
    with ThreadPoolExecutor(1) as threads:
        with store.transaction() as connection:
            check_epochs(connection, held, [7], 60.0)
            claiming = threads.submit(b.claim, [7])
            while not _waiting(store):
                assert not claiming.done()
        assert claiming.result(10) == {7: 2}


def _waiting(store: SqlStore) -> int:
    """Return how many sessions wait for a lock, from a new transaction."""
    query = sa.text("SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'")
    with store.reading() as connection:
        return int(connection.execute(query).scalar_one())
