"""Conversion of what a daemon reports of the ranks of a run."""

from __future__ import annotations

from google.protobuf.duration_pb2 import Duration

from mlrs.values.rank_types import RankMisses, RankStatus
from mlrs_proto import v1 as pb


def ranks_from_proto(message: pb.GetRunResponse) -> RankStatus | None:
    """Return the ranks of the run in a message; `None`: it says nothing of them."""
    if not message.HasField("ranks"):
        return None
    ranks = message.ranks
    return RankStatus(
        world_size=message.run.world_size,
        step=ranks.step,
        reported=ranks.reported,
        missing=tuple(ranks.missing),
        waiting_s=seconds_from_proto(ranks.waiting) if ranks.HasField("waiting") else None,
        misses=tuple(RankMisses(rank=one.rank, steps=one.steps) for one in ranks.misses),
    )


def seconds_from_proto(message: Duration) -> float:
    """Return a duration in seconds."""
    return (message.seconds * 10**9 + message.nanos) / 1e9
