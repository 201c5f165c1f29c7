"""What the client exports, and what importing it costs."""

from __future__ import annotations

import inspect
import subprocess
import sys

import mlrs_client
import mlrs_client.aio

NAMES = [
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
    "RankMode",
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


def test_public_names() -> None:
    """The public names are these and exist; a change here is a change for users."""
    assert mlrs_client.__all__ == NAMES
    assert all(hasattr(mlrs_client, name) for name in NAMES)


def test_every_error_has_the_root() -> None:
    """Whoever catches `MlrsError` catches everything that the client raises."""
    errors = [getattr(mlrs_client, name) for name in NAMES if name.endswith("Error")]
    assert all(issubclass(error, mlrs_client.MlrsError) for error in errors)


def test_asyncio_mirrors_threads() -> None:
    """The asyncio client has the public methods of the threaded one, with the same parameters."""
    for kind in ("Advisor", "Run", "Pending", "PendingAdaptation"):
        threaded, asynchronous = getattr(mlrs_client, kind), getattr(mlrs_client.aio, kind)
        for name in (name for name in dir(threaded) if not name.startswith("_")):
            ours, theirs = getattr(threaded, name), getattr(asynchronous, name)
            if inspect.isfunction(ours):
                assert inspect.signature(ours).parameters == inspect.signature(theirs).parameters


def test_import_is_light() -> None:
    """Importing the client, in a fresh process, imports grpc, protobuf and the standard library only."""
    script = (
        "import sys; before = set(sys.modules)\n"
        "import mlrs_client, mlrs_client.aio\n"
        "tops = {name.partition('.')[0] for name in set(sys.modules) - before}\n"
        "print(*sorted(tops - set(sys.stdlib_module_names)))"
    )
    ran = subprocess.run(  # our own interpreter
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60
    )
    # grpc brings Cython's runtime, and its own optional packages where they are installed.
    brought = {name for name in ran.stdout.split() if name.startswith(("grpc_", "_cython", "cython_"))}
    assert set(ran.stdout.split()) - brought <= {
        "google",
        "grpc",
        "mlrs_client",
        "mlrs_proto",
        "typing_extensions",
    }
