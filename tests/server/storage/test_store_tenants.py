"""What a store knows of tenants: whose runs are listed, and counted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import pytest

from mlrs_core.config import RunConfig, ScheduleKind, ScheduleSpec
from mlrs_core.schedules.kernel import schedule_policy
from mlrs_server.domain.ledger import RunStatus
from mlrs_server.domain.run_snapshot import first_snapshot
from mlrs_server.storage import NewRun, Store, open_store
from mlrs_server.tenancy import full_name
from tests.support.postgres import PostgresServer

TENANTS = ("", "a", "a-b", "ab", "b", "0")
IDS = ("a", "a+", "a-b", "a/x", "ab", "b", "z" * 256, "0", "Z", "a=1", "a@1")
SPEC = ScheduleSpec(ScheduleKind.CONSTANT).resolved()


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def store(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    """Each of the stores, where every tenant has a run of every id; one of each tenant's is finished."""
    if request.param == "sqlite":
        opened = open_store(tmp_path_factory.mktemp("store") / "mlrs.sqlite3")
    else:
        server: PostgresServer = request.getfixturevalue("postgres")
        opened = open_store(server.new_database())
    snapshot = first_snapshot(schedule_policy(SPEC))
    new = [
        NewRun(
            run_id=full_name(tenant, run_id),
            shard=IDS.index(run_id) % 3,
            config=RunConfig(schedule=SPEC),
            model_name="constant",
            model_digest=SPEC.digest(),
            snapshot=snapshot,
        )
        for tenant in TENANTS
        for run_id in IDS
    ]
    stored = opened.create(new)
    opened.finish([run for run in stored if run.run_id.endswith("a=1")])
    yield opened
    opened.close()


@pytest.mark.parametrize("tenant", TENANTS)
@pytest.mark.parametrize("prefix", ["", "a", "a-", "0", "z", "x", "a!", "!", "a-b!"])
def test_a_list_is_of_one_tenant(store: Store, tenant: str, prefix: str) -> None:
    """Whatever the prefix, and wherever a page begins, all runs of one tenant are listed, in order."""
    wanted = sorted(full_name(tenant, run_id) for run_id in IDS if run_id.startswith(prefix))
    for size in (2, 100):
        got: list[str] = []
        after = ""
        while page := store.list(prefix=prefix, status=None, after=after, limit=size, tenant=tenant):
            got += [run.run_id for run in page]
            after = got[-1].rpartition("!")[2]
        assert got == wanted


@pytest.mark.parametrize("tenant", [*TENANTS, "nobody"])
def test_a_count_is_of_one_tenant(store: Store, tenant: str) -> None:
    """Runs that are not finished are counted, of one tenant."""
    assert store.count_unfinished(tenant) == (len(IDS) - 1 if tenant in TENANTS else 0)
    finished = store.list(prefix="", status=RunStatus.FINISHED, after="", limit=9, tenant=tenant)
    assert [run.run_id for run in finished] == ([full_name(tenant, "a=1")] if tenant in TENANTS else [])


@pytest.mark.parametrize("tenant", [*TENANTS, "none"])
def test_unfinished_runs_are_counted_by_shard(store: Store, tenant: str) -> None:
    """A tenant's unfinished runs are counted by shard; shards without any are left out."""
    shards = [index % 3 for index, run_id in enumerate(IDS) if run_id != "a=1"]
    assert store.unfinished_by_shard(tenant) == (Counter(shards) if tenant in TENANTS else {})
