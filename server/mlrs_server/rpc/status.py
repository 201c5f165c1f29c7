"""Exceptions become status codes here and nowhere else.

AdvisorError         the code of its reason, in the table below
InvalidFieldError    INVALID_ARGUMENT, with the field
ModelFileError       FAILED_PRECONDITION
DecodeError          INVALID_ARGUMENT: the bytes are no message of the RPC
grpc's InternalError no status: the client has disconnected
anything else        INTERNAL, logged with its traceback; no details are sent
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager, nullcontext
from typing import Any, NoReturn, cast

import grpc
import structlog
from google.protobuf.message import DecodeError

from mlrs_core.errors import InvalidFieldError, ModelFileError
from mlrs_server.auth.authenticator import Authenticator
from mlrs_server.auth.principal import Caller, set_caller
from mlrs_server.errors import AdvisorError, Reason
from mlrs_server.rpc.refusals import RefusalLog
from mlrs_server.tenancy import spoken

log = structlog.get_logger()

REFLECTION = "/grpc.reflection."
"""The prefix of the paths of reflection methods."""
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
    Reason.STORE: grpc.StatusCode.UNAVAILABLE,
    Reason.NOT_OWNER: grpc.StatusCode.FAILED_PRECONDITION,
    Reason.UNAUTHENTICATED: grpc.StatusCode.UNAUTHENTICATED,
    Reason.PERMISSION_DENIED: grpc.StatusCode.PERMISSION_DENIED,
    Reason.TENANT_LIMIT: grpc.StatusCode.RESOURCE_EXHAUSTED,
    Reason.NOTHING_TO_DO: grpc.StatusCode.FAILED_PRECONDITION,
    Reason.OTHER_FEEDER: grpc.StatusCode.FAILED_PRECONDITION,
    Reason.DAMAGED: grpc.StatusCode.DATA_LOSS,
    Reason.STORE_NEWER: grpc.StatusCode.FAILED_PRECONDITION,
    Reason.MODEL_EXISTS: grpc.StatusCode.ALREADY_EXISTS,
    Reason.RUN_BEGUN: grpc.StatusCode.FAILED_PRECONDITION,
    Reason.NO_SEARCH: grpc.StatusCode.NOT_FOUND,
    Reason.NO_TASK: grpc.StatusCode.NOT_FOUND,
}
"""The status code of each reason."""


def code_number(reason: Reason) -> int:
    """Return a reason's code as a google.rpc.Code."""
    number: int = CODES[reason].value[0]
    return number


def as_advisor_error(error: Exception) -> AdvisorError | None:
    """Return an exception as an `AdvisorError`; `None` if it is a defect."""
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


async def _abort(
    context: grpc.aio.ServicerContext[Any, Any], method: str, error: Exception, tenant: str
) -> NoReturn:
    known = as_advisor_error(error)
    if isinstance(error, grpc.aio.InternalError):  # the client has disconnected: writing to it failed
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
    if known.next_step is not None:
        trailing.append(("mlrs-next-step", str(known.next_step)))
    if known.owner:
        trailing.append(("mlrs-owner", known.owner))
    await context.abort(CODES[known.reason], spoken(str(known), tenant)[:MAX_MESSAGE], tuple(trailing))


def _decoding(handler: Any) -> Callable[[bytes], Any]:
    """Return a handler's deserializer.

    For a single request it returns the error, for the call to raise: gRPC would answer UNKNOWN.
    """
    deserializer: Callable[[bytes], Any] = handler.request_deserializer
    if handler.request_streaming:  # each message is decoded inside the call
        return deserializer

    def decode(data: bytes) -> Any:
        try:
            return deserializer(data)
        except DecodeError as error:
            return error

    return decode


def _raise_if_malformed(request: Any) -> None:
    if isinstance(request, DecodeError):
        raise request


class StatusInterceptor(grpc.aio.ServerInterceptor):
    """Authenticates calls of the contract, turns their exceptions into statuses, and counts open calls."""

    def __init__(self, services: Iterable[str], authenticator: Authenticator) -> None:
        """`services` are the full names of the contract's services; `authenticator` finds their callers."""
        self._prefixes = tuple(f"/{service}/" for service in services)
        self._authenticator = authenticator
        self._calls = 0
        self.begun = 0
        """The number of calls of the contract that have begun."""
        self._idle = asyncio.Event()
        self._idle.set()
        self._log = RefusalLog()
        self.refusals: Counter[Reason | None] = Counter()
        """The number of failed calls, by reason; `None` is a defect."""

    async def idle(self) -> None:
        """Wait until no call of the contract is open."""
        await self._idle.wait()

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler[Any, Any] | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler[Any, Any] | None:
        """Wrap the handler of a call; if the caller may not make the call, its message is not decoded."""
        handler: Any = await continuation(handler_call_details)
        path, metadata = str(handler_call_details.method), handler_call_details.invocation_metadata
        if handler is None:  # no such RPC: gRPC answers UNIMPLEMENTED
            return None
        rpc = path.rpartition("/")[2]
        try:
            if path.startswith(REFLECTION):
                self._authenticator.admit_reflection(metadata)
            if not path.startswith(self._prefixes):  # health, reflection: handlers of other kinds
                return cast("grpc.RpcMethodHandler[Any, Any]", handler)
            caller = self._authenticator.admit(rpc, metadata)
        except AdvisorError as error:
            return self._refusing(error, rpc)
        return self._wrapped(handler, rpc, caller)

    def _refusing(self, error: AdvisorError, rpc: str) -> grpc.RpcMethodHandler[Any, Any]:
        """Return a handler that refuses the call; its kind fits any RPC."""

        async def refuse(_requests: Any, context: grpc.aio.ServicerContext[Any, Any]) -> None:
            self.refusals[error.reason] += 1
            self._log.note(error, rpc, context)
            await _abort(context, rpc, error, "")

        return grpc.stream_stream_rpc_method_handler(refuse)

    def _wrapped(self, handler: Any, rpc: str, caller: Caller) -> grpc.RpcMethodHandler[Any, Any]:
        """Return the handler of an admitted call."""
        codecs = _decoding(handler), handler.response_serializer
        if handler.unary_unary:
            return grpc.unary_unary_rpc_method_handler(self._unary(handler.unary_unary, rpc, caller), *codecs)
        if handler.stream_unary:
            taking = self._taking(handler.stream_unary, rpc, caller)
            return grpc.stream_unary_rpc_method_handler(taking, *codecs)
        if handler.unary_stream:
            giving = self._giving(handler.unary_stream, rpc, caller)
            return grpc.unary_stream_rpc_method_handler(giving, *codecs)
        # It reads and writes by itself, and checks its caller at every message.
        both = self._unary(handler.stream_stream, rpc, caller, streaming=True)
        return grpc.stream_stream_rpc_method_handler(both, *codecs)

    def _unary(self, behaviour: Any, rpc: str, caller: Caller, *, streaming: bool = False) -> Any:
        async def call(request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> Any:
            async with self._entered(rpc, caller, context, streaming=streaming):
                _raise_if_malformed(request)
                return await behaviour(request, context)

        return call

    def _taking(self, behaviour: Any, rpc: str, caller: Caller) -> Any:
        async def messages(requests: AsyncIterator[Any]) -> AsyncIterator[Any]:
            async for request in requests:
                await caller.message()
                yield request

        async def call(requests: AsyncIterator[Any], context: grpc.aio.ServicerContext[Any, Any]) -> Any:
            async with self._entered(rpc, caller, context, streaming=True):
                return await behaviour(messages(requests), context)

        return call

    def _giving(self, behaviour: Any, rpc: str, caller: Caller) -> Any:
        async def call(request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> AsyncIterator[Any]:
            async with self._entered(rpc, caller, context, streaming=True):
                _raise_if_malformed(request)
                async for response in behaviour(request, context):
                    caller.check()
                    yield response

        return call

    @asynccontextmanager
    async def _entered(
        self, rpc: str, caller: Caller, context: grpc.aio.ServicerContext[Any, Any], *, streaming: bool
    ) -> AsyncIterator[None]:
        """Run a call within its caller's limits, counted, with its exceptions turned into statuses."""
        with self._counted():
            try:
                set_caller(caller)
                await caller.message()
                with caller.usage.stream() if streaming else nullcontext():
                    yield
            except grpc.aio.AbortError:
                raise
            except Exception as error:  # noqa: BLE001  # every exception becomes a status here
                known = as_advisor_error(error)
                self.refusals[None if known is None else known.reason] += 1
                if known is not None:
                    self._log.note(known, rpc, context)
                await _abort(context, rpc, error, caller.tenant)

    @contextmanager
    def _counted(self) -> Iterator[None]:
        self._calls += 1
        self.begun += 1
        self._idle.clear()
        try:
            yield
        finally:
            self._calls -= 1
            if not self._calls:
                self._idle.set()
