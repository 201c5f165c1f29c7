"""What the tests need to know of each architecture: specs to try, and its oracle.

A new architecture gets an entry here, and with it every test that runs over `FAMILIES`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from mlrs_core.models.model import Model
from mlrs_core.networks import Architecture, Weights
from mlrs_core.networks.drift import DriftSpec
from mlrs_core.networks.drift.constants import DriftConstants
from mlrs_core.networks.drift.reference import DriftReference, DriftRuns
from mlrs_core.networks.paper import PaperSpec
from mlrs_core.networks.paper.reference import net_with
from mlrs_core.networks.tail import TailSpec
from mlrs_core.networks.tail.constants import TailConstants
from mlrs_core.networks.tail.reference import Observed, TailReference, TailRuns
from mlrs_core.policy import Floats

Oracle = Callable[[Floats], Floats]
"""Losses of one step, (n,), to learning rates under a scale of 1, (n,); keeps the state."""


@dataclass(frozen=True)
class Family:
    """One architecture under test."""

    specs: Sequence[Architecture]
    """The shapes that the kernel is held against the oracle in."""
    small: Sequence[Architecture]
    """The shapes that tests of many examples use."""
    oracle: Callable[[Architecture, Weights, int], Oracle]
    """Makes the torch module with these weights, for n runs at their first step."""


def paper_oracle(spec: Architecture, weights: Weights, n: int) -> Oracle:
    """Return the paper's torch module, advancing n runs."""
    assert isinstance(spec, PaperSpec)
    net = net_with(spec, weights)
    state = net.init_state(n)

    def advance(losses: Floats) -> Floats:
        nonlocal state
        with torch.no_grad():
            sigma, state = net(torch.from_numpy(losses.astype(np.float32)), state)
        return sigma.double().numpy()

    return advance


def drift_oracle(spec: Architecture, weights: Weights, n: int) -> Oracle:
    """Return the drift network in torch, in double precision, advancing n runs of which nothing is known."""
    assert isinstance(spec, DriftSpec)
    reference, step = DriftReference(spec), 0
    state = reference.init_state(n)
    wide = {name: torch.from_numpy(weight).double() for name, weight in weights.items()}
    unknown = torch.full((n,), torch.nan)
    runs = DriftRuns(
        horizon=torch.full((n,), -1),
        log_classes=unknown,
        initial_lr=unknown,
        optimizer=torch.zeros(n, dtype=torch.int64),
        momentum=unknown,
    )

    def advance(losses: Floats) -> Floats:
        nonlocal state, step
        lrs, state = reference.step(wide, state, torch.from_numpy(losses), step, runs)
        step += 1
        return lrs.numpy()

    return advance


def tail_oracle(spec: Architecture, weights: Weights, n: int) -> Oracle:
    """Return the tail network in torch, in double precision, advancing n runs of which nothing is known."""
    assert isinstance(spec, TailSpec)
    reference, step = TailReference(spec), 0
    state = reference.init_state(n)
    wide = {name: torch.from_numpy(weight).double() for name, weight in weights.items()}
    unknown = torch.full((n,), torch.nan)
    runs = TailRuns(
        horizon=torch.full((n,), -1),
        log_classes=unknown,
        start=unknown,
        octaves=unknown,
        optimizer=torch.zeros(n, dtype=torch.int64),
        momentum=unknown,
    )

    def advance(losses: Floats) -> Floats:
        nonlocal state, step
        lrs, state = reference.step(wide, state, Observed(torch.from_numpy(losses)), step, runs)
        step += 1
        return lrs.numpy()

    return advance


OTHER_CONSTANTS = DriftConstants(
    ticks=60,
    first_ticks=30,
    unknown_horizon=70,
    jump=1.2,
    floor=1e-3,
    max_level=40.0,
    min_ref=0.3,
    max_ref=2.0,
    time_constants=(3.0, 40.0),
    variance_rate=0.15,
    first_variance=0.05,
    soft_steps=(-0.1, 0.0, 0.15, 0.3, 0.45, 0.7, 0.85, 0.95, 1.2),
    reach=2.0,
    gate_slope=3.0,
    gate_start=2.0,
    forget_bias=0.5,
    rise=0.3,
    fall=0.5,
    warmup=8.0,
    min_drift=-6.0,
    max_drift=2.5,
    max_start=4.0,
    default_lr=0.2,
    default_adam_lr=3e-3,
    default_momentum=0.8,
    max_momentum=0.95,
)
"""Every constant of the drift network, each another than its default."""
OTHER_TAIL_CONSTANTS = TailConstants(
    looks=60,
    first_looks=30,
    unknown_horizon=70,
    jump=1.2,
    floor=1e-3,
    max_level=40.0,
    min_ref=0.3,
    max_ref=2.0,
    fastest=3.0,
    slowest=40.0,
    variance_rate=0.15,
    first_variance=0.05,
    soft_steps=(-0.1, 0.0, 0.15, 0.3, 0.45, 0.7, 0.85, 0.95, 1.2),
    signal_rate=0.5,
    slow_signal_rate=0.1,
    usual_update=-2.0,
    forget_bias=0.5,
    pace=0.3,
    min_drift=-0.5,
    max_drift=0.6,
    reach=0.9,
    warmup=0.1,
    cooldown=0.5,
)
"""Every constant of the tail network, each another than its default."""

FAMILIES: dict[str, Family] = {
    "paper": Family(
        specs=[
            PaperSpec(hidden_size=size, num_layers=layers, gate_layout=layout)
            for layout in ("ifgo", "ifog")
            for size in (2, 8, 33, 50)
            for layers in (1, 2, 3)
        ],
        small=[
            PaperSpec(hidden_size=2),
            PaperSpec(hidden_size=5, num_layers=2, gate_layout="ifog"),
            PaperSpec(hidden_size=33, num_layers=3),
            PaperSpec(hidden_size=50, gate_layout="ifog"),
        ],
        oracle=paper_oracle,
    ),
    "drift": Family(
        specs=[
            *(DriftSpec(hidden_size=size) for size in (1, 2, 24, 50)),
            DriftSpec(hidden_size=7, inputs="loss"),
            DriftSpec(hidden_size=7, inputs="progress"),
            DriftSpec(hidden_size=7, constants=OTHER_CONSTANTS),
        ],
        small=[DriftSpec(hidden_size=2), DriftSpec(hidden_size=24)],
        oracle=drift_oracle,
    ),
    "tail": Family(
        specs=[
            *(TailSpec(hidden_size=size) for size in (1, 24)),
            TailSpec(hidden_size=7, constants=OTHER_TAIL_CONSTANTS),
        ],
        small=[TailSpec(hidden_size=6)],
        oracle=tail_oracle,
    ),
}
"""The architectures by kind."""

SPECS = [spec for family in FAMILIES.values() for spec in family.specs]
"""Every shape of every architecture."""
SMALL = [spec for family in FAMILIES.values() for spec in family.small]
"""A few shapes of every architecture."""


def label(value: object) -> str | None:
    """Return a short test id for a spec."""
    to_json = getattr(value, "to_json", None)
    parts = to_json().values() if to_json else ()
    return "-".join("other" if isinstance(part, dict) else str(part) for part in parts) or None


def random_weights(spec: Architecture, rng: np.random.Generator, *, gain: float = 1.0) -> Weights:
    """Return weights drawn as torch initialises them, times `gain`."""
    return {
        name: (rng.uniform(-gain, gain, shape) / np.sqrt(shape[-1])).astype(np.float32)
        for name, shape in spec.weight_shapes().items()
    }


def random_model(spec: Architecture, seed: int = 0, *, snapshots: int = 3) -> Model:
    """Return a model with random weights."""
    rng = np.random.default_rng(seed)
    return Model(
        architecture=spec,
        snapshots=tuple(random_weights(spec, rng, gain=2) for _ in range(snapshots)),
        provenance={"method": "random", "seed": seed},
    )
