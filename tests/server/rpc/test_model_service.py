"""New versions of models over the wire: roles, tenants and errors."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from mlrs_proto import v1 as pb
from mlrs_server.auth import token_store
from mlrs_server.auth.roles import Role
from tests.server.auth.tenants import Caller, Tenants, tenants
from tests.server.support import LOSSES

Code = grpc.StatusCode


@pytest.fixture
async def home(tmp_path: Path, model_file: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Tenants]:
    """A daemon with tokens, whose default model is `small`."""
    monkeypatch.setattr(token_store, "LOOK_S", 0.02)
    async with tenants(tmp_path / "d", model_file) as running:
        yield running


async def _learns(caller: Caller, *run_ids: str, model: str = "small", steps: int = 4) -> None:
    """Adapt runs of a tenant's model, each differently."""
    meta = pb.Meta(scope=pb.ADAPT_SCOPE_MODEL, learning_rate=0.01)
    for number, run_id in enumerate(run_ids):
        await caller.create(run_id, model=model, horizon=100, num_classes=10, meta=meta)
        for step in range(steps):
            loss = float(LOSSES[number + step])
            await caller.call("Advise", pb.AdviseRequest(run_id=run_id, step=step, loss=loss))
            update = pb.AdaptRequest(run_id=run_id, step=step, alignment=(-2.0) ** number)
            await caller.call("Adapt", update)


async def _promote(caller: Caller, **asked: Any) -> pb.PromoteModelResponse:
    (answer,) = await caller.call("PromoteModel", pb.PromoteModelRequest(model="small", **asked))
    assert isinstance(answer, pb.PromoteModelResponse)
    return answer


async def _find(caller: Caller, model: str) -> pb.Model:
    (answer,) = await caller.call("GetModel", pb.GetModelRequest(model=model))
    found: pb.Model = answer.model
    return found


async def _changes(caller: Caller, alias: str) -> list[tuple[str, str]]:
    (answer,) = await caller.call("ListAliasChanges", pb.ListAliasChangesRequest(alias=alias))
    return [(change.model, change.cause) for change in answer.changes]


async def test_a_version_from_end_to_end(home: Tenants) -> None:
    """Runs learn, a version is looked at, made, used by new runs alone, and taken back."""
    admin = home.caller("acme")
    await home.known(admin)
    await _learns(admin, "a", "b")
    looked = await _promote(admin, alias="best", dry_run=True)
    assert not looked.HasField("model")
    start = time.time()
    made = await _promote(admin, alias="best")
    assert (made.contributions, made.relative_change) == (looked.contributions, looked.relative_change)
    assert [(run.run_id, run.updates) for run in made.contributions] == [("a", 4), ("b", 4)]
    assert made.run_count == 2
    assert list(made.model.aliases) == ["best"]
    assert made.model.name == "small"
    old = await _find(admin, "small")
    assert old.digest != made.model.digest
    (opened,) = await admin.call(
        "OpenRun", pb.OpenRunRequest(run_id="new", config=pb.RunConfig(model="best"))
    )
    assert opened.run.config.model == made.model.ref
    (run,) = await admin.call("GetRun", pb.GetRunRequest(run_id="a"))
    assert run.run.config.model == old.ref
    await admin.call("SetAlias", pb.SetAliasRequest(alias="best", model="small"))
    (back,) = await admin.call("RollbackAlias", pb.RollbackAliasRequest(alias="best"))
    assert back.model.ref == made.model.ref
    assert await _changes(admin, "best") == [
        (made.model.ref, "rollback"),
        ("small", "set"),
        (made.model.ref, "promote"),
    ]
    (answer,) = await admin.call("ListAliasChanges", pb.ListAliasChangesRequest(alias="best"))
    assert all(start <= change.time.ToNanoseconds() / 1e9 <= time.time() for change in answer.changes)
    (listed,) = await admin.call("ListModels", pb.ListModelsRequest())
    assert {made.model.ref, old.ref} <= {model.ref for model in listed.models}


async def test_tenants_learn_for_themselves(home: Tenants) -> None:
    """Another tenant's runs never count, its alias of that name stays, and a version is its maker's alone."""
    acme, evil = home.caller("acme"), home.caller("evil")
    await home.known(acme, evil)
    await _learns(acme, "a", "b")
    await _learns(evil, "b", "z")
    await evil.call("SetAlias", pb.SetAliasRequest(alias="best", model="small"))
    mine = await _promote(acme, alias="best")
    theirs = await _promote(evil)
    assert [run.run_id for run in mine.contributions] == ["a", "b"]
    assert [run.run_id for run in theirs.contributions] == ["b", "z"]
    assert await _changes(evil, "best") == [("small", "set")]
    assert (await _find(evil, "best")).digest == (await _find(evil, "small")).digest
    refusal = await evil.refused("GetModel", pb.GetModelRequest(model=mine.model.ref))
    assert refusal.code == Code.NOT_FOUND
    refusal = await evil.refused("RollbackAlias", pb.RollbackAliasRequest(alias="best"))
    assert (refusal.code, refusal.reason) == (Code.FAILED_PRECONDITION, "ERROR_REASON_NOTHING_TO_DO")
    assert (await _find(acme, "best")).digest == mine.model.digest
    provenance = json.loads((await _find(evil, theirs.model.ref)).provenance_json)
    assert "evil" not in str(provenance)
    assert [run["run_id"] for run in provenance["runs"]] == ["b", "z"]


@pytest.mark.parametrize("role", [Role.ADVISE, Role.ADAPT])
async def test_only_admins_make_versions(home: Tenants, role: Role) -> None:
    """Making a version and pointing an alias back need an admin's token; a history may be read by all."""
    admin, caller = home.caller("acme"), home.caller("acme", role)
    await home.known(admin, caller)
    await _learns(admin, "a")
    made = await _promote(admin, alias="best")
    for rpc, request in [
        ("PromoteModel", pb.PromoteModelRequest(model="small", dry_run=True)),
        ("RollbackAlias", pb.RollbackAliasRequest(alias="best")),
    ]:
        assert (await caller.refused(rpc, request)).code == Code.PERMISSION_DENIED
    assert await _changes(caller, "best") == [(made.model.ref, "promote")]


async def test_every_refusal_is_named(home: Tenants) -> None:
    """What cannot be done has its status, its reason, its field, and a message with the way out."""
    admin = home.caller("acme")
    await home.known(admin)
    await _learns(admin, "a")
    await admin.call("SetAlias", pb.SetAliasRequest(alias="best", model="small"))
    for rpc, request, code, field, match in [
        (
            "PromoteModel",
            pb.PromoteModelRequest(model="nobody"),
            Code.NOT_FOUND,
            "model",
            "this daemon knows",
        ),
        (
            "PromoteModel",
            pb.PromoteModelRequest(model="small", min_updates=2**63),
            Code.FAILED_PRECONDITION,
            "model",
            "ask for fewer updates",
        ),
        (
            "PromoteModel",
            pb.PromoteModelRequest(model="small", prefix="é"),
            Code.FAILED_PRECONDITION,
            "model",
            "more runs",
        ),
        (
            "PromoteModel",
            pb.PromoteModelRequest(model="small", alias="A b"),
            Code.INVALID_ARGUMENT,
            "alias",
            "must be 1 to 64",
        ),
        (
            "RollbackAlias",
            pb.RollbackAliasRequest(alias="best"),
            Code.FAILED_PRECONDITION,
            "alias",
            "mlrs models alias",
        ),
        ("RollbackAlias", pb.RollbackAliasRequest(alias="x"), Code.NOT_FOUND, "alias", "this daemon knows"),
        ("RollbackAlias", pb.RollbackAliasRequest(), Code.INVALID_ARGUMENT, "alias", "must be 1 to 64"),
        ("ListAliasChanges", pb.ListAliasChangesRequest(), Code.NOT_FOUND, "alias", "this daemon knows"),
    ]:
        refusal = await admin.refused(rpc, request)
        assert (refusal.code, refusal.field) == (code, field), refusal
        assert match in refusal.message


async def test_a_history_before_any_change_has_no_time(home: Tenants) -> None:
    """The target of an alias before its first change is listed without a time."""
    admin = home.caller("acme")
    await home.known(admin)
    (answer,) = await admin.call("ListAliasChanges", pb.ListAliasChangesRequest(alias="default"))
    (change,) = answer.changes
    assert not change.HasField("time")
    assert (change.model, change.cause) == ((await _find(admin, "small")).ref, "set")
