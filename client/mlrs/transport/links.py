"""A channel to each address in use, and its stubs."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from typing import Any

from mlrs.transport.access import Access
from mlrs.transport.channel import options_of
from mlrs_proto.v1.advisor_service_pb2_grpc import AdvisorServiceStub
from mlrs_proto.v1.daemon_service_pb2_grpc import DaemonServiceStub
from mlrs_proto.v1.model_service_pb2_grpc import ModelServiceStub
from mlrs_proto.v1.task_service_pb2_grpc import TaskServiceStub

SERVICES: tuple[Callable[[Any], Any], ...] = (
    AdvisorServiceStub,
    DaemonServiceStub,
    ModelServiceStub,
    TaskServiceStub,
)
"""The stubs of the services, whose methods all have different names."""
FEEDER_KEY = "mlrs-feeder"
"""The metadata by which a daemon knows that a process is still connected."""


class Links:
    """Channels, opened when they are first needed. Not used in users' threads.

    Args:
        open_plain: opens a channel without encryption, given the address and options.
        open_secure: opens one with encryption, given the credentials, too.
        access: the credentials.
    """

    def __init__(
        self, open_plain: Callable[..., Any], open_secure: Callable[..., Any], access: Access
    ) -> None:
        self._open_plain, self._open_secure, self._access = open_plain, open_secure, access
        self._links: dict[str, tuple[Any, tuple[Any, ...]]] = {}
        self._lock = threading.Lock()

    def method(self, address: str, name: str) -> Any:
        """Return a method of the services at an address."""
        with self._lock:
            if address not in self._links:
                self._access.check_redirect(address)
                channel = self._open(address)
                self._links[address] = channel, tuple(service(channel) for service in SERVICES)
        return next(getattr(stub, name) for stub in self._links[address][1] if hasattr(stub, name))

    @property
    def metadata(self) -> tuple[tuple[str, str], ...] | None:
        """The metadata of every call."""
        return self._access.metadata

    def stream_metadata(self, feeder: str) -> tuple[tuple[str, str], ...]:
        """Return the metadata of a stream of observations, which names their sender."""
        return (*(self.metadata or ()), (FEEDER_KEY, feeder))

    def channels(self) -> Iterable[Any]:
        """Return the open channels."""
        return [channel for channel, _ in self._links.values()]

    def _open(self, address: str) -> Any:
        options = (*options_of(address), *self._access.options)
        if self._access.credentials is None:
            return self._open_plain(address, options=options)
        return self._open_secure(address, self._access.credentials, options=options)
