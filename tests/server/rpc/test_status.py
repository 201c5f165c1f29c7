"""Exceptions as status codes."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import grpc
import pytest

from mlrs_core.errors import InvalidFieldError, ModelFileError
from mlrs_proto import v1 as pb
from mlrs_server.errors import AdvisorError, Reason
from mlrs_server.rpc.status import CODES, MAX_MESSAGE, as_advisor_error, code_number
from mlrs_server.runs.records import RunRecords
from tests.server.support import refusal_of, refused, service


@pytest.mark.parametrize("reason", Reason)
def test_every_reason_is_the_contracts(reason: Reason) -> None:
    """A reason has a code, and the contract's name and number."""
    assert pb.ErrorReason.Value(f"ERROR_REASON_{reason.name}") == reason
    assert CODES[reason] != grpc.StatusCode.INTERNAL
    assert code_number(reason) == CODES[reason].value[0]


def test_the_contract_has_no_other_reason() -> None:
    """Every reason of the contract but the unspecified one is used."""
    assert set(pb.ErrorReason.values()) == {0, *Reason}


def test_errors_of_the_core_are_translated() -> None:
    """What the core raises keeps its message and its field; a defect has no reason."""
    field = as_advisor_error(InvalidFieldError("scale", "must be > 0"))
    assert field is not None
    assert (field.reason, field.field, str(field)) == (Reason.INVALID_FIELD, "scale", "scale: must be > 0")
    file = as_advisor_error(ModelFileError("cut off"))
    assert file is not None
    assert file.reason == Reason.MODEL_INVALID
    assert as_advisor_error(KeyError("secret")) is None


async def test_a_defect_leaks_nothing(
    tmp_path: Path, model_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An unknown exception is INTERNAL without its text, in a unary call and in a stream."""

    async def broken(*_: object) -> None:
        raise ZeroDivisionError("secret")

    monkeypatch.setattr(RunRecords, "get", broken)
    async with service(tmp_path / "d", model_file) as (stub, _):
        await stub.OpenRun(pb.OpenRunRequest(run_id="a"))
        with pytest.raises(grpc.aio.AioRpcError) as unary:
            await stub.GetRun(pb.GetRunRequest(run_id="a"))
        with pytest.raises(grpc.aio.AioRpcError) as stream:
            async for _ in stub.WatchRun(pb.WatchRunRequest(run_id="a")):
                pass
        for caught in (unary, stream):
            refusal = refusal_of(caught.value)
            assert refusal.code == grpc.StatusCode.INTERNAL
            assert "secret" not in refusal.message
            assert "failed inside the daemon" in refusal.message


async def test_a_long_message_is_cut(
    tmp_path: Path, model_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A message fits into a status, however long what it quotes."""

    async def refuse(*_: object) -> None:
        await asyncio.sleep(0)
        raise AdvisorError(Reason.STORE, "x" * 100_000)

    monkeypatch.setattr(RunRecords, "get", refuse)
    async with service(tmp_path / "d", model_file) as (stub, _):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.GetRun(pb.GetRunRequest(run_id="a"))
        assert refusal_of(caught.value).message == "x" * MAX_MESSAGE


@pytest.mark.parametrize("method", ["OpenRun", "WatchRun", "StreamAdvice"])
async def test_bytes_that_are_no_message_are_an_invalid_argument(
    tmp_path: Path, model_file: Path, method: str
) -> None:
    """Bytes that cannot be parsed are INVALID_ARGUMENT, in a unary call and in streams."""
    async with service(tmp_path / "d", model_file) as (_, address), grpc.aio.insecure_channel(address) as raw:
        path = f"/mlrs.v1.AdvisorService/{method}"
        call: Any = {
            "OpenRun": lambda: raw.unary_unary(path)(b"\xff\xff"),
            "WatchRun": lambda: raw.unary_stream(path)(b"\xff\xff"),
            "StreamAdvice": lambda: raw.stream_stream(path)(iter([b"\xff\xff"])),
        }[method]()
        refusal = await refused(call)
    assert refusal.code == grpc.StatusCode.INVALID_ARGUMENT
    assert refusal.reason == "ERROR_REASON_INVALID_FIELD"
