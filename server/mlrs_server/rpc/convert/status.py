"""Conversion of how a daemon is, and of how the ranks of a run are."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping

from google.protobuf.duration_pb2 import Duration

from mlrs_proto import v1 as pb
from mlrs_server.cluster.overview import ReplicaStatus
from mlrs_server.ranks.status import RankStatus
from mlrs_server.rpc.convert.runs import time_to_proto
from mlrs_server.telemetry.figures import DaemonFigures, resident_bytes
from mlrs_server.telemetry.latency import BOUNDS_S


def daemon_status_to_proto(
    figures: DaemonFigures, replicas: Iterable[ReplicaStatus]
) -> pb.GetDaemonStatusResponse:
    """Return the figures of a daemon, and the replicas over its store, as a message."""
    return pb.GetDaemonStatusResponse(
        time=time_to_proto(time.time()),
        live_runs=figures.live_runs,
        streams=figures.advice_streams(),
        followers=figures.followers,
        answers=_counts_to_proto(figures.answers()),
        refusals=_counts_to_proto(figures.refusals()),
        latency=pb.LatencyHistogram(upper_bounds_s=BOUNDS_S, counts=figures.latency.counts),
        pending_barriers=figures.rank_reducer.pending_barriers,
        ranks_waiting=figures.rank_reducer.ranks_waiting,
        resident_memory_bytes=resident_bytes(),
        store=_store_to_proto(figures),
        replicas=map(_replica_to_proto, replicas),
    )


def _counts_to_proto(counts: Mapping[str, int]) -> list[pb.ReasonCount]:
    """Return counts as messages, without those that are 0."""
    return [pb.ReasonCount(reason=reason, count=count) for reason, count in counts.items() if count]


def _store_to_proto(figures: DaemonFigures) -> pb.StoreStatus:
    flushes = figures.flushes
    return pb.StoreStatus(
        engine=figures.engine_name,
        works=figures.health.works,
        unstored_answers=figures.unflushed,
        since_flush=duration_to_proto(figures.since_flush_s()) if flushes.count else None,
        flushes=flushes.count,
        flush_time=duration_to_proto(flushes.seconds),
        flush_failures=flushes.failures,
    )


def _replica_to_proto(replica: ReplicaStatus) -> pb.Replica:
    return pb.Replica(
        address=replica.address,
        answering=replica.is_answering,
        shards=replica.shards,
        unfinished_runs=replica.unfinished_runs,
        lease_until=None if replica.lease_until is None else time_to_proto(replica.lease_until),
    )


def rank_status_to_proto(status: RankStatus | None) -> pb.RankStatus | None:
    """Return the ranks of a run as a message."""
    if status is None:
        return None
    return pb.RankStatus(
        step=status.step,
        reported=status.reported,
        missing=status.missing,
        waiting=None if status.waiting_s is None else duration_to_proto(status.waiting_s),
        misses=[pb.RankMisses(rank=rank, steps=steps) for rank, steps in status.misses],
    )


def duration_to_proto(seconds: float) -> Duration:
    """Return a duration, in seconds, as a message."""
    message = Duration()
    message.FromNanoseconds(round(seconds * 1e9))
    return message
