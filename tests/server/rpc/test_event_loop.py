"""The event loop's thread does not use files, locks or SQL, nor hash or parse models, while serving."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from mlrs_core.models import checkpoint
from mlrs_proto import v1 as pb
from tests.server.auth.tenants import Caller, upload_of
from tests.server.support import advised, create, service
from tests.support.daemon import write_random_model
from tests.support.postgres import PostgresServer

BLOCKING = {"open", "os.rename", "os.remove", "os.mkdir", "fcntl.flock", "sqlite3.connect"}
"""The audit events of the forbidden operations."""

_watched: dict[int, list[str]] = {}
"""What was done on threads that are watched, by thread."""


def _audit(event: str, arguments: tuple[object, ...]) -> None:
    if event in BLOCKING and (seen := _watched.get(threading.get_ident())) is not None:
        seen.append(f"{event}{arguments!r:.200}")


sys.addaudithook(_audit)  # for good: Python takes none away, and this one hardly costs anything


@contextmanager
def watched(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Watch this thread; yield a list of its forbidden operations."""
    seen = _watched[threading.get_ident()] = []

    def note(what: str) -> None:
        if (mine := _watched.get(threading.get_ident())) is not None:
            mine.append(what)

    def execute(*arguments: Any) -> None:
        note(f"SQL: {arguments[2]}")

    def noted(name: str) -> Any:
        function = getattr(checkpoint, name)

        def call(*arguments: Any, **named: Any) -> Any:
            note(name)
            return function(*arguments, **named)

        return call

    sa.event.listen(sa.Engine, "before_cursor_execute", execute)
    for name in ("digest_of", "parse_model", "dump_model"):
        wrapped = noted(name)
        for module in list(sys.modules.values()):
            if getattr(module, "__name__", "").startswith("mlrs_server") and hasattr(module, name):
                monkeypatch.setattr(module, name, wrapped)
    try:
        yield seen
    finally:
        del _watched[threading.get_ident()]
        sa.event.remove(sa.Engine, "before_cursor_execute", execute)


@pytest.fixture(params=["sqlite", "postgresql"])
def settings(request: pytest.FixtureRequest) -> dict[str, str]:
    """The settings of a daemon on a store of each engine."""
    if request.param == "sqlite":
        return {}
    server: PostgresServer = request.getfixturevalue("postgres")
    return {"store": server.new_database()}


@asynccontextmanager
async def called(
    data_dir: Path, model_file: Path, settings: dict[str, str]
) -> AsyncIterator[tuple[Caller, Any]]:
    """Run a daemon on this thread's event loop."""
    async with service(data_dir, model_file, **settings) as (stub, _):
        yield Caller(stub, None), stub


async def _learn(stub: Any, caller: Caller, run_id: str) -> None:
    meta = pb.Meta(scope=pb.ADAPT_SCOPE_MODEL, learning_rate=0.01)
    await create(stub, run_id, model="stable", horizon=9, num_classes=10, meta=meta)
    await advised(stub, run_id, [2.0, 1.5])
    await caller.call("Adapt", pb.AdaptRequest(run_id=run_id, step=1, alignment=-1.0))


async def test_calls_about_models_leave_the_event_loop_free(
    tmp_path: Path, model_file: Path, settings: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """No call about models, and none that opens a run, reads, locks or parses on the loop's thread."""
    files = [
        write_random_model(tmp_path / f"m{seed}.safetensors", seed=seed + 1).read_bytes() for seed in range(3)
    ]
    async with called(tmp_path / "d", model_file, settings) as (caller, stub):
        for number, file in enumerate(files):
            await caller.call("ImportModel", *upload_of(file, f"m{number}"))
        await caller.call("SetAlias", pb.SetAliasRequest(alias="stable", model="m0"))
        await _learn(stub, caller, "first")  # which loads what is compiled
    async with called(tmp_path / "d", model_file, settings) as (caller, stub):  # nothing is in memory yet
        with watched(monkeypatch) as seen:
            await asyncio.to_thread(lambda: (tmp_path / "elsewhere").write_text("not seen"))
            await _learn(stub, caller, "run")
            await create(stub, "default")
            await create(stub, "shipped", model="paper")
            await caller.call("ListModels", pb.ListModelsRequest())
            await caller.call("GetModel", pb.GetModelRequest(model="m2"))
            await caller.call("ImportModel", *upload_of(files[0], "again"))
            await caller.call("SetAlias", pb.SetAliasRequest(alias="stable", model="m1"))
            await caller.call("PromoteModel", pb.PromoteModelRequest(model="m0", alias="stable"))
            await caller.call("RollbackAlias", pb.RollbackAliasRequest(alias="stable"))
            await caller.call("ListAliasChanges", pb.ListAliasChangesRequest(alias="stable"))
            assert seen == []
            (tmp_path / "here").write_text("seen")
            assert [what for what in seen if "here" in what]
