"""No tenant sees another's runs and models, by any RPC, and no call is served without a token."""

from __future__ import annotations

import asyncio
import math
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from mlrs.wire.status import BROKEN_UNDER_A_WRITE
from mlrs_proto import v1 as pb
from mlrs_server.assembly import SERVICES
from mlrs_server.auth import token_store
from mlrs_server.auth.roles import ROLE_OF, Role
from mlrs_server.auth.tokens import TokenFile
from mlrs_server.tenancy import full_name
from tests.server.auth.certificates import Authority, secure_stub, write_pair
from tests.server.auth.tenants import (
    RPCS,
    TIMEOUT,
    Caller,
    Tenants,
    ids,
    messages_of,
    tenants,
    until,
)
from tests.server.support import columns, refusal_of, service
from tests.server.test_daemon import SERVING, health
from tests.support.daemon import write_random_model

Code = grpc.StatusCode
OF_ONE_RUN = (
    "OpenRun",
    "GetRun",
    "UpdateRun",
    "FinishRun",
    "DeleteRun",
    "SearchTrial",
    "GetSearch",
    "Advise",
    "WatchRun",
    "SummarizeRecord",
    "ListRunEvents",
)
"""RPCs about a run that they name."""
NAMING_NOTHING = {"GetDaemonStatus"}
"""RPCs that take no name, and whose answer is another one each time."""
ORDERS = ("run_id", "update_time desc", "create_time desc")
"""The orders of lists of runs."""


@pytest.fixture(autouse=True)
def _quick_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have daemons check their file of tokens more often, so that tests are quick."""
    monkeypatch.setattr(token_store, "LOOK_S", 0.02)


@pytest.fixture
async def home(tmp_path: Path, model_file: Path) -> AsyncIterator[Tenants]:
    """A daemon with tokens."""
    async with tenants(tmp_path / "d", model_file) as running:
        yield running


@pytest.fixture
async def both(home: Tenants) -> tuple[Caller, Caller]:
    """The owner of the run `theirs` and the model `secret`, and a caller of another tenant."""
    owner, stranger = home.caller("acme"), home.caller("evil")
    await home.known(owner, stranger)
    await owner.create("theirs", explore=pb.EXPLORE_CAREFUL, horizon=9)
    await owner.call("Advise", pb.AdviseRequest(run_id="theirs", step=0, loss=1.0))
    data = write_random_model(home.file.path.parent / "secret.safetensors", seed=5).read_bytes()
    await owner.import_model(data, "secret")
    return owner, stranger


def test_every_rpc_has_a_role() -> None:
    """The table of roles names the RPCs of the contract, all of them and no others."""
    assert sorted(ROLE_OF) == sorted(RPCS)
    assert all(messages_of(rpc) for rpc in RPCS)


# -------------------------------------------------------------------------------- strangers


@pytest.mark.parametrize("rpc", [rpc for rpc in RPCS if rpc not in NAMING_NOTHING])
async def test_anothers_ids_are_as_ids_of_nothing(both: tuple[Caller, Caller], rpc: str) -> None:
    """A call with another tenant's ids gets the same error as one with unknown ids, except for the id."""
    owner, stranger = both
    before = await _seen(owner)
    theirs = await _outcome(stranger, rpc, run_id="theirs", model="secret")
    nothing = await _outcome(stranger, rpc, run_id="nobody", model="nobody")
    assert theirs.replace("theirs", "nobody").replace("secret", "nobody") == nothing
    assert "acme" not in theirs
    assert await _seen(owner) == before


async def _seen(owner: Caller) -> list[Any]:
    """Return the owner's run, and its task."""
    run = await owner.call("GetRun", pb.GetRunRequest(run_id="theirs"))
    return run + await owner.call("GetTask", pb.GetTaskRequest(task="theirs"))


async def _outcome(caller: Caller, rpc: str, **about: Any) -> str:
    """Return all that a caller sees of a call."""
    try:
        return f"{await caller.call(rpc, *messages_of(rpc, **about))}"
    except grpc.aio.AioRpcError as error:
        refusal = refusal_of(error)
        assert refusal.code not in (Code.UNAUTHENTICATED, Code.PERMISSION_DENIED, Code.INTERNAL)
        return f"{refusal}"


@pytest.mark.parametrize(
    "name", ["acme!theirs", "!theirs", "acme!", "a!b!c", "acme\0theirs", "../acme/theirs!", "acme%21theirs!"]
)
@pytest.mark.parametrize("tenant", ["", "evil"])
async def test_a_full_name_opens_nothing(
    home: Tenants, both: tuple[Caller, Caller], tenant: str, name: str
) -> None:
    """The full names of runs inside the daemon are not accepted as ids from any caller."""
    caller = both[1] if tenant else home.caller(tenant)
    await home.known(caller)
    for rpc in (*OF_ONE_RUN, "BatchFinishRuns", "SampleRecords"):
        refusal = await caller.refused(rpc, *messages_of(rpc, run_id=name))
        assert refusal.code == Code.INVALID_ARGUMENT
    for request in (
        pb.ListRunsRequest(prefix=name),
        pb.ListRunsRequest(prefix=name[:5]),
        pb.ListRunsRequest(page_token=name),
        pb.ListRunsRequest(prefix=name, order_by="update_time desc"),
        *(
            pb.ListRunsRequest(contains=text, order_by=order)
            for text in (name, "acme", "!")
            for order in ORDERS
        ),
    ):
        assert not ids(await caller.call("ListRuns", request))
    for reference in (full_name("acme", "secret"), "secret", name):
        assert (await caller.refused("GetModel", pb.GetModelRequest(model=reference))).code == Code.NOT_FOUND


async def test_anothers_handle_is_stale(home: Tenants, both: tuple[Caller, Caller]) -> None:
    """Another tenant's handle changes nothing, alone or among others; it still works for its owner."""
    owner, stranger = both
    handle = await owner.create("theirs")
    own = await stranger.create("mine")
    plain = home.caller("")
    await home.known(plain)
    stream = stranger.stream()
    for message in (
        columns((handle, 1, 1.0)),
        columns((own, 0, 1.0), (handle, 1, 1.0), (handle, 0, 1.0)),
        columns(*[(handle, 1, 1.0)] * 2000),
    ):
        await stream.write(message)
        advice = (await stream.read()).advice
        lone = {error.index: error for error in advice.errors}
        for index, number in enumerate(message.observations.run_handles):
            assert (index in lone) == (number == handle)
            assert math.isnan(advice.learning_rates[index]) == (number == handle)
            if number == handle:
                assert lone[index].reason == pb.ERROR_REASON_STALE_HANDLE
                assert advice.durable_steps[index] == -1
        await stream.write(columns((handle + 1, 1, 1.0)))
        guess = (await stream.read()).advice.errors[0]
        assert guess.message == advice.errors[0].message  # as of a handle that there is not
    await stream.done_writing()
    (seen,) = (await plain.call("StreamAdvice", columns((handle, 1, 1.0))))[0].advice.errors
    assert seen.reason == pb.ERROR_REASON_STALE_HANDLE
    (answer,) = await owner.call("StreamAdvice", columns((handle, 1, 1.0)))
    assert not answer.advice.errors


async def test_tenants_may_use_the_same_ids(home: Tenants) -> None:
    """The same id is another run for each tenant: with its own record, listed under the bare id."""
    callers = [home.caller(tenant) for tenant in ("", "a", "a-b", "ab")]
    await home.known(*callers)
    for index, caller in enumerate(callers):
        await caller.create("x", horizon=9 + index)
        await caller.create(f"only/{index}")
        await caller.call("Advise", pb.AdviseRequest(run_id="x", step=0, loss=1.0 + index))
    for index, caller in enumerate(callers):
        (got,) = await caller.call("GetRun", pb.GetRunRequest(run_id="x"))
        assert (got.run.run_id, got.run.config.horizon, got.run.last_loss) == ("x", 9 + index, 1.0 + index)
        assert ids(await caller.call("ListRuns", pb.ListRunsRequest())) == [f"only/{index}", "x"]
        (page,) = await caller.call("ListRuns", pb.ListRunsRequest(page_size=1))
        assert page.next_page_token == f"only/{index}"
        rest = pb.ListRunsRequest(page_size=1, page_token=page.next_page_token)
        assert ids(await caller.call("ListRuns", rest)) == ["x"]
    await callers[1].call("DeleteRun", pb.DeleteRunRequest(run_id="x"))
    assert ids(await callers[2].call("ListRuns", pb.ListRunsRequest())) == ["only/2", "x"]


async def test_tenants_may_use_the_same_tasks(home: Tenants) -> None:
    """A task of a name is another one for each tenant, with its own runs and decisions."""
    owner, stranger = home.caller("acme"), home.caller("evil")
    await home.known(owner, stranger)
    for caller, run_id, runs in ((owner, "a", 2), (stranger, "b", 1)):
        for index in range(runs):
            await caller.create(f"{run_id}{index}", explore=pb.EXPLORE_CAREFUL, task="task", horizon=1)
            await caller.call("Advise", pb.AdviseRequest(run_id=f"{run_id}{index}", step=0, loss=1.0))
            (done,) = await caller.call("FinishRun", pb.FinishRunRequest(run_id=f"{run_id}{index}"))
            assert done.run.config.recalled.decided == (index > 0)
    for caller, names in ((owner, ["a1", "a0"]), (stranger, ["b0"])):
        (listed,) = await caller.call("ListTasks", pb.ListTasksRequest())
        assert [(task.name, task.runs) for task in listed.tasks] == [("task", len(names))]
        (got,) = await caller.call("GetTask", pb.GetTaskRequest(task="task"))
        assert [run.run_id for run in got.runs] == names
        assert "!" not in f"{got}"
    (forgotten,) = await stranger.call("ForgetTask", pb.ForgetTaskRequest(task="task"))
    assert forgotten.runs == 1
    (got,) = await owner.call("GetTask", pb.GetTaskRequest(task="task"))
    assert len(got.runs) == 2
    for name in ("acme!task", "!task"):
        for rpc in ("GetTask", "ForgetTask"):
            refusal = await stranger.refused(rpc, *messages_of(rpc, run_id=name))
            assert (refusal.code, refusal.field) == (Code.INVALID_ARGUMENT, "task")


async def test_errors_have_a_tenants_bare_names(both: tuple[Caller, Caller]) -> None:
    """Every error about a tenant's run names it as the tenant does, in statuses and in entries."""
    owner, _ = both
    handle = await owner.create("theirs")
    stale = await owner.refused("Advise", pb.AdviseRequest(run_id="theirs", step=0, loss=9.0))
    mismatch = await owner.refused(
        "OpenRun", pb.OpenRunRequest(run_id="theirs", config=pb.RunConfig(horizon=10))
    )
    batch = await owner.refused(
        "BatchOpenRuns",
        pb.BatchOpenRunsRequest(
            requests=[
                pb.OpenRunRequest(run_id="fine"),
                pb.OpenRunRequest(run_id="theirs", mode=pb.OPEN_MODE_CREATE),
            ]
        ),
    )
    twice = await owner.refused("BatchFinishRuns", pb.BatchFinishRunsRequest(run_ids=["theirs", "theirs"]))
    (answer,) = await owner.call("StreamAdvice", columns((handle, 7, 1.0)))
    await owner.call("FinishRun", pb.FinishRunRequest(run_id="theirs"))
    finished = await owner.refused("Advise", pb.AdviseRequest(run_id="theirs", step=1, loss=9.0))
    messages = [one.message for one in (stale, mismatch, batch, twice, finished, answer.advice.errors[0])]
    for message in messages:
        assert "'theirs'" in message
        assert "!" not in message
        assert "acme" not in message


async def test_tenants_survive_a_restart(tmp_path: Path, model_file: Path) -> None:
    """The tenant of each run is in the store: after a restart each tenant finds its own runs."""
    async with tenants(tmp_path / "d", model_file) as home:
        owner, stranger = home.caller("acme"), home.caller("evil")
        await home.known(owner, stranger)
        await owner.create("theirs")
    async with tenants(tmp_path / "d", model_file) as home:
        owner, stranger = Caller(home.stub, owner.token), Caller(home.stub, stranger.token)
        assert ids(await owner.call("ListRuns", pb.ListRunsRequest())) == ["theirs"]
        handle = await owner.create("theirs")
        assert (await stranger.refused("GetRun", pb.GetRunRequest(run_id="theirs"))).code == Code.NOT_FOUND
        (advice,) = await stranger.call("StreamAdvice", columns((handle, 0, 1.0)))
        assert advice.advice.errors[0].reason == pb.ERROR_REASON_STALE_HANDLE


# -------------------------------------------------------------------------------- no token


@pytest.mark.parametrize("rpc", RPCS)
@pytest.mark.parametrize(
    "kind", ["none", "rubbish", "empty", "unknown", "wrong secret", "expired", "revoked", "basic", "binary"]
)
async def test_every_call_needs_a_valid_token(tmp_path: Path, model_file: Path, rpc: str, kind: str) -> None:
    """Every RPC refuses every kind of invalid token with the same error."""
    async with tenants(tmp_path / "d", model_file) as home:
        metadata = await _bad_metadata(home, kind)
        method = getattr(home.stub, rpc)
        messages: Any = messages_of(rpc)
        # A stream that writes while it is refused may fail in gRPC itself, so those send nothing.
        request = iter(()) if rpc in {"StreamAdvice", "AdaptGradients", "ImportModel"} else messages[0]
        call = method(request, timeout=TIMEOUT, metadata=metadata)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await (call.read() if rpc in {"StreamAdvice", "WatchRun"} else call)
        refusal = refusal_of(caught.value)
    assert refusal.code == Code.UNAUTHENTICATED
    assert refusal.reason == "ERROR_REASON_UNAUTHENTICATED"
    assert refusal.field == "authorization"
    assert refusal.message == (
        "authorization: this daemon needs a token with every call, and this call has no valid one; send "
        "`authorization: Bearer TOKEN` (`mlrs tokens create` makes one)"
    )


async def _bad_metadata(home: Tenants, kind: str) -> list[tuple[str, str | bytes]]:
    """Return a bad token's metadata."""
    caller = home.caller("acme", lifetime_s=0.3 if kind == "expired" else None)
    assert caller.token is not None
    token = caller.token
    await until(caller, good=True)
    if kind == "revoked":
        home.file.revoke(_id(caller))
    if kind in ("revoked", "expired"):
        await until(caller, good=False)
    other = "A" if token[-5] != "A" else "B"
    values: dict[str, list[tuple[str, str | bytes]]] = {
        "none": [],
        "rubbish": [("authorization", "Bearer x")],
        "empty": [("authorization", "")],
        "unknown": [("authorization", f"Bearer mlrs_{'0' * 12}_{token[-43:]}")],
        "wrong secret": [("authorization", f"Bearer {token[:-5]}{other}{token[-4:]}")],
        "basic": [("authorization", f"Basic {token}")],
        "binary": [("authorization-bin", f"Bearer {token}".encode())],
    }
    return values.get(kind, [("authorization", f"Bearer {token}")])


@pytest.mark.parametrize("rpc", RPCS)
@pytest.mark.parametrize("role", Role)
async def test_a_role_covers_what_the_table_says(home: Tenants, rpc: str, role: Role) -> None:
    """A token of each role may make the calls of its role and of lower ones, and no others."""
    caller = home.caller("acme", role)
    await home.known(caller)
    try:
        await caller.call(rpc, *messages_of(rpc))
        code, says = Code.OK, ""
    except grpc.aio.AioRpcError as error:
        code, says = error.code(), error.details() or ""
    assert (code == Code.PERMISSION_DENIED) == (role < ROLE_OF[rpc])
    assert (f"needs a token of the role {ROLE_OF[rpc].spelling}" in says) == (role < ROLE_OF[rpc])
    assert code not in (Code.UNAUTHENTICATED, Code.INTERNAL)


def test_readers_may_make_the_reading_calls() -> None:
    """The role `read` covers the calls that read by their names, and no others."""
    reading = ("Get", "List", "Watch", "Summarize", "Sample")
    assert {rpc for rpc, role in ROLE_OF.items() if role == Role.READ} == {
        rpc for rpc in RPCS if rpc.startswith(reading)
    }


async def test_a_reader_changes_nothing(home: Tenants, both: tuple[Caller, Caller]) -> None:
    """A token to read reads all that there is, and each call that would change something is refused."""
    owner, reader = both[0], home.caller("acme", Role.READ)
    await home.known(reader)
    await owner.call("SetAlias", pb.SetAliasRequest(alias="mine", model="secret"))
    await owner.create("unbegun", horizon=1000, optimizer=pb.OPTIMIZER_SGD)
    await owner.call("SearchTrial", *messages_of("SearchTrial", run_id="unbegun"))
    before = await _seen(owner)
    for rpc in RPCS:
        messages = messages_of(rpc, run_id="unbegun" if "Search" in rpc else "theirs")
        if ROLE_OF[rpc] == Role.READ:
            assert await reader.call(rpc, *messages), rpc
        else:
            refusal = await reader.refused(rpc, *messages)
            assert (refusal.code, refusal.reason) == (
                Code.PERMISSION_DENIED,
                "ERROR_REASON_PERMISSION_DENIED",
            )
            assert "this one has read" in refusal.message
    assert await _seen(owner) == before


async def test_a_reader_follows_a_run(home: Tenants, both: tuple[Caller, Caller]) -> None:
    """A token to read follows a run as it grows."""
    owner, reader = both[0], home.caller("acme", Role.READ)
    await home.known(reader)
    request = pb.WatchRunRequest(run_id="theirs", follow=True)
    call = reader.stub.WatchRun(request, timeout=TIMEOUT, metadata=reader.metadata)
    losses: list[float] = []
    async with asyncio.timeout(TIMEOUT):
        while len(losses) < 2:
            losses += (await call.read()).losses
            if losses == [1.0]:
                await owner.call("Advise", pb.AdviseRequest(run_id="theirs", step=1, loss=2.0))
    assert losses == [1.0, 2.0]
    call.cancel()


@pytest.mark.parametrize("how", ["revoked", "expired"])
@pytest.mark.parametrize("rpc", ["StreamAdvice", "WatchRun", "ImportModel"])
async def test_open_streams_end_with_their_token(
    home: Tenants, rpc: str, how: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """A stream whose token is revoked or expires ends at its next message, in either direction."""
    caller = home.caller("acme", lifetime_s=2.0 if how == "expired" else None)
    friend = home.caller("acme")
    await home.known(caller, friend)
    handle = await friend.create("mine")
    call = await _opened(caller, rpc, handle)
    if how == "revoked":
        home.file.revoke(_id(caller))
    await until(caller, good=False)
    async with asyncio.timeout(TIMEOUT):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await _ended(call, rpc, handle, friend)
    if caught.value.details() == BROKEN_UNDER_A_WRITE:  # the refusal came before the whole message had gone
        assert re.search(rf"call_refused .*reason=unauthenticated rpc={rpc} ", capsys.readouterr().out)
    else:
        assert caught.value.code() == Code.UNAUTHENTICATED
    (got,) = await friend.call("GetRun", pb.GetRunRequest(run_id="mine"))
    assert got.run.next_step == (1 if rpc == "StreamAdvice" else 2 if rpc == "WatchRun" else 0)


async def _ended(call: Any, rpc: str, handle: int, friend: Caller) -> None:
    """Let the next message go over an open stream, in the direction of the RPC, and read what comes."""
    match rpc:
        case "WatchRun":
            await friend.call("Advise", pb.AdviseRequest(run_id="mine", step=1, loss=1.0))
        case "StreamAdvice":
            await call.write(columns((handle, 1, 1.0)))
        case _:
            await call.write(messages_of(rpc)[1])
    await (call if rpc == "ImportModel" else call.read())


def _id(caller: Caller) -> str:
    """Return the id of a caller's token."""
    assert caller.token is not None
    return caller.token.split("_")[1]


async def _opened(caller: Caller, rpc: str, handle: int) -> Any:
    """Return an open stream that works."""
    if rpc == "WatchRun":
        request = pb.WatchRunRequest(run_id="mine", follow=True)
        call = caller.stub.WatchRun(request, timeout=TIMEOUT, metadata=caller.metadata)
        await call.read()
        await caller.call("Advise", pb.AdviseRequest(run_id="mine", step=0, loss=1.0))
        assert (await call.read()).losses == [1.0]
        return call
    call = getattr(caller.stub, rpc)(timeout=TIMEOUT, metadata=caller.metadata)
    if rpc == "ImportModel":
        await call.write(messages_of(rpc)[0])
        return call
    await call.write(columns((handle, 0, 1.0)))
    assert not (await call.read()).advice.errors
    return call


async def test_the_first_token_turns_authentication_on(tmp_path: Path, model_file: Path) -> None:
    """Without tokens every call is served; the first token ends that, also for open streams."""
    async with service(tmp_path / "d", model_file) as (stub, _):
        nobody = Caller(stub, None)
        handle = await nobody.create("old")
        stream = nobody.stream()
        await stream.write(columns((handle, 0, 1.0)))
        assert not (await stream.read()).advice.errors
        file = TokenFile(tmp_path / "d" / "tokens.json")
        token, other = file.create(tenant="", role=Role.ADVISE)
        await until(nobody, good=False)
        await stream.write(columns((handle, 1, 1.0)))
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stream.read()
        assert caught.value.code() == Code.UNAUTHENTICATED
        somebody = Caller(stub, token)
        assert ids(await somebody.call("ListRuns", pb.ListRunsRequest())) == ["old"]
        file.revoke(other.id)
        await until(somebody, good=False)
        assert (await nobody.refused("ListRuns", pb.ListRunsRequest())).code == Code.UNAUTHENTICATED


async def test_health_needs_no_token(home: Tenants) -> None:
    """A probe without a token sees that the daemon is up."""
    for name in ("", *SERVICES, "mlrs.v1.Store"):
        assert await health(home.address, name) == SERVING


@pytest.mark.parametrize(
    ("setting", "kind", "expected"),
    [
        ("auto", None, Code.UNAUTHENTICATED),
        ("auto", Role.ADAPT, Code.PERMISSION_DENIED),
        ("auto", Role.ADMIN, Code.OK),
        ("on", None, Code.UNAUTHENTICATED),
        ("on", Role.READ, Code.OK),
        ("off", Role.ADMIN, Code.UNIMPLEMENTED),
    ],
)
async def test_reflection_is_served_by_its_setting(
    tmp_path: Path, model_file: Path, setting: str, kind: Role | None, expected: grpc.StatusCode
) -> None:
    """Reflection is served to admins, to all callers or to nobody, by the setting `reflection`."""
    async with tenants(tmp_path / "d", model_file, reflection=setting) as home:
        caller = Caller(home.stub, None) if kind is None else home.caller("acme", kind)
        if kind is not None:
            await home.known(caller)
        async with grpc.aio.insecure_channel(home.address) as connection:
            stub = reflection_pb2_grpc.ServerReflectionStub(connection)  # type: ignore[no-untyped-call]
            request = reflection_pb2.ServerReflectionRequest(list_services="")
            call = stub.ServerReflectionInfo(iter([request]), timeout=TIMEOUT, metadata=caller.metadata)
            try:
                assert (await call.read()).list_services_response.service
                code = Code.OK
            except grpc.aio.AioRpcError as error:
                code = error.code()
    assert code == expected


# -------------------------------------------------------------------------------- models


async def test_models_are_seen_by_their_tenant_only(home: Tenants, both: tuple[Caller, Caller]) -> None:
    """A tenant lists the shipped models, the default tenant's and its own; by name and by digest."""
    owner, stranger = both
    plain = home.caller("")
    await home.known(plain)
    data = write_random_model(home.file.path.parent / "shared.safetensors", seed=6).read_bytes()
    shared = await plain.import_model(data, "shared")
    (secret,) = await owner.call("GetModel", pb.GetModelRequest(model="secret"))
    names = {}
    for who, caller in (("owner", owner), ("stranger", stranger), ("plain", plain)):
        (listed,) = await caller.call("ListModels", pb.ListModelsRequest())
        names[who] = {model.name for model in listed.models}
        (found,) = await caller.call("GetModel", pb.GetModelRequest(model=shared.ref))
        assert found.model == shared
    assert "secret" not in names["stranger"]
    assert names["owner"] == names["stranger"] | {"secret"}
    assert names["stranger"] == names["plain"] >= {"shared", "small", "mlr-snet"}
    for reference in ("secret", secret.model.ref, f"secret@{secret.model.digest}", secret.model.digest):
        for caller in (stranger, plain):
            wanted = await caller.refused("GetModel", pb.GetModelRequest(model=reference))
            assert (wanted.code, wanted.reason) == (Code.NOT_FOUND, "ERROR_REASON_MODEL_NOT_FOUND")
            assert "secret" not in wanted.message.replace(repr(reference), "")
            run = pb.OpenRunRequest(run_id="x", config=pb.RunConfig(model=reference))
            assert (await caller.refused("OpenRun", run)).message == wanted.message
    await owner.create("x", model="secret")
    (got,) = await owner.call("GetRun", pb.GetRunRequest(run_id="x"))
    assert got.run.config.model == secret.model.ref


async def test_a_tenants_own_model_comes_before_a_shared_one(home: Tenants) -> None:
    """A tenant may use a shared model's name, and its own default; others use the shared one."""
    owner, stranger, plain = home.caller("acme"), home.caller("evil"), home.caller("")
    await home.known(owner, stranger, plain)
    folder = home.file.path.parent
    mine = await owner.import_model(
        write_random_model(folder / "m.safetensors", seed=7).read_bytes(), "small"
    )
    (found,) = await stranger.call("GetModel", pb.GetModelRequest(model="small"))
    assert found.model.digest != mine.digest
    await owner.call("SetAlias", pb.SetAliasRequest(alias="default", model="small"))
    await owner.call("SetAlias", pb.SetAliasRequest(alias="best", model="mlr-snet"))
    for caller, digest in ((owner, mine.digest), (stranger, found.model.digest), (plain, found.model.digest)):
        (default,) = await caller.call("GetModel", pb.GetModelRequest())
        assert default.model.digest == digest
        await caller.create("x")
        (got,) = await caller.call("GetRun", pb.GetRunRequest(run_id="x"))
        assert got.run.config.model.endswith(digest[:12])
    (best,) = await owner.call("GetModel", pb.GetModelRequest(model="best"))
    assert (best.model.name, list(best.model.aliases)) == ("mlr-snet", ["best"])
    (seen,) = await stranger.call("GetModel", pb.GetModelRequest(model="mlr-snet"))
    assert list(seen.model.aliases) == []
    assert (await stranger.refused("GetModel", pb.GetModelRequest(model="best"))).code == Code.NOT_FOUND


async def test_a_wrong_certificate_is_refused_by_every_rpc(tmp_path: Path, model_file: Path) -> None:
    """Under mutual TLS no RPC is answered to a certificate of another authority, whatever its token."""
    ours, theirs = Authority(), Authority()
    cert, key = write_pair(ours.server(), tmp_path / "server")
    ca = ours.write(tmp_path / "ca.pem")
    async with tenants(tmp_path / "d", model_file, tls_cert=cert, tls_key=key, tls_client_ca=ca) as home:
        token, _ = home.file.create(tenant="acme", role=Role.ADMIN)
        async with secure_stub(home.address, ours, ours.client()) as stub:
            await until(Caller(stub, token), good=True)
        for shown in (theirs.client(), None):
            async with secure_stub(home.address, ours, shown) as stub:
                for rpc in RPCS:
                    refusal = await Caller(stub, token).refused(rpc, *messages_of(rpc))
                    assert refusal.code == Code.UNAVAILABLE
