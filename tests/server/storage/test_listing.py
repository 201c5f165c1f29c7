"""Lists of runs by what they have in common, on every store there is."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import sqlalchemy as sa
from hypothesis import given, settings
from hypothesis import strategies as st

from mlrs_server.domain.ledger import RunStatus
from mlrs_server.storage import (
    Creation,
    Position,
    Recency,
    RunTraits,
    SqlStore,
    StoredRun,
    listing,
    open_store,
)
from mlrs_server.storage.tables import runs
from mlrs_server.tenancy import bare, full_name, tenant_of
from tests.server.storage.stored import fill, new_run
from tests.support.postgres import PostgresServer

MODEL, OTHER, SPEC = "a" * 64, "b" * 64, "c" * 64
"""The digests of two models and a schedule."""
KINDS = [("m", MODEL), ("m", OTHER), ("one!m", OTHER), ("cosine", MODEL), ("cosine", SPEC)]
"""Names and digests of what serves the runs: models, one of a tenant alone, and a schedule."""
IDS = ["a", "a-b", "a_b", "axb", "A", "b/a", "b/a_b", "task/one", "task/two", "zz"]


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def listed(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SqlStore]:
    """Each of the stores, with runs of two tenants that differ in all that lists are filtered by."""
    if request.param == "sqlite":
        store = open_store(tmp_path_factory.mktemp("store") / "store")
    else:
        server: PostgresServer = request.getfixturevalue("postgres")
        store = open_store(server.new_database())
    with closing(store):
        store.change_models(lambda index: index, {MODEL: b"", OTHER: b""})
        for number, (tenant, name) in enumerate((tenant, name) for tenant in ("", "one") for name in IDS):
            model, digest = KINDS[number % len(KINDS)]
            tags = {"even": str(number % 2 == 0), **({"third": ""} if number % 3 == 0 else {})}
            task = "" if number % 4 == 0 else ["task/one", "other"][number % 2]
            run = replace(
                new_run(full_name(tenant, name)),
                model_name=model,
                model_digest=digest,
                task=task,
                tags=tags,
            )
            (created,) = store.create([run])
            if number % 3:
                fill(store, created, 2)
            if number % 5 == 0:
                store.finish([created])
        with store.transaction() as connection:  # so that some times are the same
            for column in (runs.c.create_time, runs.c.update_time):
                connection.execute(runs.update().values({column: sa.func.round(runs.c.key * 0.4) + 1e9}))
        yield store


def has(run: StoredRun, tenant: str, prefix: str, status: RunStatus | None, traits: RunTraits) -> bool:
    """Return whether a run is of a list, as the contract says it in words."""
    run_id = bare(run.run_id)
    names = (traits.model, full_name(tenant, traits.model))
    is_model = run.model_digest != SPEC and run.model_name in names
    return (
        tenant_of(run.run_id) == tenant
        and run_id.startswith(prefix)
        and status in (None, run.status)
        and traits.contains in run_id
        and (not traits.model or (is_model and run.model_digest.startswith(traits.digest)))
        and traits.task in ("", run.task or run_id)
        and all(name in run.tags and value in ("", run.tags[name]) for name, value in traits.tags.items())
    )


def beyond(after: Position, page: list[StoredRun]) -> Position:
    """Return the position at the end of a page."""
    last = page[-1]
    if isinstance(after, str):
        return bare(last.run_id)
    if isinstance(after, Creation):
        return Creation(last.create_time, bare(last.run_id))
    return Recency(min(after.newest, page[0].update_time), last.update_time, bare(last.run_id))


def in_order(found: list[StoredRun], after: Position) -> list[StoredRun]:
    """Return runs in the order of a position."""
    if isinstance(after, str):
        return sorted(found, key=lambda run: run.run_id)
    time = "create_time" if isinstance(after, Creation) else "update_time"
    return sorted(found, key=lambda run: (getattr(run, time), run.run_id), reverse=True)


TEXTS = ["", "", "a", "_", "a_b", "%", "\\", "\\_", "_%", "/", "!", "\x00", "one", "é"]
TAGS = st.dictionaries(
    st.sampled_from(["even", "third", "none"]), st.sampled_from(["", "True", "x"]), max_size=2
)
TRAITS = st.builds(
    RunTraits,
    contains=st.sampled_from(TEXTS),
    task=st.sampled_from(["", "", "task/one", "other", "zz", "none"]),
    tags=TAGS,
) | st.builds(
    RunTraits,
    model=st.sampled_from(["m", "cosine", "x"]),
    digest=st.sampled_from(["", "aaaaaaaa", "b" * 64]),
)


@settings(max_examples=60)
@given(
    tenant=st.sampled_from(["", "one", "two"]),
    prefix=st.sampled_from(["", "", "a", "task/", "%", "_", "a_", "\\"]),
    status=st.sampled_from([None, None, RunStatus.ACTIVE, RunStatus.FINISHED, RunStatus.DIVERGED]),
    traits=TRAITS,
    first=st.sampled_from(["", Recency(), Creation()]),
    limit=st.integers(1, 25),
    few=st.sampled_from([0, 3, listing.FEW]),
)
def test_pages_hold_each_run_that_is_meant_once(
    listed: SqlStore,
    tenant: str,
    prefix: str,
    status: RunStatus | None,
    traits: RunTraits,
    first: Position,
    limit: int,
    few: int,
) -> None:
    """Whatever lists are filtered by, in whatever order and pages, however many runs count as few.

    Characters that patterns give a meaning are literal.
    """
    every = listed.list(prefix="", status=None, after="", limit=99)
    every += listed.list(prefix="", status=None, after="", limit=99, tenant="one")
    assert len(every) == 2 * len(IDS)
    wanted = in_order([run for run in every if has(run, tenant, prefix, status, traits)], first)
    found, after = list[StoredRun](), first
    with patch.object(listing, "FEW", few):
        while page := listed.list(
            prefix=prefix, status=status, after=after, limit=limit, tenant=tenant, traits=traits
        ):
            assert len(page) <= limit
            found += page
            after = beyond(after, page)
    assert [run.run_id for run in found] == [run.run_id for run in wanted]


@pytest.fixture
def plans(tmp_path: Path) -> Iterator[Any]:
    """A function that returns how SQLite reads a page of a list, of an empty store."""
    with closing(open_store(tmp_path / "store")) as store, store.reading() as connection:
        file: Any = connection.connection.driver_connection
        asked = list[tuple[str, Any]]()
        sa.event.listen(connection, "before_cursor_execute", lambda *args: asked.append(args[2:4]))

        def planned(after: Position, **chosen: Any) -> list[list[str]]:
            asked.clear()
            options: dict[str, Any] = {"prefix": "", "status": None, "tenant": "", "traits": RunTraits()}
            listing.page(connection, listing.Choice(**options | chosen), after, 50)
            return [
                [row[3] for row in file.execute(f"EXPLAIN QUERY PLAN {text}", values)]
                for text, values in asked
            ]

        yield planned


FILTERS: dict[str, dict[str, Any]] = {
    "all": {},
    "prefix": {"prefix": "a"},
    "tenant": {"tenant": "one"},
    "status": {"status": RunStatus.ACTIVE},
    "contains": {"traits": RunTraits(contains="a")},
    "model": {"traits": RunTraits(model="m", digest="a" * 12)},
    "task": {"traits": RunTraits(task="t")},
    "tags": {"traits": RunTraits(tags={"x": "1", "y": ""})},
}
ORDERS = [
    ("x", "sqlite_autoindex_runs_1"),
    (Creation(8.0, "x"), "runs_by_creation"),
]


@pytest.mark.parametrize("chosen", FILTERS.values(), ids=FILTERS)
@pytest.mark.parametrize(("after", "index"), ORDERS, ids=["id", "creation"])
def test_a_page_is_read_along_an_index(
    plans: Any, chosen: dict[str, Any], after: Position, index: str
) -> None:
    """No page by id or creation sorts all runs: it follows the index of its order, or of a trait."""
    with patch.object(listing, "FEW", -1):  # so that no runs are few
        *counts, _ = [*plans(after, **chosen), []]
        pages = [plan for plan in counts if not any("CO-ROUTINE" in step for step in plan)]
        assert f"USING INDEX {index}" in pages[0][0]
        assert not any("TEMP B-TREE" in step for step in pages[0])
    sources = [plan for plan in counts if plan not in pages]
    for plan in sources:
        assert all("SCAN runs" not in step or "COVERING INDEX" in step for step in plan)
        assert not any("TEMP B-TREE" in step for step in plan)
    if sources:
        _, page, *_ = plans(after, **chosen)  # an empty store's runs are few
        assert any("SEARCH runs USING INTEGER PRIMARY KEY" in step for step in page)


@pytest.mark.parametrize("name", ["prefix", "tenant", "task", "model", "tags"])
def test_a_page_by_recency_reads_a_part(plans: Any, name: str) -> None:
    """The newest runs of a tenant, or with a trait, are found by that, where they are few."""
    *counts, newest, moved = plans(Recency(9.0, 8.0, "x"), **FILTERS[name])
    assert counts
    for plan in (newest, moved):
        assert not any("SCAN runs" in step for step in plan)


@pytest.mark.parametrize("name", ["prefix", "tenant"])
def test_a_page_by_recency_reads_no_other_tenant(plans: Any, name: str) -> None:
    """Where a tenant, or a prefix, has many runs, only these are read to be sorted."""
    with patch.object(listing, "FEW", -1):
        *_, newest, moved = plans(Recency(9.0, 8.0, "x"), **FILTERS[name])
    for plan in (newest, moved):
        assert "SEARCH runs USING INDEX sqlite_autoindex_runs_1" in plan[0]


def test_no_index_has_what_a_flush_sets(listed: SqlStore) -> None:
    """PostgreSQL updates a row of a run within its page, without new entries in any index."""
    with listed.reading() as connection:
        indices = sa.inspect(connection).get_indexes("runs")
    assert {"runs_by_creation", "runs_by_task", "runs_by_model"} <= {index["name"] for index in indices}
    indexed = {name for index in indices for name in index["column_names"]}
    assert not indexed & {"status", "snapshot", "update_time", "loose_chunks"}
