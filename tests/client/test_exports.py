"""What the client exports, and what importing it costs."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
import types
from typing import Any

import pytest

import mlrs
import mlrs.torch
import mlrs.writers
from mlrs import aio
from mlrs.api import aio_sweep as _aio_sweep
from mlrs.api import sweep as _sweep
from mlrs.values import options as _options
from mlrs.values.arguments import CONFIG_OPTIONS

NAMES = {
    mlrs: [
        "TLS",
        "Advice",
        "AdviceReason",
        "Advisor",
        "Meta",
        "MlrsError",
        "Optimizer",
        "Pending",
        "PendingAdaptation",
        "Ranks",
        "Run",
        "Schedule",
        "SearchResult",
        "UnavailableError",
        "connect",
        "errors",
        "run",
        "suggest",
        "types",
    ],
    mlrs.types: [
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
    ],
    mlrs.adapters: [
        "OTHER",
        "RunOptions",
        "RunState",
        "TaskOptions",
        "TrialBatches",
        "TrialLoop",
        "adam_of",
        "number",
        "real",
        "sgd_of",
        "whole",
    ],
    mlrs.torch: ["AdvisedLR", "Attributes", "MetaStep", "describe", "suggest"],
    mlrs.errors: [
        "ClosedError",
        "ConfigMismatchError",
        "DaemonError",
        "DeadlineExceededError",
        "ForkedError",
        "InvalidArgumentError",
        "LimitError",
        "MemoryFullError",
        "MessageTooLargeError",
        "MlrsError",
        "ModelExistsError",
        "ModelInvalidError",
        "ModelNotFoundError",
        "NoSearchError",
        "NotBuiltError",
        "PermissionDeniedError",
        "QueueFullError",
        "RecordDamagedError",
        "RecordGapError",
        "RunBegunError",
        "RunExistsError",
        "RunFinishedError",
        "RunNotFoundError",
        "RunTakenError",
        "StaleStepError",
        "StepAheadError",
        "StepError",
        "StoreNewerError",
        "TaskNotFoundError",
        "TenantLimitError",
        "UnauthenticatedError",
        "UnavailableError",
        "UsageError",
    ],
}


@pytest.mark.parametrize("module", NAMES, ids=lambda module: module.__name__)
def test_public_names(module: types.ModuleType) -> None:
    """The public names are these and exist; a change here is a change for users."""
    assert module.__all__ == NAMES[module]
    assert all(hasattr(module, name) for name in NAMES[module])


def test_every_error_has_the_root() -> None:
    """Whoever catches `MlrsError` catches everything that the client raises."""
    raised = [getattr(mlrs.errors, name) for name in NAMES[mlrs.errors]]
    assert all(issubclass(error, mlrs.MlrsError) for error in raised)


def mirrored() -> dict[str, tuple[Any, Any]]:
    """Return what both clients have, the threaded one's first: what `aio` exports, and sweeps."""
    pairs = {name: (getattr(mlrs, name), getattr(aio, name)) for name in aio.__all__}
    return {**pairs, "Sweep": (_sweep.Sweep, _aio_sweep.Sweep)}


def members(kind: Any) -> dict[str, Any]:
    """Return the public methods and properties of a class."""
    return {name: inspect.getattr_static(kind, name) for name in dir(kind) if not name.startswith("_")}


def test_asyncio_mirrors_threads() -> None:
    """The asyncio client has the methods and properties of the threaded one, with their parameters."""
    compared = 0
    for name, (threaded, asynchronous) in mirrored().items():
        if inspect.isfunction(threaded):
            assert inspect.signature(threaded).parameters == inspect.signature(asynchronous).parameters
            continue
        assert threaded is not asynchronous
        ours, theirs = members(threaded), members(asynchronous)
        assert ours.keys() == theirs.keys(), name
        for member, mine in ours.items():
            assert type(mine) is type(theirs[member]), f"{name}.{member}"
            if inspect.isfunction(mine):
                compared += 1
                found = inspect.signature(theirs[member]).parameters
                assert inspect.signature(mine).parameters == found, f"{name}.{member}"
    assert mirrored().keys() >= {"Advisor", "Run", "Sweep", "Pending", "PendingAdaptation", "connect"}
    assert compared >= 25


def test_asyncio_waits_by_await() -> None:
    """What waits for the daemon in the threaded client is awaited, or iterated over, in the other."""
    waiting = {
        "Advisor": (
            *("close", "delete_run", "forget_task", "get_run", "get_search", "model", "task"),
            *("alias_changes", "daemon", "status"),
            *("run_events", "samples", "summary"),
        ),
        "Run": ("adapt", "finish", "next_lr", "search"),
        "Sweep": ("adapt", "finish", "next_lrs"),
        "Pending": ("advice", "lr"),
        "PendingAdaptation": ("adaptation",),
    }
    pairs = mirrored()
    for name, methods in waiting.items():
        threaded, asynchronous = (members(kind) for kind in pairs[name])
        for method in methods:
            assert not inspect.iscoroutinefunction(threaded[method])
            assert inspect.iscoroutinefunction(asynchronous[method]), f"{name}.{method}"
    for method in ("models", "runs", "tasks"):
        assert inspect.isasyncgenfunction(members(pairs["Advisor"][1])[method])


def test_import_is_light() -> None:
    """Importing the client, in a fresh process, imports grpc, protobuf and the standard library only."""
    script = (
        "import sys; before = set(sys.modules)\n"
        "import mlrs, mlrs.aio\n"
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
        "mlrs",
        "mlrs_proto",
        "typing_extensions",
    }


def test_every_option_is_explained() -> None:
    """`help(advisor.run)` says what each option means, and the options of a sweep's runs are among them."""
    explained = inspect.getdoc(mlrs.Advisor.run) or ""
    for name in _options.RunOptions.__annotations__:
        assert re.search(rf"^ +{name}: ", explained, re.MULTILINE), name
    assert set(CONFIG_OPTIONS) <= _options.SweepOptions.__annotations__.keys()
    of_runs = {"task", *_options.RunOptions.__annotations__}
    assert _options.SweepOptions.__annotations__.keys() <= of_runs
