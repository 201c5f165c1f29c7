"""Learning rates from an mlrs daemon, for any training loop.

    import mlrs_client

    with mlrs_client.connect("localhost:50051") as advisor:
        run = advisor.run("resnet18-cifar10", horizon=10_000, num_classes=10, optimizer="sgd")
        for step in range(10_000):
            loss = train_batch(step)            # yours
            pending = run.observe(step, loss)   # returns at once
            ...                                 # the backward pass hides the round trip
            lr = pending.lr()
        run.finish()

`mlrs_client.aio` has the same shape for asyncio. Adapters for frameworks are imported by name
(`mlrs_client.torch`); nothing else here imports more than grpcio and protobuf.

Each flavour, threaded and asyncio:

    _advisor.py     aio.py               what users hold: advisors,
    _run.py         _aio_run.py          runs,
    _sweep.py       _aio_sweep.py        and sweeps, which alone import NumPy
    _connection.py  _aio_connection.py   calls, streams, and their end
    _stream.py      _aio_stream.py       the client's end of a StreamAdvice stream

Of the threaded one alone; users' threads call no gRPC, and wait on C locks:

    _worker.py, _tasks.py       the thread that makes the calls, and procedures under way in it
    _signal.py, _watch.py       what users' threads wait on; a record that streams in

Shared by both; no thread, no event loop:

    _session.py                 the rules: sending, falling off a stream
    _options.py                 what users may say of a run when they begin it
    _start.py, _starting.py     how runs begin: what their caller asked for, and what that makes of it
    _names.py                   ids of new runs
    _waiting.py, _joining.py    what callers wait for; how runs come onto a stream, and come back
    _addresses.py, _routing.py  where a daemon may be; where a call goes, and where next
    _conversation.py            which answer belongs to which observation
    _ledger.py, _entries.py     what the client knows of a run; what it keeps of a step ...
    _rows.py                    ... and of a sweep's
    _order.py                   in which order things go to the daemon, and go again
    _updates.py                 meta updates: what is kept of them, and how they travel
    _fallback.py, _outage.py    what answers without a daemon, and when
    _remarks.py                 what users are warned of about their losses
    _unsent.py, _pushing.py     what no daemon got by the end: into a file, and sent later
    _calls.py, _convert.py      unary calls; proto messages to values and back
    _arguments.py, _types.py    checks of what users hand in; what they get
    _values.py                  checks of single values
    _meta_*.py, _gradients.py   the same for meta mode; gradients in pieces
    _views.py, _actions.py      what users hold as far as it waits for nothing; what waits several times
    _exceptions.py, _status.py  what can go wrong; from gRPC errors to that
    _access.py                  tokens and TLS
    _links.py, _channel.py      a channel to each address; its options
    _grpc_log.py                what gRPC itself writes to stderr
    _deadline.py                points in time, and pauses
    schedules.py                schedules without a daemon
    adapters.py                 what adapters for frameworks are written with
"""

from mlrs_client import _grpc_log  # isort: split # noqa: F401 # before anything that imports gRPC
from mlrs_client._access import TLS
from mlrs_client._advisor import Advisor, connect
from mlrs_client._exceptions import (
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
from mlrs_client._meta_types import (
    Adaptation,
    Meta,
    MetaOrder,
    MetaOutcome,
    MetaRecord,
    MetaScope,
    MetaStatus,
)
from mlrs_client._run import Pending, PendingAdaptation, Run
from mlrs_client._types import (
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
