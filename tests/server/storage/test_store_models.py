"""Models, names and aliases in a store: what one process changes, every other reads."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mlrs_server.domain.aliases import AliasChange
from mlrs_server.domain.model_index import Index
from mlrs_server.errors import AdvisorError, Reason, invalid_field
from tests.server.models.catalogs import Catalogs
from tests.server.support import raises

WRITERS, CHANGES = 4, 12


def test_an_index_is_read_again_when_it_changed(catalogs: Catalogs) -> None:
    """A store gives back the index that it is shown until any process has changed it."""
    here, there = catalogs.store(), catalogs.store()
    first = here.model_index(Index())
    assert (first.models, first.changes) == ({}, {})
    assert here.model_index(first) is first
    changed = there.change_models(lambda index: index.with_model("acme", "m", "1"), {})
    assert changed.models == {("acme!m", "1"): True}
    assert here.model_index(first) == changed
    assert here.model_index(changed) is changed


def test_a_change_that_fails_writes_nothing(catalogs: Catalogs) -> None:
    """Where a change raises, neither files nor names are there, and the store goes on."""
    store = catalogs.store()

    def refused(_: Index) -> Index:
        raise invalid_field("name", "no")

    with raises(Reason.INVALID_FIELD):
        store.change_models(refused, {"1": b"file"})
    assert store.models(["1"]) == {}
    before = store.model_index(Index())
    store.change_models(lambda index: index.with_version("", "m", "1"), {"1": b"file"})
    assert store.models(["1", "2"]) == {"1": b"file"}
    assert store.model_index(before).models == {("m", "1"): False}


def test_changes_come_one_after_the_other(catalogs: Catalogs) -> None:
    """Processes that change the index at the same time lose nothing of each other's."""
    stores = [catalogs.store() for _ in range(WRITERS)]

    def write(number: int) -> None:
        for count in range(CHANGES):
            change = AliasChange(f"{number}.{count}", "set", 1.0)
            stores[number].change_models(
                lambda index, change=change: index.with_alias("", "best", change, None).with_model(
                    "", f"m{number}", change.target
                ),
                {change.target: b"file"},
            )

    # One process has a SQLite store, so there they come one after the other anyway.
    with ThreadPoolExecutor(1 if stores[0].engine_name == "sqlite" else WRITERS) as threads:
        list(threads.map(write, range(WRITERS)))
    index = catalogs.store().model_index(Index())
    targets = [change.target for change in index.changes["best"]]
    assert sorted(targets) == sorted(f"{n}.{count}" for n in range(WRITERS) for count in range(CHANGES))
    for number in range(WRITERS):  # each process's in its order
        mine = [target for target in targets if target.startswith(f"{number}.")]
        assert mine == [f"{number}.{count}" for count in range(CHANGES)]
        assert index.models[f"m{number}", mine[-1]]
        assert not index.models[f"m{number}", mine[0]]


def test_a_large_index_is_kept(catalogs: Catalogs) -> None:
    """An index of a thousand names and aliases is read and written whole."""
    store = catalogs.store()

    def filled(index: Index) -> Index:
        for number in range(1000):
            index = index.with_model("", f"m{number}", str(number))
        return index

    changed = store.change_models(filled, {})
    assert catalogs.store().model_index(Index()) == changed
    assert len(changed.models) == 1000


TENANTS, NAMES, DIGESTS = st.sampled_from(["", "acme"]), st.sampled_from("ab"), st.sampled_from("123")
STEPS = st.one_of(
    st.tuples(st.sampled_from(["with_model", "with_version"]), TENANTS, NAMES, DIGESTS),
    st.tuples(
        st.just("with_alias"),
        TENANTS,
        NAMES,
        st.builds(
            AliasChange, DIGESTS, st.sampled_from(["set", "promote", "rollback"]), st.none() | st.floats(0, 9)
        ),
        st.none() | DIGESTS,
    ),
)


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(STEPS, max_size=8))
def test_a_store_keeps_an_index_as_it_is_in_memory(catalogs: Catalogs, steps: list[Any]) -> None:
    """After any changes by two processes, both read what the same changes give in memory."""
    stores = [catalogs.store() for _ in range(2)]
    expected = stores[0].model_index(Index())
    for number, (method, *arguments) in enumerate(steps):
        expected = getattr(expected, method)(*arguments)
        stores[number % 2].change_models(
            lambda index, method=method, arguments=arguments: getattr(index, method)(*arguments), {}
        )
    for store in stores:
        found = store.model_index(Index())
        assert (dict(found.models), dict(found.changes)) == (dict(expected.models), dict(expected.changes))
        store.close()


@pytest.mark.parametrize("method", ["model_index", "change_models"])
def test_a_store_that_fails_says_so(catalogs: Catalogs, method: str) -> None:
    """A database whose tables are gone is an error of the store, in words."""
    store = catalogs.store()
    with store.transaction() as connection:
        connection.exec_driver_sql("DROP TABLE model_revision")
    arguments = [Index()] if method == "model_index" else [lambda index: index, {}]
    with pytest.raises(AdvisorError) as caught:
        getattr(store, method)(*arguments)
    assert caught.value.reason == Reason.STORE
