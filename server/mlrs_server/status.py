"""Exceptions become status codes here and nowhere else.

AdvisorError         the code of its reason, in the table below
InvalidFieldError    INVALID_ARGUMENT, with the field
ModelFileError       FAILED_PRECONDITION
DecodeError          INVALID_ARGUMENT: the bytes are no message of the RPC
grpc's InternalError none: the client went away
anything else        INTERNAL, logged with its traceback and without details on the wire
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any, NoReturn, cast

import grpc
import structlog
from google.protobuf.message import DecodeError

from mlrs_core.errors import InvalidFieldError, ModelFileError
from mlrs_server.errors import AdvisorError, Reason

log = structlog.get_logger()

MAX_MESSAGE = 1000
"""The longest message on the wire, in characters: a status must fit into 8 KiB of headers."""

CODES: dict[Reason, grpc.StatusCode] = {
    Reason.INVALID_FIELD: grpc.StatusCode.INVALID_ARGUMENT,
    Reason.RUN_NOT_FOUND: grpc.StatusCode.NOT_FOUND,
    Reason.RUN_EXISTS: grpc.StatusCode.ALREADY_EXISTS,
    Reason.CONFIG_MISMATCH: grpc.StatusCode.FAILED_PRECONDITION,
    Reason.RUN_FINISHED: grpc.StatusCode.FAILED_PRECONDITION,
    Reason.STALE_HANDLE: grpc.StatusCode.NOT_FOUND,
    Reason.STEP_AHEAD: grpc.StatusCode.FAILED_PRECONDITION,
    Reason.STALE_STEP: grpc.StatusCode.FAILED_PRECONDITION,
    Reason.MODEL_NOT_FOUND: grpc.StatusCode.NOT_FOUND,
    Reason.MODEL_INVALID: grpc.StatusCode.FAILED_PRECONDITION,
    Reason.QUEUE_FULL: grpc.StatusCode.RESOURCE_EXHAUSTED,
    Reason.MEMORY_FULL: grpc.StatusCode.RESOURCE_EXHAUSTED,
    Reason.DRAINING: grpc.StatusCode.UNAVAILABLE,
    Reason.NOT_BUILT: grpc.StatusCode.UNIMPLEMENTED,
    Reason.STORE: grpc.StatusCode.UNAVAILABLE,
    Reason.NOT_OWNER: grpc.StatusCode.FAILED_PRECONDITION,
    Reason.UNAUTHENTICATED: grpc.StatusCode.UNAUTHENTICATED,
    Reason.PERMISSION_DENIED: grpc.StatusCode.PERMISSION_DENIED,
    Reason.TENANT_LIMIT: grpc.StatusCode.RESOURCE_EXHAUSTED,
}
"""The status code of each reason."""


def code_number(reason: Reason) -> int:
    """Return a reason's code as a google.rpc.Code."""
    number: int = CODES[reason].value[0]
    return number


def as_advisor_error(error: Exception) -> AdvisorError | None:
    """Return an exception as one with a reason; `None` if it is a defect."""
    match error:
        case AdvisorError():
            return error
        case InvalidFieldError():
            return AdvisorError(Reason.INVALID_FIELD, str(error), field=error.field)
        case ModelFileError():
            return AdvisorError(Reason.MODEL_INVALID, str(error))
        case DecodeError():
            return AdvisorError(
                Reason.INVALID_FIELD, f"{error}; is the client of another version, or not a client of mlrs?"
            )
        case _:
            return None


async def _abort(context: grpc.aio.ServicerContext[Any, Any], path: str, error: Exception) -> NoReturn:
    method = path.rpartition("/")[2]
    known = as_advisor_error(error)
    if isinstance(error, grpc.aio.InternalError):  # the client went away: what failed is writing to it
        raise asyncio.CancelledError from error
    if known is None:
        log.error("internal_error", method=method, exc_info=error)
        await context.abort(
            grpc.StatusCode.INTERNAL,
            f"{method} failed inside the daemon; its log says more ({type(error).__name__})",
        )
    trailing = [("mlrs-reason", f"ERROR_REASON_{known.reason.name}")]
    if known.field:
        trailing.append(("mlrs-field", known.field))
    if known.expected_step is not None:
        trailing.append(("mlrs-expected-step", str(known.expected_step)))
    if known.owner:
        trailing.append(("mlrs-owner", known.owner))
    await context.abort(CODES[known.reason], str(known)[:MAX_MESSAGE], tuple(trailing))


def _decoding(handler: Any) -> Callable[[bytes], Any]:
    """Return a handler's deserializer.

    That of a single request returns its error, for the call to raise: gRPC's own word for it is UNKNOWN.
    """
    deserializer: Callable[[bytes], Any] = handler.request_deserializer
    if handler.request_streaming:  # each is read, and may fail, inside the call
        return deserializer

    def decode(data: bytes) -> Any:
        try:
            return deserializer(data)
        except DecodeError as error:
            return error

    return decode


class StatusInterceptor(grpc.aio.ServerInterceptor):
    """Translates whatever an RPC of the service raises, and knows whether any is under way."""

    def __init__(self, service: str) -> None:
        """`service` is the full name of the service."""
        self._prefix = f"/{service}/"
        self._calls = 0
        self._idle = asyncio.Event()
        self._idle.set()

    async def idle(self) -> None:
        """Wait until no call of the service is under way."""
        await self._idle.wait()

    @contextmanager
    def _counted(self) -> Iterator[None]:
        self._calls += 1
        self._idle.clear()
        try:
            yield
        finally:
            self._calls -= 1
            if not self._calls:
                self._idle.set()

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler[Any, Any] | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler[Any, Any] | None:
        """Wrap the handler of a call."""
        handler: Any = await continuation(handler_call_details)
        method = str(handler_call_details.method)
        if handler is None:  # no such RPC; grpc answers UNIMPLEMENTED
            return None
        if not method.startswith(self._prefix):  # health and reflection, whose handlers are of other kinds
            return cast("grpc.RpcMethodHandler[Any, Any]", handler)
        if handler.unary_unary:
            return grpc.unary_unary_rpc_method_handler(*self._unary(handler.unary_unary, method, handler))
        if handler.stream_unary:
            return grpc.stream_unary_rpc_method_handler(*self._unary(handler.stream_unary, method, handler))
        if handler.unary_stream:
            return grpc.unary_stream_rpc_method_handler(
                *self._streaming(handler.unary_stream, method, handler)
            )
        return grpc.stream_stream_rpc_method_handler(*self._streaming(handler.stream_stream, method, handler))

    def _unary(self, behaviour: Any, method: str, handler: Any) -> tuple[Any, Any, Any]:
        async def call(request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> Any:
            with self._counted():
                try:
                    if isinstance(request, DecodeError):
                        raise request
                    return await behaviour(request, context)
                except grpc.aio.AbortError:
                    raise
                except Exception as error:  # noqa: BLE001  # this is the table every exception ends in
                    await _abort(context, method, error)

        return call, _decoding(handler), handler.response_serializer

    def _streaming(self, behaviour: Any, method: str, handler: Any) -> tuple[Any, Any, Any]:
        if not inspect.isasyncgenfunction(behaviour):  # it writes its responses itself
            return self._unary(behaviour, method, handler)

        async def call(request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> AsyncIterator[Any]:
            with self._counted():
                try:
                    if isinstance(request, DecodeError):
                        raise request
                    async for response in behaviour(request, context):
                        yield response
                except grpc.aio.AbortError:
                    raise
                except Exception as error:  # noqa: BLE001  # this is the table every exception ends in
                    await _abort(context, method, error)

        return call, _decoding(handler), handler.response_serializer
