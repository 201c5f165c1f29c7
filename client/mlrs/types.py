"""What the daemon reports of runs, models and tasks, signals, and the enumerations of options and reports.

The values of the enumerations are strings, and every option also takes the string.
"""

from mlrs.values.advised_step import AdvisedStep
from mlrs.values.meta_types import Adaptation, MetaOrder, MetaOutcome, MetaRecord, MetaScope, MetaStatus
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
    RunStatus,
    ScheduleKind,
)

__all__ = [
    "Adaptation",
    "AdvisedStep",
    "Ending",
    "Expected",
    "FinishedTrial",
    "FoundRate",
    "Measure",
    "MetaOrder",
    "MetaOutcome",
    "MetaRecord",
    "MetaScope",
    "MetaStatus",
    "ModelInfo",
    "PastRun",
    "RankReduction",
    "Recalled",
    "RecordChunk",
    "RunConfig",
    "RunInfo",
    "RunStatus",
    "ScheduleKind",
    "Search",
    "SignalRecord",
    "Signals",
    "TaskInfo",
    "TaskMemory",
    "Trial",
    "ValidationRecord",
]
