"""The unary calls about a daemon as values."""

from __future__ import annotations

import datetime as dt

from mlrs.protocol.routing import Call
from mlrs.values.daemon_types import (
    DaemonInfo,
    DaemonStatus,
    LatencyHistogram,
    ReplicaInfo,
    StoreStatus,
)
from mlrs.wire.rank_convert import seconds_from_proto
from mlrs_proto import v1 as pb


def get_daemon() -> Call[DaemonInfo]:
    """Read which daemon answers."""
    return Call("GetDaemon", pb.GetDaemonRequest(), _daemon_from_proto)


def get_daemon_status() -> Call[DaemonStatus]:
    """Read how the daemon is."""
    return Call("GetDaemonStatus", pb.GetDaemonStatusRequest(), _status_from_proto)


def _daemon_from_proto(message: pb.GetDaemonResponse) -> DaemonInfo:
    return DaemonInfo(
        version=message.version,
        start_time=message.start_time.ToDatetime(tzinfo=dt.UTC),
        exit_after_idle_s=seconds_from_proto(message.exit_after_idle)
        if message.HasField("exit_after_idle")
        else None,
    )


def _status_from_proto(message: pb.GetDaemonStatusResponse) -> DaemonStatus:
    return DaemonStatus(
        time=message.time.ToDatetime(tzinfo=dt.UTC),
        live_runs=message.live_runs,
        streams=message.streams,
        followers=message.followers,
        answers={one.reason: one.count for one in message.answers},
        refusals={one.reason: one.count for one in message.refusals},
        latency=LatencyHistogram(
            upper_bounds_s=tuple(message.latency.upper_bounds_s), counts=tuple(message.latency.counts)
        ),
        pending_barriers=message.pending_barriers,
        ranks_waiting=message.ranks_waiting,
        resident_memory_bytes=message.resident_memory_bytes,
        store=_store_from_proto(message.store),
        replicas=tuple(map(_replica_from_proto, message.replicas)),
    )


def _store_from_proto(message: pb.StoreStatus) -> StoreStatus:
    return StoreStatus(
        engine=message.engine,
        works=message.works,
        unstored_answers=message.unstored_answers,
        since_flush_s=seconds_from_proto(message.since_flush) if message.HasField("since_flush") else None,
        flushes=message.flushes,
        flush_time_s=seconds_from_proto(message.flush_time),
        flush_failures=message.flush_failures,
    )


def _replica_from_proto(message: pb.Replica) -> ReplicaInfo:
    until = message.lease_until.ToDatetime(tzinfo=dt.UTC) if message.HasField("lease_until") else None
    return ReplicaInfo(
        address=message.address,
        answering=message.answering,
        shards=message.shards,
        unfinished_runs=message.unfinished_runs if message.HasField("unfinished_runs") else None,
        lease_until=until,
    )
