"""The scenarios of `proto/conformance` without what comes of them: `make.py` adds that from a real daemon."""

from __future__ import annotations

from collections.abc import Sequence

from tests.conformance.actions import (
    CLASSIFIER,
    LINEAR,
    LOSSES,
    MODEL,
    Actions,
    Json,
    advised,
    call,
    columns,
    exchanged,
    opened,
)


def unary() -> Actions:
    """Return a run that is created, stepped by calls, replayed, and told wrong losses and steps."""
    run = "unary/run"
    return [
        opened(run, CLASSIFIER),
        *advised(run, range(8)),
        *advised(run, [7, 3]),
        *advised(run, [3, 7, 12], [0.0] * 16),
        call("GetRun", {"runId": run}),
        call("ListRuns", {"prefix": "unary/"}),
        *advised(run, [8]),
    ]


def stream() -> Actions:
    """Return a run on a stream: replays, refused entries beside answered ones, a malformed message."""
    unequal = {"observations": {"runHandles": ["$handle"], "steps": ["10", "11"], "losses": [1.0]}}
    return [
        opened("stream/run", CLASSIFIER),
        {"open": "main"},
        *(each for step in range(4) for each in exchanged("main", columns([step]))),
        *exchanged("main", columns([4, 5, 6, 7])),
        *exchanged("main", columns([7, 2, 8])),
        *exchanged("main", columns([2, 9, 14], [0.5] * 16)),
        *exchanged("main", unequal),
        {"open": "next"},
        *exchanged("next", columns([10])),
        {"close": "next"},
    ]


def restart() -> Actions:
    """Return a daemon that is killed between two steps: what it lost is sent again."""
    run, volatile = "restart/run", ["reasons", "nextStep", "lastLoss", "lastLearningRate"]
    return [
        opened(run, CLASSIFIER),
        {"open": "before"},
        *exchanged("before", columns(range(6))),
        call("GetRun", {"runId": run}),  # which makes the daemon store the steps so far
        *exchanged("before", columns(range(6, 10))),
        {"daemon": "kill"},
        {"receive": "before"},
        {"daemon": "start"},
        {"open": "stale"},
        *exchanged("stale", columns([10])),
        {"close": "stale"},
        opened(run, mode="OPEN_MODE_RESUME", ignore=volatile),
        {"open": "after"},
        *exchanged("after", columns(range(6, 10)), ignore=volatile),
        *exchanged("after", columns(range(10, 16))),
        *exchanged("after", columns(range(16))),
        {"close": "after"},
        call("GetRun", {"runId": run}),
    ]


def drain() -> Actions:
    """Return a daemon that is stopped in order: it says so on the stream, and nothing is lost."""
    run = "drain/run"
    return [
        opened(run, LINEAR),
        {"open": "before"},
        *exchanged("before", columns(range(5))),
        {"daemon": "drain"},
        {"receive": "before"},
        {"close": "before"},
        {"daemon": "start"},
        opened(run, mode="OPEN_MODE_RESUME"),
        {"open": "after"},
        *exchanged("after", columns([4, 5])),
        {"close": "after"},
    ]


def rewind() -> Actions:
    """Return a run that goes back to a step, and sees other losses from there on."""
    run, other = "rewind/run", [loss * 1.25 for loss in LOSSES]
    return [
        opened(run, CLASSIFIER),
        {"open": "main"},
        *exchanged("main", columns(range(10))),
        opened(run, mode="OPEN_MODE_RESUME", resumeFrom="11"),
        {**opened(run, mode="OPEN_MODE_RESUME", resumeFrom="4"), "keep": {"new": "runHandle"}},
        *exchanged("main", columns([4])),
        *exchanged("main", columns([3, 4, 5, 6], LOSSES[:4] + other[4:], ["$new"])),
        {"close": "main"},
        *advised(run, [6, 4], other),
        *advised(run, [4]),
        call("GetRun", {"runId": run}),
    ]


def beginnings() -> Actions:
    """Return every way to open a run that exists, or that does not."""
    run = "beginnings/run"
    return [
        opened(run, mode="OPEN_MODE_RESUME"),
        opened(run, LINEAR, mode="OPEN_MODE_CREATE", feeder="first"),
        opened(run, LINEAR, mode="OPEN_MODE_CREATE", feeder="first"),
        opened(run, LINEAR, mode="OPEN_MODE_CREATE", feeder="second"),
        opened(run, LINEAR, mode="OPEN_MODE_BEGIN", feeder="second"),
        *advised(run, range(4)),
        call("GetRun", {"runId": run}),  # which makes the daemon store the steps so far
        opened(run, LINEAR, mode="OPEN_MODE_BEGIN"),
        opened(run, LINEAR, mode="OPEN_MODE_RESUME"),
        opened(run, {"horizon": "11"}, mode="OPEN_MODE_RESUME"),
        opened(run),
        opened(run, LINEAR, mode="OPEN_MODE_RESTART"),
        *advised(run, range(2), LOSSES[::-1]),
        call("DeleteRun", {"runId": run}),
        call("GetRun", {"runId": run}),
    ]


def non_finite() -> Actions:
    """Return losses that are no numbers: the learning rate is held, and the run is diverged after ten."""
    run = "non-finite/run"
    losses = ["NaN", 2.0, "Infinity", 1.9, "-Infinity", *["NaN"] * 9, 1.8, 1.7]
    return [
        opened(run, {**CLASSIFIER, "minLr": 1e-6}),
        *advised(run, range(7), losses),
        *advised(run, [0, 2], losses),
        *advised(run, range(7, 14), losses),
        call("GetRun", {"runId": run}),
        *advised(run, [14, 15], losses),
        call("GetRun", {"runId": run}),
    ]


def finish() -> Actions:
    """Return runs that are finished, and observed afterwards."""
    run, other = "finish/run", "finish/other"
    return [
        opened(run, LINEAR),
        opened(other, LINEAR),
        {"open": "main"},
        *advised(run, range(3)),
        call("FinishRun", {"runId": run, "nextStep": "4"}),
        call("FinishRun", {"runId": run, "nextStep": "3", "metric": 0.75, "higherIsBetter": True}),
        call("FinishRun", {"runId": run}),
        *advised(run, [3, 2]),
        *advised(run, [2], [0.0] * 3),
        opened(run, LINEAR),
        *exchanged("main", columns([0])),
        call("BatchFinishRuns", {"runIds": [run, other], "nextSteps": ["3", "1"]}),
        *exchanged("main", columns([1])),
        {"close": "main"},
    ]


def unknown() -> Actions:
    """Return calls about runs, models, searches and tasks that do not exist."""
    run = {"runId": "unknown/run"}
    return [
        *(call(method, run) for method in ("GetRun", "FinishRun", "DeleteRun", "GetSearch")),
        call("Advise", {**run, "step": "0", "loss": 1.0}),
        call("BatchFinishRuns", {"runIds": [run["runId"]]}),
        opened("unknown/new", {"model": "nobody"}),
        opened("unknown/new", {"model": "mlr-snet@00000000"}),
        {"call": "TaskService.GetTask", "request": {"task": "unknown/task"}},
        {"call": "ModelService.GetModel", "request": {"model": "nobody"}},
        {"open": "main"},
        *exchanged("main", columns([0], handles=["12345"])),
        {"close": "main"},
    ]


def fields() -> Actions:
    """Return calls with a field that is wrong; the metadata names it."""
    run = "fields/run"
    bad_configs: list[Json] = [
        {"horizon": "0"},
        {"numClasses": 1},
        {"momentum": 1.0},
        {"minLr": -1.0},
        {"minLr": 1.0, "maxLr": 0.5},
        {"maxLr": "NaN"},
        {"initialLr": 0.0},
        {"scale": "Infinity"},
        {"lrOffset": 21.0},
        {"batchSize": "0"},
        {"model": MODEL, "schedule": {"linear": {}}},
        {"schedule": {"baseLr": 0.1}},
        {"schedule": {"baseLr": -0.1, "constant": {}}, "horizon": "10"},
        {"schedule": {"cosine": {"finalLr": 2.0}}, "horizon": "10"},
        {"schedule": {"multiStep": {"milestones": ["5", "3"]}}, "horizon": "10"},
        {"schedule": {"linear": {}}},
        {"ranks": {"quorum": 1.5}},
    ]
    return [
        opened(""),
        opened("no spaces"),
        opened("-begins-with-a-dash"),
        opened(run, task="no spaces"),
        opened(run, group="no spaces"),
        opened(run, feeder="no_underscores"),
        opened(run, worldSize=2),
        *(opened(run, config) for config in bad_configs),
        opened(run, LINEAR),
        call("Advise", {"runId": run, "step": "9007199254740993", "loss": 1.0}),
        call("Advise", {"runId": run, "step": "0", "loss": 1.0, "validation": {"step": "1", "loss": 1.0}}),
        call("FinishRun", {"runId": run, "metric": "NaN"}),
        call("BatchOpenRuns", {}),
        call("BatchOpenRuns", {"requests": [{"runId": "fields/twice"}, {"runId": "fields/twice"}]}),
        call("BatchFinishRuns", {"runIds": [run], "nextSteps": ["0", "1"]}),
        call("ListRuns", {"pageSize": 1001}),
        call("ListRuns", {"orderBy": "loss"}),
        call("SearchTrial", {"runId": run, "start": ""}),
        {"open": "main"},
        *exchanged("main", columns([0], handles=[])),
    ]


def schedules() -> Actions:
    """Return a run of each schedule, all observed in one message a step."""
    kinds: dict[str, Json] = {
        "constant": {},
        "multiStep": {"milestones": ["3", "6"], "factor": 0.5},
        "exponential": {},
        "cosine": {"finalLr": 0.1},
        "linear": {},
        "wsd": {"cooldownFraction": 0.4},
        "oneCycle": {},
        "sgdr": {"period": "4"},
        "plateau": {"patience": "1", "smoothing": "1"},
        "greedy": {"patience": "1"},
    }
    requests = [
        {
            "runId": f"schedules/{kind}",
            "config": {"schedule": {"baseLr": 0.2, "warmup": "2", kind: parameters}, "horizon": "10"},
            "group": "schedules",
        }
        for kind, parameters in kinds.items()
    ]
    names = {f"run{index}": f"responses.{index}.runHandle" for index in range(len(kinds))}
    handles = [f"${name}" for name in names]
    return [
        call("BatchOpenRuns", {"requests": requests}, **names),
        {"open": "main"},
        *(each for step in range(12) for each in exchanged("main", columns([step], handles=handles))),
        {"close": "main"},
    ]


def several() -> Actions:
    """Return runs of networks and schedules in the columns of one stream, refused entries among them."""
    configs = [CLASSIFIER, {"model": MODEL, "optimizer": "OPTIMIZER_ADAMW", "horizon": "40"}, LINEAR]
    requests = [
        {"runId": f"several/{index}", "config": config, "group": "several"}
        for index, config in enumerate(configs)
    ]
    names = {f"run{index}": f"responses.{index}.runHandle" for index in range(3)}
    handles = [f"${name}" for name in names]
    return [
        call("BatchOpenRuns", {"requests": requests}, **names),
        call("BatchOpenRuns", {"requests": [*requests[:2], {"runId": "several/no spaces"}]}),
        {"open": "main"},
        *exchanged("main", columns([0], handles=handles)),
        *exchanged("main", columns([1, 2, 3], handles=handles)),
        *exchanged("main", columns([4], handles=[handles[0], "7", handles[2]])),
        *exchanged("main", columns([3, 4, 6], handles=handles[1:])),
        *exchanged("main", columns([5, 4], handles=handles[::-1])),
        {"close": "main"},
    ]


def ranks() -> Actions:
    """Return two ranks of a run: each sends its loss on a stream of its own, and both get one answer."""
    run, config = "ranks/run", {**CLASSIFIER, "ranks": {"reduction": "RANK_REDUCTION_MEAN"}}

    def step(number: int, samples: Sequence[float]) -> Actions:
        both = [
            columns([number], LOSSES[rank:], rankColumns={"ranks": [rank], "sampleCounts": [samples[rank]]})
            for rank in range(2)
        ]
        names = ["zero", "one"]
        sent = [{"send": name, "message": message} for name, message in zip(names, both, strict=True)]
        return [*sent, *({"receive": name} for name in names)]

    return [
        opened(run, config, worldSize=2),
        opened(run, config, worldSize=2),
        {"open": "zero"},
        {"open": "one"},
        *step(0, [1.0, 1.0]),
        *step(1, [3.0, 1.0]),
        *step(2, [32.0, 16.0]),
        *exchanged("zero", columns([1], rankColumns={"ranks": [0], "sampleCounts": [3.0]})),
        *exchanged("one", columns([3], rankColumns={"ranks": [2]})),
        call("Advise", {"runId": run, "step": "3", "loss": 1.0}),
        {"close": "zero"},
        {"close": "one"},
    ]


def feeders() -> Actions:
    """Return two processes that want to send the observations of one run."""
    run = "feeders/run"
    return [
        opened(run, LINEAR, feeder="first"),
        {"open": "first", "metadata": {"mlrs-feeder": "first"}},
        *exchanged("first", columns([0, 1])),
        opened(run, LINEAR, mode="OPEN_MODE_RESUME", feeder="second"),
        {**opened(run, LINEAR, feeder="second"), "keep": {"second": "runHandle"}},
        {"open": "second", "metadata": {"mlrs-feeder": "second"}},
        *exchanged("second", columns([2], handles=["$second"])),
        *exchanged("first", columns([2])),
        opened(run, LINEAR, mode="OPEN_MODE_RESUME", feeder="first"),
        {"close": "second"},
        {"close": "first"},
    ]


def extras() -> Actions:
    """Return observations with signals and validation losses, which are part of them."""
    run = "extras/run"
    signals = {"updateNorm2": 1e-4, "paramNorm2": 12.5, "gradNorm2": 0.25, "gradDotUpdate": -0.004}
    first = {"runId": run, "step": "1", "loss": LOSSES[1], "signals": signals}
    second = {"runId": run, "step": "2", "loss": LOSSES[2], "validation": {"step": "1", "loss": 2.4}}
    column = {"entries": [0], "updateNorm2": [2e-4], "gradNorm2": ["NaN"]}
    validations = {"entries": [1], "steps": ["4"], "losses": [2.2]}
    return [
        opened(run, CLASSIFIER),
        *advised(run, [0]),
        call("Advise", first),
        call("Advise", first),
        call("Advise", {**first, "signals": {**signals, "gradNorm2": 0.5}}),
        *advised(run, [1]),
        call("Advise", second),
        call("Advise", {**second, "validation": {"step": "1", "loss": 2.5}}),
        {"open": "main"},
        *exchanged("main", columns([3, 4], signals=column, validations=validations)),
        *exchanged("main", columns([3, 4], signals={**column, "updateNorm2": [3e-4]})),
        *exchanged("main", columns([5], signals={"entries": [1], "updateNorm2": [1.0]})),
    ]


SCENARIOS = {
    function.__name__.replace("_", "-"): function
    for function in (
        unary,
        stream,
        restart,
        drain,
        rewind,
        beginnings,
        non_finite,
        finish,
        unknown,
        fields,
        schedules,
        several,
        ranks,
        feeders,
        extras,
    )
}
"""The scenarios, by name."""
