"""Plays the scenarios of `proto/conformance` on a daemon, with descriptors of messages and no client of ours.

It makes calls as `grpcurl` does: the JSON of a request becomes a message by its descriptor, and the message
of the response becomes JSON. The descriptors are those of the stubs, or what the daemon's reflection says.
"""

from __future__ import annotations

import queue
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from types import MappingProxyType
from typing import Any, Protocol

import grpc
from google.protobuf import descriptor_pool, json_format, message_factory
from google.protobuf.descriptor import MethodDescriptor

from tests.support.stubs import ADVISOR

PACKAGE = "mlrs.v1"
STREAM = "AdvisorService.StreamAdvice"
TIMEOUT_S = 60.0
"""The deadline of each call and of each message of a stream, in seconds."""
Json = dict[str, Any]


class Served(Protocol):
    """A daemon that a scenario may end and start again: `tests.support.daemon.Daemon`."""

    address: str

    def start(self) -> Any:
        """Start it on the address that it had before, and wait until it listens."""

    def kill(self) -> None:
        """End it as `kill -9` does."""

    def signal(self, number: int) -> None:
        """Send it a signal."""

    def wait(self) -> int:
        """Wait for its end."""


class Stream:
    """One StreamAdvice call that a scenario has opened."""

    def __init__(self, call: Callable[..., Any], metadata: list[tuple[str, str]]) -> None:
        self._requests: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._responses = call(iter(self._requests.get, None), timeout=TIMEOUT_S, metadata=metadata)

    def send(self, message: Any) -> None:
        """Send a message; does not wait."""
        self._requests.put(message)

    def receive(self) -> Any:
        """Wait for the next message; raises `StopIteration` at the end, `grpc.RpcError` if the call fails."""
        return next(self._responses)

    def half_close(self) -> None:
        """Say that no further message follows."""
        self._requests.put(None)


class Player:
    """Plays scenarios one after another on one daemon.

    Args:
        daemon: the daemon.
        reflected: whether the descriptors come from the daemon's reflection instead of the stubs.
    """

    def __init__(self, daemon: Served, *, reflected: bool = False) -> None:
        self._daemon, self._reflected = daemon, reflected
        self._kept: dict[str, str] = {}
        self._streams: dict[str, Stream] = {}
        self._connect()

    def close(self) -> None:
        """Close the connection."""
        for stream in self._streams.values():
            stream.half_close()
        self._streams.clear()
        self._channel.close()

    def play(self, scenario: Json) -> Iterator[tuple[Json, Json]]:
        """Do the actions of a scenario; yield each with what came of it, as the files have it."""
        self._kept.clear()
        for action in scenario["actions"]:
            yield action, self._do(action)

    def _connect(self) -> None:
        self._channel = grpc.insecure_channel(self._daemon.address)
        self._pool = ADVISOR.file.pool
        if self._reflected:
            from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
                ProtoReflectionDescriptorDatabase,
            )

            self._pool = descriptor_pool.DescriptorPool(ProtoReflectionDescriptorDatabase(self._channel))

    def _do(self, action: Json) -> Json:
        match action:
            case {"call": method, "request": request}:
                return self._outcome(lambda: self._call(method, request), action.get("keep", {}))
            case {"open": name}:
                metadata = list(action.get("metadata", {}).items())
                self._streams[name] = Stream(self._callable(STREAM), metadata)
            case {"send": name, "message": message}:
                self._streams[name].send(self._message(self._method(STREAM).input_type, message))
            case {"receive": name}:
                outcome = self._outcome(self._streams[name].receive)
                if "error" in outcome:  # the call has ended
                    self._streams.pop(name).half_close()
                return outcome
            case {"close": name}:
                return self._closed(self._streams.pop(name))
            case {"daemon": what}:
                self._handle_daemon(what)
            case _:
                raise AssertionError(f"not an action: {action}")
        return {}

    def _closed(self, stream: Stream) -> Json:
        """Half-close a stream and read its end; what comes before the end is no part of a scenario."""
        stream.half_close()
        with suppress(StopIteration):
            return self._outcome(stream.receive)
        return {}

    def _handle_daemon(self, what: str) -> None:
        if what == "kill":
            self._daemon.kill()
        elif what == "drain":
            self._daemon.signal(15)
        else:
            self._daemon.wait()
            self._daemon.start()
            self.close()
            self._connect()

    def _outcome(self, work: Callable[[], Any], keep: Mapping[str, str] = MappingProxyType({})) -> Json:
        """Return what a call or a stream gives: a message, or an error."""
        try:
            message = work()
        except grpc.RpcError as error:
            return {"error": _error(error)}
        found = json_format.MessageToDict(
            message, always_print_fields_with_no_presence=True, descriptor_pool=self._pool
        )
        for name, path in keep.items():
            value: Any = found
            for part in path.split("."):
                value = value[int(part) if part.isdigit() else part]
            self._kept[name] = value
        return {"response": as_stated(found)}

    def _method(self, name: str) -> MethodDescriptor:
        service, _, method = name.partition(".")
        return self._pool.FindServiceByName(f"{PACKAGE}.{service}").methods_by_name[method]

    def _callable(self, name: str) -> Callable[..., Any]:
        method = self._method(name)
        multi = self._channel.stream_stream if name == STREAM else self._channel.unary_unary
        return multi(
            f"/{method.containing_service.full_name}/{method.name}",
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=message_factory.GetMessageClass(method.output_type).FromString,
        )

    def _call(self, name: str, request: Json) -> Any:
        message = self._message(self._method(name).input_type, request)
        return self._callable(name)(message, timeout=TIMEOUT_S)

    def _message(self, kind: Any, content: Json) -> Any:
        return json_format.ParseDict(
            self._filled(content), message_factory.GetMessageClass(kind)(), descriptor_pool=self._pool
        )

    def _filled(self, value: Any) -> Any:
        """Return a part of a request with the values that were kept in place of their names."""
        if isinstance(value, dict):
            return {key: self._filled(each) for key, each in value.items()}
        if isinstance(value, list):
            return [self._filled(each) for each in value]
        return self._kept[value[1:]] if isinstance(value, str) and value.startswith("$") else value


def _error(error: Any) -> Json:
    """Return the code of a failure, and what mlrs says of it in the trailing metadata."""
    metadata = {key: value for key, value in error.trailing_metadata() or () if key.startswith("mlrs-")}
    return {"code": error.code().name, "metadata": metadata}


def as_stated(value: Any) -> Any:
    """Return a part of a message as the files have it: sorted, with doubles in hexadecimal digits."""
    if isinstance(value, dict):
        return {key: as_stated(value[key]) for key in sorted(value)}
    if isinstance(value, list):
        return [as_stated(each) for each in value]
    return value.hex() if isinstance(value, float) else value


def differences(expected: Any, actual: Any, tolerance: float = 0.0, where: str = "") -> Iterator[str]:
    """Yield how an outcome differs from what a scenario states; what is not stated is not compared.

    Args:
        expected: the statement.
        actual: the outcome.
        tolerance: how far doubles may be apart, as a part of the expected one; 0: equal to the bit.
        where: the path of both, for the message.
    """
    if isinstance(expected, dict) and isinstance(actual, dict):
        for key, each in expected.items():
            if key == "metadata" and each != actual.get(key):
                yield f"{where}.{key}: {actual.get(key)!r} instead of {each!r}"
            elif key not in actual:
                yield f"{where}.{key}: missing"
            else:
                yield from differences(each, actual[key], tolerance, f"{where}.{key}")
    elif isinstance(expected, list) and isinstance(actual, list) and len(expected) == len(actual):
        for index, (each, other) in enumerate(zip(expected, actual, strict=True)):
            yield from differences(each, other, tolerance, f"{where}[{index}]")
    elif expected != actual and not _is_near(expected, actual, tolerance):
        yield f"{where}: {actual!r} instead of {expected!r}"


def _is_near(expected: Any, actual: Any, tolerance: float) -> bool:
    if not (isinstance(expected, str) and isinstance(actual, str) and "0x" in expected and "0x" in actual):
        return False
    wanted = float.fromhex(expected)
    return abs(float.fromhex(actual) - wanted) <= tolerance * abs(wanted)
