"""What the daemon reports of runs and models, and the enumerations of options and reports.

The values of the enumerations are strings, and every option also takes the string.
"""

from mlrs.values.meta_types import Adaptation, MetaOrder, MetaOutcome, MetaRecord, MetaScope, MetaStatus
from mlrs.values.search_types import FinishedTrial, FoundRate, Search, Trial
from mlrs.values.signals import Signals
from mlrs.values.types import (
    ModelInfo,
    RankReduction,
    RecordChunk,
    RunConfig,
    RunInfo,
    RunStatus,
    ScheduleKind,
)

__all__ = [
    "Adaptation",
    "FinishedTrial",
    "FoundRate",
    "MetaOrder",
    "MetaOutcome",
    "MetaRecord",
    "MetaScope",
    "MetaStatus",
    "ModelInfo",
    "RankReduction",
    "RecordChunk",
    "RunConfig",
    "RunInfo",
    "RunStatus",
    "ScheduleKind",
    "Search",
    "Signals",
    "Trial",
]
