"""From gRPC errors to exceptions."""

from __future__ import annotations

import grpc
import grpc.aio
import pytest

import mlrs
from mlrs.errors import NotOwnerError
from mlrs.ledger.answers import Advised
from mlrs.wire import status as _status
from mlrs.wire.stream_messages import answer_from_proto
from mlrs_proto import v1 as pb


def _rpc_error(code: grpc.StatusCode, details: str, **trailers: str) -> grpc.RpcError:
    pairs = [(key.replace("_", "-"), value) for key, value in trailers.items()]
    return grpc.aio.AioRpcError(code, grpc.aio.Metadata(), grpc.aio.Metadata(*pairs), details)


def _mapped(error: grpc.RpcError) -> mlrs.MlrsError:
    with pytest.raises(mlrs.MlrsError) as caught, _status.map_rpc_errors("host:1"):
        raise error
    assert caught.value.__cause__ is error
    return caught.value


@pytest.mark.parametrize("name", pb.ErrorReason.keys())
def test_every_reason_has_an_exception(name: str) -> None:
    """The daemon's reason decides, whatever the code, and programs can read it."""
    mapped = _mapped(_rpc_error(grpc.StatusCode.UNKNOWN, "way out", mlrs_reason=name, mlrs_field="horizon"))
    assert mapped.reason == name.removeprefix("ERROR_REASON_")
    assert mapped.field == "horizon"
    assert "way out" in str(mapped)


@pytest.mark.parametrize(
    ("code", "kind", "hint"),
    [
        (grpc.StatusCode.UNAVAILABLE, mlrs.UnavailableError, "mlrs serve"),
        (grpc.StatusCode.DEADLINE_EXCEEDED, mlrs.errors.DeadlineExceededError, "timeout_s"),
        (grpc.StatusCode.UNIMPLEMENTED, mlrs.errors.NotBuiltError, "newer"),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, mlrs.errors.LimitError, "host:1"),
        (grpc.StatusCode.INTERNAL, mlrs.errors.DaemonError, "host:1"),
        (grpc.StatusCode.DATA_LOSS, mlrs.errors.RecordDamagedError, "host:1"),
    ],
)
def test_codes_of_the_transport(code: grpc.StatusCode, kind: type[Exception], hint: str) -> None:
    """Without a reason the code decides, and the message names the daemon or the way out."""
    mapped = _mapped(_rpc_error(code, "details"))
    assert type(mapped) is kind
    assert hint in str(mapped)


def test_oversize_message() -> None:
    """A message beyond the size limit says that it can be split or the limit raised."""
    mapped = _mapped(
        _rpc_error(grpc.StatusCode.RESOURCE_EXHAUSTED, "CLIENT: Received message larger than max (9 vs. 4)")
    )
    assert type(mapped) is mlrs.errors.MessageTooLargeError
    assert "fewer entries" in str(mapped)
    assert "limit" in str(mapped)


def test_standard_exceptions() -> None:
    """Errors are also what Python calls them: a timeout, a connection error, a value error."""
    assert isinstance(_mapped(_rpc_error(grpc.StatusCode.DEADLINE_EXCEEDED, "")), TimeoutError)
    assert isinstance(_mapped(_rpc_error(grpc.StatusCode.UNAVAILABLE, "")), ConnectionError)
    assert isinstance(_mapped(_rpc_error(grpc.StatusCode.INVALID_ARGUMENT, "")), ValueError)


@pytest.mark.parametrize(("said", "expected"), [("7", 7), ("0", 0), ("", None), ("-1", None)])
def test_the_step_that_is_due(said: str, expected: int | None) -> None:
    """A call that failed because of a step says which one is due, where the daemon says it."""
    error = _rpc_error(
        grpc.StatusCode.FAILED_PRECONDITION,
        "lacks steps",
        mlrs_reason="ERROR_REASON_STEP_AHEAD",
        mlrs_next_step=said,
    )
    mapped = _mapped(error)
    assert isinstance(mapped, mlrs.errors.StepAheadError)
    assert mapped.next_step == expected


def test_messages_of_newer_daemons() -> None:
    """A message of a kind that this version does not know is passed over."""
    assert answer_from_proto(pb.StreamAdviceResponse()) is None


def _refused(entry: pb.EntryError) -> mlrs.MlrsError:
    """Return the exception of run "a" for an entry that a daemon refused."""
    answer = answer_from_proto(pb.StreamAdviceResponse(advice=pb.AdviceColumns(errors=[entry])))
    assert isinstance(answer, Advised)
    (refusal,) = answer.refusals
    return refusal.error("a")


def test_entry_errors() -> None:
    """An entry's error names the run and carries the expected step."""
    entry = pb.EntryError(reason=pb.ERROR_REASON_STEP_AHEAD, message="step 9 is ahead", next_step=0)
    error = _refused(entry)
    assert isinstance(error, mlrs.errors.StepAheadError)
    assert error.next_step == 0
    assert "'a'" in str(error)


def test_reasons_of_newer_daemons() -> None:
    """A reason that this version does not know is a `DaemonError`, not a crash."""
    entry = pb.EntryError(message="new")
    entry.reason = 77  # type: ignore[assignment] # a number from the future
    assert type(_refused(entry)) is mlrs.errors.DaemonError


def test_owners_of_runs() -> None:
    """A redirect carries the owner's address, where the daemon knows one; for users it is unavailability."""
    for owner in ("host:2", ""):
        error = _rpc_error(
            grpc.StatusCode.FAILED_PRECONDITION,
            "of another replica",
            mlrs_reason="ERROR_REASON_NOT_OWNER",
            mlrs_owner=owner,
        )
        mapped = _mapped(error)
        assert isinstance(mapped, NotOwnerError)
        assert isinstance(mapped, mlrs.UnavailableError)
        assert mapped.owner == (owner or None)


def test_tokens_and_tenants() -> None:
    """What a token may not do, and what a tenant has too much of, have exceptions of their own."""
    for name, kind in [
        ("UNAUTHENTICATED", mlrs.errors.UnauthenticatedError),
        ("PERMISSION_DENIED", mlrs.errors.PermissionDeniedError),
        ("TENANT_LIMIT", mlrs.errors.TenantLimitError),
    ]:
        error = _rpc_error(grpc.StatusCode.UNKNOWN, "way out", mlrs_reason=f"ERROR_REASON_{name}")
        assert type(_mapped(error)) is kind
    assert issubclass(mlrs.errors.TenantLimitError, mlrs.errors.LimitError)


def test_a_connection_that_breaks_under_a_write_is_out_of_reach() -> None:
    """What gRPC calls an internal error of its own, as a connection breaks, is a daemon out of reach."""
    broken = _mapped(_rpc_error(grpc.StatusCode.INTERNAL, _status.BROKEN_UNDER_A_WRITE))
    assert isinstance(broken, mlrs.UnavailableError)
    assert isinstance(_mapped(_rpc_error(grpc.StatusCode.INTERNAL, "failed")), mlrs.errors.DaemonError)
