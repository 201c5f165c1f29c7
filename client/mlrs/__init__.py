"""Learning rates from an mlrs daemon, for any training loop.

    import mlrs

    with mlrs.connect("localhost:50051") as advisor:
        run = advisor.run("resnet18-cifar10", horizon=10_000, num_classes=10, optimizer="sgd")
        for step in range(10_000):
            loss = train_batch(step)            # yours
            pending = run.observe(step, loss)   # returns at once
            ...                                 # the backward pass hides the round trip
            lr = pending.lr()
        run.finish()

`mlrs.aio` has the same shape for asyncio. `mlrs.torch` is the adapter for PyTorch, and adapters for other
frameworks are written with `mlrs.adapters`. `mlrs.errors` has everything that can go wrong, `mlrs.schedules`
the schedules that need no daemon, and `mlrs.meta` the formulas of meta mode for any framework. Importing
`mlrs` imports grpcio and protobuf, and nothing else.
"""

from mlrs.api.advisor import Advisor, connect
from mlrs.api.run import Pending, PendingAdaptation, Run
from mlrs.errors import (
    ClosedError,
    ConfigMismatchError,
    DaemonError,
    DeadlineExceededError,
    ForkedError,
    InvalidArgumentError,
    LimitError,
    MemoryFullError,
    MessageTooLargeError,
    MlrsError,
    ModelExistsError,
    ModelInvalidError,
    ModelNotFoundError,
    NotBuiltError,
    PermissionDeniedError,
    QueueFullError,
    RecordDamagedError,
    RecordGapError,
    RunExistsError,
    RunFinishedError,
    RunNotFoundError,
    RunTakenError,
    StaleStepError,
    StepAheadError,
    StepError,
    StoreNewerError,
    TenantLimitError,
    UnauthenticatedError,
    UnavailableError,
    UsageError,
)
from mlrs.transport import grpc_log  # isort: split # noqa: F401 # before anything that imports gRPC
from mlrs.transport.access import TLS
from mlrs.values.meta_types import (
    Adaptation,
    Meta,
    MetaOrder,
    MetaOutcome,
    MetaRecord,
    MetaScope,
    MetaStatus,
)
from mlrs.values.types import (
    Advice,
    AdviceReason,
    ModelInfo,
    Optimizer,
    RankReduction,
    Ranks,
    RecordChunk,
    RunConfig,
    RunInfo,
    RunStatus,
    Schedule,
    ScheduleKind,
)

__all__ = [
    "TLS",
    "Adaptation",
    "Advice",
    "AdviceReason",
    "Advisor",
    "ClosedError",
    "ConfigMismatchError",
    "DaemonError",
    "DeadlineExceededError",
    "ForkedError",
    "InvalidArgumentError",
    "LimitError",
    "MemoryFullError",
    "MessageTooLargeError",
    "Meta",
    "MetaOrder",
    "MetaOutcome",
    "MetaRecord",
    "MetaScope",
    "MetaStatus",
    "MlrsError",
    "ModelExistsError",
    "ModelInfo",
    "ModelInvalidError",
    "ModelNotFoundError",
    "NotBuiltError",
    "Optimizer",
    "Pending",
    "PendingAdaptation",
    "PermissionDeniedError",
    "QueueFullError",
    "RankReduction",
    "Ranks",
    "RecordChunk",
    "RecordDamagedError",
    "RecordGapError",
    "Run",
    "RunConfig",
    "RunExistsError",
    "RunFinishedError",
    "RunInfo",
    "RunNotFoundError",
    "RunStatus",
    "RunTakenError",
    "Schedule",
    "ScheduleKind",
    "StaleStepError",
    "StepAheadError",
    "StepError",
    "StoreNewerError",
    "TenantLimitError",
    "UnauthenticatedError",
    "UnavailableError",
    "UsageError",
    "connect",
]
