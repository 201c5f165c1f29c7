"""What the shipped models advise, written down before any change of the code that serves them.

    python -m tests.core.models.pinned_advice

writes `pinned_advice.json` anew. It is for a change that is meant to give stored models other advice,
which there should never be; a new model or a new feature set changes nothing here.
"""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import llvmlite
import numpy as np

import mlrs_core
from mlrs_core.config import MetaConfig, Optimizer, RunConfig
from mlrs_core.models.checkpoint import read_model
from mlrs_core.policy import Floats
from tests.core.adapting.following import adapt
from tests.core.runs import Runs

FILE = Path(__file__).with_name("pinned_advice.json")
MODELS = Path(mlrs_core.__file__).parent / "models"
EVERY = 20
"""Of so many learning rates one is written down; of all of them, their digest."""
ADAPTED_EVERY = 10
"""Steps between meta updates."""
CONFIGS = {
    "nothing known": RunConfig(),
    "sgd": RunConfig(horizon=300, num_classes=10, optimizer=Optimizer.SGD),
    "momentum": RunConfig(horizon=900, num_classes=100, optimizer=Optimizer.MOMENTUM, momentum=0.97),
    "adamw": RunConfig(horizon=250, optimizer=Optimizer.ADAMW, initial_lr=0.02),
}
"""Runs of every kind: each constant of the networks has a part in the advice of one of them."""


def losses_of(steps: int) -> Floats:
    """Return losses with noise, two jumps, negative ones and one far out."""
    numbers = np.arange(steps)
    losses: Floats = 2.5 * np.exp(-numbers / 120) + 0.2 + 0.1 * np.sin(12.9898 * numbers)
    losses[steps // 3] *= 40.0
    losses[steps // 2] = -1.5
    losses[2 * steps // 3] = 1e9
    return losses


def trace(model: str, config: RunConfig, *, meta: bool) -> Floats:
    """Return the learning rates of a run over 400 steps, in meta mode with an update now and then."""
    stored, _ = read_model(MODELS / f"{model}.safetensors")
    policy = stored.adaptive_policy(MetaConfig(every=ADAPTED_EVERY)) if meta else stored.policy()
    runs, rates = Runs(policy, [config]), []
    for step, loss in enumerate(losses_of(400)):
        rates.append(float(runs.advise(step, [loss])[0]))
        if meta and step % ADAPTED_EVERY == ADAPTED_EVERY - 1:
            adapt(runs, 0, step, float(np.cos(step)))
    return np.array(rates)


def traces() -> Iterator[tuple[str, Floats]]:
    """Return the learning rates of every model under every config, by name."""
    for model in ("mlr-snet", "paper"):
        for name, config in CONFIGS.items():
            for meta in (False, True):
                yield f"{model}, {name}{', meta' if meta else ''}", trace(model, config, meta=meta)


def build() -> str:
    """Return what the last bits of advice depend on besides mlrs."""
    return f"{platform.machine()} {''.join(platform.libc_ver())} llvmlite-{llvmlite.__version__}"


def pin(rates: Floats) -> dict[str, Any]:
    """Return what is written down of some learning rates."""
    return {"sha256": hashlib.sha256(rates.tobytes()).hexdigest(), "rates": rates[::EVERY].tolist()}


def main() -> None:
    """Write what is advised now."""
    digests = {path.stem: read_model(path)[1] for path in sorted(MODELS.glob("*.safetensors"))}
    pins = {name: pin(rates) for name, rates in traces()}
    pinned = {"build": build(), "digests": digests, "advice": pins}
    FILE.write_text(json.dumps(pinned, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
