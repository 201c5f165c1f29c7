"""The RPCs of `DaemonService`."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

import grpc
from google.protobuf.timestamp_pb2 import Timestamp

from mlrs_proto import v1 as pb
from mlrs_proto.v1.daemon_service_pb2_grpc import DaemonServiceServicer
from mlrs_server.auth.principal import current_caller
from mlrs_server.cluster.overview import Overview
from mlrs_server.rpc import convert
from mlrs_server.telemetry.figures import DaemonFigures

Context = grpc.aio.ServicerContext[Any, Any]


class DaemonService(DaemonServiceServicer):
    """What this daemon is, and how it is."""

    def __init__(self, exit_after_idle_s: float | None, figures: DaemonFigures, overview: Overview) -> None:
        """Serve the figures of the daemon, and the overview of the replicas beside it.

        `exit_after_idle_s` is after how long without a call the daemon ends; `None`: it does not.
        """
        self._figures, self._overview = figures, overview
        self._answer = pb.GetDaemonResponse(version=version("mlrs"), start_time=_now())
        if exit_after_idle_s is not None:
            self._answer.exit_after_idle.CopyFrom(convert.duration_to_proto(exit_after_idle_s))

    async def GetDaemon(self, request: pb.GetDaemonRequest, context: Context) -> pb.GetDaemonResponse:
        """Read what the daemon is."""
        return self._answer

    async def GetDaemonStatus(
        self, request: pb.GetDaemonStatusRequest, context: Context
    ) -> pb.GetDaemonStatusResponse:
        """Read how the daemon is."""
        replicas = await self._overview.replicas(current_caller().tenant)
        return convert.daemon_status_to_proto(self._figures, replicas)


def _now() -> Timestamp:
    now = Timestamp()
    now.GetCurrentTime()
    return now
