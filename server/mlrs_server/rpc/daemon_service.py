"""The RPC of `DaemonService`."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

import grpc
from google.protobuf.timestamp_pb2 import Timestamp

from mlrs_proto import v1 as pb
from mlrs_proto.v1.daemon_service_pb2_grpc import DaemonServiceServicer

Context = grpc.aio.ServicerContext[Any, Any]


class DaemonService(DaemonServiceServicer):
    """What this daemon is."""

    def __init__(self, exit_after_idle_s: float | None) -> None:
        """`exit_after_idle_s`: after how long without a call it ends; `None`: it does not."""
        self._answer = pb.GetDaemonResponse(version=version("mlrs"), start_time=_now())
        if exit_after_idle_s is not None:
            self._answer.exit_after_idle.FromNanoseconds(round(exit_after_idle_s * 1e9))

    async def GetDaemon(self, request: pb.GetDaemonRequest, context: Context) -> pb.GetDaemonResponse:
        """Read what the daemon is."""
        return self._answer


def _now() -> Timestamp:
    now = Timestamp()
    now.GetCurrentTime()
    return now
