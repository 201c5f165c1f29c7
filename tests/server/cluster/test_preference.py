"""The preferred replicas of shards."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from mlrs_server.cluster.leases import ReplicaLease
from mlrs_server.cluster.preference import preferred
from mlrs_server.domain.shards import SHARDS

ids = st.sets(st.text("abcdef0123456789", min_size=4, max_size=16), min_size=1, max_size=6)


def _replica(name: str, *, draining: bool = False) -> ReplicaLease:
    return ReplicaLease(name, f"{name}:1", draining, 0.0)


def _choices(names: set[str]) -> list[str]:
    replicas = [_replica(name) for name in names]
    found = [preferred(replicas, shard) for shard in range(SHARDS)]
    return [replica.id for replica in found if replica is not None]


@given(ids)
def test_all_replicas_agree_in_whatever_order_they_see_each_other(names: set[str]) -> None:
    """The choice depends on the members, not on the order in which they are listed."""
    forwards = [_replica(name) for name in sorted(names)]
    assert all(preferred(forwards, shard) == preferred(forwards[::-1], shard) for shard in range(SHARDS))


@given(ids, st.text("xyz", min_size=4, max_size=8))
def test_a_replica_that_comes_takes_shards_and_moves_no_other(names: set[str], newcomer: str) -> None:
    """Shards either stay where they were or go to the newcomer."""
    pairs = zip(_choices(names), _choices(names | {newcomer}), strict=True)
    assert all(after in {before, newcomer} for before, after in pairs)


def test_four_replicas_get_about_as_many_shards_each() -> None:
    """None of four has fewer than half, or more than twice, its fair share."""
    choices = _choices({"alpha", "beta", "gamma", "delta"})
    assert all(SHARDS / 8 < choices.count(name) < SHARDS / 2 for name in set(choices))
    assert len(set(choices)) == 4


def test_a_draining_replica_is_given_nothing() -> None:
    """Shards go to the others, and nowhere if there are none."""
    leaving, staying = _replica("a", draining=True), _replica("b")
    assert {preferred([leaving, staying], shard) for shard in range(SHARDS)} == {staying}
    assert preferred([leaving], 0) is None
