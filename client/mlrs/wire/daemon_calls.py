"""The unary calls about a daemon, and about the ranks of a run, as values."""

from __future__ import annotations

import datetime as dt

from google.protobuf.duration_pb2 import Duration

from mlrs.protocol.routing import Call
from mlrs.values import arguments as check
from mlrs.values.daemon_types import (
    DaemonInfo,
    DaemonStatus,
    LatencyHistogram,
    RankMisses,
    RankStatus,
    ReplicaInfo,
    StoreStatus,
)
from mlrs_proto import v1 as pb


def get_daemon() -> Call[DaemonInfo]:
    """Read which daemon answers."""
    return Call("GetDaemon", pb.GetDaemonRequest(), _daemon_from_proto)


def get_daemon_status() -> Call[DaemonStatus]:
    """Read how the daemon is."""
    return Call("GetDaemonStatus", pb.GetDaemonStatusRequest(), _status_from_proto)


def get_rank_status(run_id: object) -> Call[RankStatus | None]:
    """Read the ranks of a run; `None`: it has none, or is not in the daemon's memory."""
    return Call("GetRun", pb.GetRunRequest(run_id=check.run_id(run_id)), _ranks_from_proto)


def _daemon_from_proto(message: pb.GetDaemonResponse) -> DaemonInfo:
    return DaemonInfo(
        version=message.version,
        start_time=message.start_time.ToDatetime(tzinfo=dt.UTC),
        exit_after_idle_s=_seconds(message.exit_after_idle) if message.HasField("exit_after_idle") else None,
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
        since_flush_s=_seconds(message.since_flush) if message.HasField("since_flush") else None,
        flushes=message.flushes,
        flush_time_s=_seconds(message.flush_time),
        flush_failures=message.flush_failures,
    )


def _replica_from_proto(message: pb.Replica) -> ReplicaInfo:
    until = message.lease_until.ToDatetime(tzinfo=dt.UTC) if message.HasField("lease_until") else None
    return ReplicaInfo(
        address=message.address,
        answering=message.answering,
        shards=message.shards,
        unfinished_runs=message.unfinished_runs,
        lease_until=until,
    )


def _ranks_from_proto(message: pb.GetRunResponse) -> RankStatus | None:
    if not message.HasField("ranks"):
        return None
    ranks = message.ranks
    return RankStatus(
        world_size=message.run.world_size,
        step=ranks.step,
        reported=ranks.reported,
        missing=tuple(ranks.missing),
        waiting_s=_seconds(ranks.waiting) if ranks.HasField("waiting") else None,
        misses=tuple(RankMisses(rank=one.rank, steps=one.steps) for one in ranks.misses),
    )


def _seconds(message: Duration) -> float:
    return (message.seconds * 10**9 + message.nanos) / 1e9
