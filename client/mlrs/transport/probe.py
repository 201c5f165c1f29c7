"""Asking, once, which daemon answers at an address."""

from __future__ import annotations

import socket

import grpc

from mlrs.errors import MlrsError
from mlrs.transport.channel import options_of
from mlrs.transport.forks import prepare_for_forks
from mlrs.wire.status import map_rpc_errors
from mlrs_proto import v1 as pb
from mlrs_proto.v1.daemon_service_pb2_grpc import DaemonServiceStub

UNIX = "unix:"


def answers(address: str, timeout_s: float) -> bool:
    """Return whether a daemon of mlrs answers at an address within a time, in seconds."""
    if address.startswith(UNIX) and not _is_listened_on(address.removeprefix(UNIX)):
        return False
    prepare_for_forks()
    with grpc.insecure_channel(address, options=options_of(address)) as channel:
        try:
            with map_rpc_errors(address):
                DaemonServiceStub(channel).GetDaemon(pb.GetDaemonRequest(), timeout=timeout_s)
        except MlrsError:
            return False
    return True


def _is_listened_on(path: str) -> bool:
    """Return whether a process listens on a unix socket: quicker than gRPC finds out."""
    with socket.socket(socket.AF_UNIX) as probe:
        probe.setblocking(False)  # a full queue also means that a process listens
        try:
            probe.connect(path)
        except BlockingIOError:
            return True
        except OSError:
            return False
    return True
