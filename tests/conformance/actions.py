"""The actions that scenarios are made of, as the files of `proto/conformance` have them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from mlrs_core.models.checkpoint import read_model
from tests.core.models.pinned_advice import MODELS

Json = dict[str, Any]
Actions = list[Json]


def default_model() -> str:
    """Return the reference of the model that is shipped as the default one, with its digest."""
    _, digest = read_model(MODELS / "mlr-snet.safetensors")
    return f"mlr-snet@{digest}"


MODEL = default_model()
LOSSES = [2.3, 2.21, 2.05, 2.12, 1.9, 1.75, 1.8, 1.5, 1.42, 1.31, 1.38, 1.2, 1.11, 1.05, 0.98, 1.0]
"""The losses of most runs."""
CLASSIFIER: Json = {
    "model": MODEL,
    "horizon": "40",
    "numClasses": 10,
    "optimizer": "OPTIMIZER_MOMENTUM",
    "momentum": 0.9,
}
"""The config of runs that a network advises."""
LINEAR: Json = {"schedule": {"baseLr": 0.1, "warmup": "2", "linear": {"finalLr": 0.25}}, "horizon": "10"}
"""The config of runs that follow a schedule."""


def call(method: str, request: Json, *, ignore: Sequence[str] = (), **keep: str) -> Json:
    """Return a unary call of `AdvisorService`; `keep`: names for values of its response, by path."""
    action: Json = {"call": f"AdvisorService.{method}", "request": request}
    if keep:
        action["keep"] = keep
    return _ignoring(action, ignore)


def opened(run_id: str, config: Json | None = None, *, ignore: Sequence[str] = (), **fields: Any) -> Json:
    """Return a call that opens a run and keeps its handle as `$handle`."""
    request = {"runId": run_id, **({"config": config} if config else {}), **fields}
    return call("OpenRun", request, ignore=ignore, handle="runHandle")


def advised(run_id: str, steps: Iterable[int], losses: Sequence[float] = LOSSES) -> Actions:
    """Return a call of Advise for each step."""
    return [call("Advise", {"runId": run_id, "step": str(s), "loss": losses[s]}) for s in steps]


def columns(
    steps: Sequence[int], losses: Sequence[Any] = LOSSES, handles: Sequence[str] = ("$handle",), **more: Any
) -> Json:
    """Return a message of observations: one for each step and handle, the handles first."""
    entries = [(handle, step) for step in steps for handle in handles]
    return {
        "observations": {
            "runHandles": [handle for handle, _ in entries],
            "steps": [str(step) for _, step in entries],
            "losses": [losses[step] for _, step in entries],
            **more,
        }
    }


def exchanged(stream: str, message: Json, *, ignore: Sequence[str] = ()) -> Actions:
    """Return that a message is sent, and its answer received."""
    return [{"send": stream, "message": message}, _ignoring({"receive": stream}, ignore)]


def _ignoring(action: Json, names: Sequence[str]) -> Json:
    return {**action, "ignore": list(names)} if names else action
