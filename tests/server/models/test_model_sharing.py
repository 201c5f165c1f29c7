"""Models over the wire: every name is listed, each change is logged, and replicas know them at once."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import grpc
import pytest
from structlog.testing import capture_logs

from mlrs_proto import v1 as pb
from tests.server.auth.tenants import Caller, upload_of
from tests.server.support import create, service
from tests.support.daemon import write_random_model
from tests.support.postgres import PostgresServer


@pytest.fixture
def data(tmp_path: Path) -> bytes:
    """A model's file."""
    return write_random_model(tmp_path / "other.safetensors", seed=3).read_bytes()


@pytest.fixture
async def replicas(
    tmp_path: Path, model_file: Path, postgres: PostgresServer
) -> AsyncIterator[tuple[Caller, Caller]]:
    """Two replicas of one database, each with a data folder of its own."""
    url = postgres.new_database()
    async with AsyncExitStack() as running:
        stubs = [
            (await running.enter_async_context(service(tmp_path / name, model_file, store=url)))[0]
            for name in "ab"
        ]
        yield Caller(stubs[0], None), Caller(stubs[1], None)


async def _find(caller: Caller, model: str) -> pb.Model:
    (answer,) = await caller.call("GetModel", pb.GetModelRequest(model=model))
    found: pb.Model = answer.model
    return found


async def test_names_and_aliases_are_every_replicas(replicas: tuple[Caller, Caller], data: bytes) -> None:
    """What is imported, pointed, promoted and pointed back at one replica is so at the other at once."""
    here, there = replicas
    model = await here.import_model(data, "mine")
    assert await _find(there, "mine") == model
    (listed,) = await there.call("ListModels", pb.ListModelsRequest())
    assert model in listed.models
    for name in ("paper", "mine"):
        await there.call("SetAlias", pb.SetAliasRequest(alias="best", model=name))
        assert (await _find(here, "best")).name == name
    await _learn(replicas)
    (made,) = await here.call("PromoteModel", pb.PromoteModelRequest(model="mine", alias="best"))
    assert (await _find(there, "best")).digest == made.model.digest != model.digest
    (changes,) = await there.call("ListAliasChanges", pb.ListAliasChangesRequest(alias="best"))
    assert [change.cause for change in changes.changes] == ["promote", "set", "set"]
    await there.call("RollbackAlias", pb.RollbackAliasRequest(alias="best"))
    assert (await _find(here, "best")).digest == model.digest


async def _learn(replicas: tuple[Caller, Caller]) -> None:
    """Have a run of the model `best` learn, at the replica that has its shard."""
    meta = pb.Meta(scope=pb.ADAPT_SCOPE_MODEL, learning_rate=0.01)
    owner, other = replicas
    try:
        await owner.create("run", model="best", horizon=9, num_classes=10, meta=meta)
    except grpc.aio.AioRpcError:
        owner = other
        await owner.create("run", model="best", horizon=9, num_classes=10, meta=meta)
    await owner.call("Advise", pb.AdviseRequest(run_id="run", step=0, loss=2.0))
    await owner.call("Adapt", pb.AdaptRequest(run_id="run", step=0, alignment=-1.0))


async def test_every_name_of_a_model_is_listed(tmp_path: Path, model_file: Path, data: bytes) -> None:
    """A second name of the same weights hides neither the first nor itself, whole or in pages."""
    async with service(tmp_path / "d", model_file) as (stub, _):
        caller = Caller(stub, None)
        names = ["second", "first", "third"]
        for name in names:
            await caller.import_model(data, name)
        (listed,) = await caller.call("ListModels", pb.ListModelsRequest())
        assert sorted(names) == [model.name for model in listed.models if model.name in names]
        got, token = list[str](), ""
        while not got or token:
            (page,) = await caller.call("ListModels", pb.ListModelsRequest(page_size=1, page_token=token))
            got += [model.ref for model in page.models]
            token = page.next_page_token
        assert got == [model.ref for model in listed.models]


async def test_changes_of_models_are_logged(tmp_path: Path, model_file: Path, data: bytes) -> None:
    """An import, an alias that is pointed or pointed back, and a promotion leave one line each."""
    async with service(tmp_path / "d", model_file) as (stub, _):
        caller = Caller(stub, None)
        meta = pb.Meta(scope=pb.ADAPT_SCOPE_MODEL, learning_rate=0.01)
        with capture_logs() as lines:
            model = await caller.import_model(data, "mine")
            await create(stub, "run", model="mine", horizon=9, num_classes=10, meta=meta)
            await caller.call("Advise", pb.AdviseRequest(run_id="run", step=0, loss=2.0))
            await caller.call("Adapt", pb.AdaptRequest(run_id="run", step=0, alignment=-1.0))
            await caller.call("SetAlias", pb.SetAliasRequest(alias="best", model="mine"))
            (made,) = await caller.call("PromoteModel", pb.PromoteModelRequest(model="mine", alias="best"))
            await caller.call("RollbackAlias", pb.RollbackAliasRequest(alias="best"))
            for messages in (upload_of(data, "default"), upload_of(b"no model", "bad")):
                await caller.refused("ImportModel", *messages)
        told = [line for line in lines if "digest" in line and line["event"] != "run_created"]
        assert [(line["event"], line["tenant"], line["model"], line["digest"]) for line in told] == [
            ("model_imported", "", "mine", model.digest),
            ("alias_set", "", "mine", model.digest),
            ("model_promoted", "", "mine", made.model.digest),
            ("alias_rolled_back", "", "mine", model.digest),
        ]
        assert [line["alias"] for line in told[1:]] == ["best"] * 3


async def test_an_upload_goes_through_a_file_without_a_name(
    tmp_path: Path, model_file: Path, data: bytes
) -> None:
    """Nothing of an upload is left in the data folder, taken or refused."""
    async with service(tmp_path / "d", model_file) as (stub, _):
        caller = Caller(stub, None)
        before = sorted(path.name for path in (tmp_path / "d").rglob("*"))
        await caller.refused("ImportModel", *upload_of(data[:-1], "mine"))
        await caller.import_model(data, "mine")
        assert sorted(path.name for path in (tmp_path / "d").rglob("*")) == before
