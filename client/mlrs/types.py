"""What the daemon reports of runs, models, tasks and itself; signals; enumerations of options and reports.

The values of the enumerations are strings, and every option also takes the string.
"""

from mlrs.values.advised_step import AdvisedStep
from mlrs.values.alias_types import AliasChange
from mlrs.values.daemon_types import (
    DaemonInfo,
    DaemonStatus,
    LatencyHistogram,
    ReplicaInfo,
    StoreStatus,
)
from mlrs.values.meta_types import Adaptation, MetaOrder, MetaOutcome, MetaRecord, MetaScope, MetaStatus
from mlrs.values.rank_types import RankMisses, RankStatus
from mlrs.values.record_types import RecordSample, RecordSummary, RunEvent, RunEventKind
from mlrs.values.search_types import FinishedTrial, FoundRate, Search, Trial
from mlrs.values.signals import SignalRecord, Signals, ValidationRecord
from mlrs.values.task_memory import TaskMemory
from mlrs.values.task_types import Ending, Expected, Measure, PastRun, Recalled, TaskInfo
from mlrs.values.types import (
    ModelInfo,
    RankReduction,
    RecordChunk,
    RunConfig,
    RunInfo,
    RunPage,
    RunStatus,
    ScheduleKind,
)

__all__ = [
    "Adaptation",
    "AdvisedStep",
    "AliasChange",
    "DaemonInfo",
    "DaemonStatus",
    "Ending",
    "Expected",
    "FinishedTrial",
    "FoundRate",
    "LatencyHistogram",
    "Measure",
    "MetaOrder",
    "MetaOutcome",
    "MetaRecord",
    "MetaScope",
    "MetaStatus",
    "ModelInfo",
    "PastRun",
    "RankMisses",
    "RankReduction",
    "RankStatus",
    "Recalled",
    "RecordChunk",
    "RecordSample",
    "RecordSummary",
    "ReplicaInfo",
    "RunConfig",
    "RunEvent",
    "RunEventKind",
    "RunInfo",
    "RunPage",
    "RunStatus",
    "ScheduleKind",
    "Search",
    "SignalRecord",
    "Signals",
    "StoreStatus",
    "TaskInfo",
    "TaskMemory",
    "Trial",
    "ValidationRecord",
]
