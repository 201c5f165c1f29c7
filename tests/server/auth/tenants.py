"""A daemon with tokens of two tenants, and every call that can be made."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc

from mlrs_proto import v1 as pb
from mlrs_server.auth.roles import Role
from mlrs_server.auth.tokens import TokenFile
from tests.server.support import Refusal, columns, refusal_of, service
from tests.support.stubs import METHODS, Stub

TIMEOUT = 20
RPCS = list(METHODS)
"""Every RPC of the contract."""
STREAMS_OUT = {"StreamAdvice", "WatchRun"}
STREAMS_IN = {"StreamAdvice", "AdaptGradients", "ImportModel"}


@dataclass(frozen=True)
class Caller:
    """A caller with or without a token."""

    stub: Any
    token: str | None

    @property
    def metadata(self) -> list[tuple[str, str]]:
        """The metadata of each call."""
        return [] if self.token is None else [("authorization", f"Bearer {self.token}")]

    async def call(self, rpc: str, *messages: Any) -> list[Any]:
        """Make a call; return the responses."""
        method = getattr(self.stub, rpc)
        request: Any = iter(messages) if rpc in STREAMS_IN else messages[0]
        call = method(request, timeout=TIMEOUT, metadata=self.metadata)
        if rpc not in STREAMS_OUT:
            return [await call]
        return [response async for response in call]

    async def refused(self, rpc: str, *messages: Any) -> Refusal:
        """Return the error of a call."""
        try:
            responses = await self.call(rpc, *messages)
        except grpc.aio.AioRpcError as error:
            return refusal_of(error)
        raise AssertionError(f"{rpc} was answered: {responses}")

    async def create(
        self,
        run_id: str,
        *,
        explore: pb.Explore.ValueType = pb.EXPLORE_UNSPECIFIED,
        task: str = "",
        **config: Any,
    ) -> int:
        """Open a run; return its handle."""
        request = pb.OpenRunRequest(run_id=run_id, task=task, config=pb.RunConfig(**config), explore=explore)
        (opened,) = await self.call("OpenRun", request)
        return int(opened.run_handle)

    def stream(self) -> Any:
        """Open an advice stream."""
        return self.stub.StreamAdvice(timeout=TIMEOUT, metadata=self.metadata)

    async def import_model(self, data: bytes, name: str) -> pb.Model:
        """Upload a model."""
        (answer,) = await self.call("ImportModel", *upload_of(data, name))
        model: pb.Model = answer.model
        return model


def upload_of(data: bytes, name: str, digest: str = "", size: int = 1000) -> list[pb.ImportModelRequest]:
    """Return the messages of an upload."""
    header = pb.ImportModelHeader(name=name, digest=digest)
    pieces = [data[start : start + size] for start in range(0, len(data), size)]
    return [pb.ImportModelRequest(header=header), *(pb.ImportModelRequest(chunk=piece) for piece in pieces)]


def messages_of(rpc: str, *, run_id: str = "theirs", handle: int = 1, model: str = "secret") -> list[Any]:
    """Return the messages of a call of each RPC about a run or a model."""
    create = pb.OpenRunRequest(run_id=run_id, mode=pb.OPEN_MODE_RESUME)
    adapt = pb.AdaptRequest(run_id=run_id, alignment=0.5)
    return {
        "OpenRun": [create],
        "BatchOpenRuns": [pb.BatchOpenRunsRequest(requests=[create])],
        "GetRun": [pb.GetRunRequest(run_id=run_id)],
        "ListRuns": [pb.ListRunsRequest(prefix=run_id)],
        "UpdateRun": [pb.UpdateRunRequest(run_id=run_id, set_tags={"mine": "now"}, note="mine")],
        "FinishRun": [pb.FinishRunRequest(run_id=run_id)],
        "BatchFinishRuns": [pb.BatchFinishRunsRequest(run_ids=[run_id])],
        "DeleteRun": [pb.DeleteRunRequest(run_id=run_id)],
        "SearchTrial": [pb.SearchTrialRequest(run_id=run_id, start="s")],
        "GetSearch": [pb.GetSearchRequest(run_id=run_id)],
        "Advise": [pb.AdviseRequest(run_id=run_id, step=0, loss=1.0)],
        "StreamAdvice": [columns((handle, 0, 1.0))],
        "WatchRun": [pb.WatchRunRequest(run_id=run_id)],
        "SummarizeRecord": [pb.SummarizeRecordRequest(run_id=run_id)],
        "SampleRecords": [pb.SampleRecordsRequest(run_ids=[run_id])],
        "ListRunEvents": [pb.ListRunEventsRequest(run_id=run_id)],
        "Adapt": [adapt],
        "AdaptGradients": [pb.AdaptGradientsRequest(header=pb.AdaptGradientsHeader(run_id=run_id))],
        "ListModels": [pb.ListModelsRequest()],
        "GetModel": [pb.GetModelRequest(model=model)],
        "ImportModel": upload_of(b"rubbish", "anything"),
        "SetAlias": [pb.SetAliasRequest(alias="mine", model=model)],
        "PromoteModel": [pb.PromoteModelRequest(model=model)],
        "RollbackAlias": [pb.RollbackAliasRequest(alias="mine")],
        "ListAliasChanges": [pb.ListAliasChangesRequest(alias="mine")],
        "ListTasks": [pb.ListTasksRequest()],
        "GetTask": [pb.GetTaskRequest(task=run_id)],
        "ForgetTask": [pb.ForgetTaskRequest(task=run_id)],
        "GetDaemon": [pb.GetDaemonRequest()],
        "GetDaemonStatus": [pb.GetDaemonStatusRequest()],
    }[rpc]


@dataclass(frozen=True)
class Tenants:
    """A daemon with tokens."""

    stub: Stub
    address: str
    file: TokenFile

    def caller(
        self, tenant: str, role: Role = Role.ADMIN, *, lifetime_s: float | None = None, name: str = ""
    ) -> Caller:
        """Return a caller with a new token; wait with `known` until the daemon has read it."""
        token, _ = self.file.create(tenant=tenant, role=role, lifetime_s=lifetime_s, name=name)
        return Caller(self.stub, token)

    async def known(self, *callers: Caller) -> None:
        """Wait until the daemon has read the callers' tokens."""
        for caller in callers:
            await until(caller, good=True)


async def until(caller: Caller, *, good: bool) -> None:
    """Wait until a caller's token is accepted, or not any more."""
    async with asyncio.timeout(TIMEOUT):
        while True:
            try:
                await caller.call("ListModels", pb.ListModelsRequest(page_size=1))
                code = grpc.StatusCode.OK
            except grpc.aio.AioRpcError as error:
                code = error.code()
            assert code in (grpc.StatusCode.OK, grpc.StatusCode.UNAUTHENTICATED)
            if (code == grpc.StatusCode.OK) == good:
                return
            await asyncio.sleep(0.02)


@asynccontextmanager
async def tenants(data_dir: Path, model: Path, **settings: Any) -> AsyncIterator[Tenants]:
    """Run a daemon that needs tokens."""
    file = TokenFile(data_dir / "tokens.json")
    file.create(tenant="first", role=Role.ADVISE)
    async with service(data_dir, model, **settings) as (stub, address):
        yield Tenants(stub, address, file)


def ids(responses: Iterable[Any]) -> list[str]:
    """Return the ids of listed runs."""
    return [run.run_id for response in responses for run in response.runs]
