"""What meta mode costs without a wire: updates of a run's network, and steps of runs that go on learning.

An update is compared with the same in PyTorch, backward pass and Adam; a step with that of runs whose network
stays.

    python -m performance.meta.adapting [--quick] [--json FILE]
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial

import numpy as np
import torch

from mlrs_core.advise import advise
from mlrs_core.config import MetaConfig, RunConfig
from mlrs_core.models.model import Model
from mlrs_core.networks.paper import PaperSpec
from mlrs_core.networks.paper.reference import net_with
from mlrs_core.policy import NO_SIGNALS, Policy, no_networks, table_of
from performance.report import results
from performance.shared import blocks
from performance.shared.in_process import DRIFT, PAPER, shipped_model
from performance.shared.messages import COLUMNS, losses_of

HORIZON = 1000
"""Steps of a run."""
RUNS = 64
"""That step together."""
EVERY = 20
"""Steps from one update to the next, T_val."""
BASELINE = "torch"
MODELS = {"paper": PAPER, "drift": DRIFT}


def torch_update() -> Callable[[], None]:
    """Return an update of the paper's network in PyTorch, with one thread."""
    model = shipped_model(PAPER)
    assert isinstance(model.architecture, PaperSpec)
    net = net_with(model.architecture, model.snapshots[0])
    adam = torch.optim.Adam(net.parameters(), lr=1e-3, weight_decay=1e-4)
    losses, (_, state) = torch.ones(1), net(torch.ones(1), net.init_state(1))
    state, sign = [(hidden.detach(), cell.detach()) for hidden, cell in state], 0.01

    def update() -> None:
        nonlocal sign
        sign = -sign
        adam.zero_grad()
        sigma, _ = net(losses, state)
        (sign * sigma.sum()).backward()
        adam.step()

    return update


class Learning:
    """One run that goes on learning, at a step that its learning rate depends on."""

    def __init__(self, model: Model) -> None:
        """Take it through its first 50 steps."""
        policy = model.adaptive_policy(MetaConfig())
        self._policy, self._count = policy, 0
        self._states, self._networks = policy.init_state(1), no_networks(policy, 1)
        self._table, last = table_of([RunConfig(horizon=HORIZON, num_classes=10)]), np.full(1, np.nan)
        row, runs = np.zeros(1, np.int64), (self._states, self._networks, self._table)
        for step in range(50):
            advise(policy, *runs, row, np.array([step]), np.array([2.3 / (1 + step / 30)]), last)
        self.update()
        assert policy.meta_counters(self._states[0]).last_log_change != 0

    def update(self) -> None:
        """Make an update, of alternating sign."""
        self._count += 1
        self._policy.adapt(self._states, self._networks, self._table, 0, 49, 0.01 * (-1) ** self._count)


class Walk:
    """Runs that walk their horizon, with or without updates on the way."""

    def __init__(self, name: str, kind: str) -> None:
        """Take a model: `frozen`, `before` (in meta mode, no update made) or `learning`."""
        model = shipped_model(MODELS[name])
        self._adaptive = model.adaptive_policy(MetaConfig()) if kind == "learning" else None
        frozen = model.policy() if kind == "frozen" else model.adaptive_policy(MetaConfig())
        self._policy: Policy = self._adaptive or frozen

    def seconds(self) -> float:
        """Walk; return the seconds of the steps alone."""
        policy, taken = self._policy, 0.0
        states, networks = policy.init_state(RUNS), no_networks(policy, RUNS)
        table = table_of([RunConfig(horizon=HORIZON, num_classes=10)] * RUNS)
        rows, lrs, losses = np.arange(RUNS), np.empty(RUNS), losses_of(RUNS)
        for step in range(HORIZON):
            now, seen = np.full(RUNS, step), losses[step % COLUMNS]
            start = time.perf_counter()
            policy.advance(states, networks, table, rows, now, seen, NO_SIGNALS, lrs)
            taken += time.perf_counter() - start
            if self._adaptive and step % EVERY == EVERY - 1:
                for row in range(RUNS):
                    self._adaptive.adapt(states, networks, table, row, step, 0.01 * (-1) ** (step // EVERY))
        return taken


def updates(rounds: int, calls: int) -> results.Figures:
    """Return µs an update, and the ratio to PyTorch's."""
    cases = {BASELINE: torch_update()}
    cases |= {name: Learning(shipped_model(model)).update for name, model in MODELS.items()}
    taken = blocks.take_turns(
        {name: partial(blocks.times, update, calls) for name, update in cases.items()}, rounds
    )
    medians = {name: blocks.medians(given) for name, given in taken.items()}
    return {
        name: {"us": float(np.median(values)) * 1e6, "ratio": blocks.ratio(values, medians[BASELINE])}
        for name, values in medians.items()
    }


def steps(rounds: int) -> results.Figures:
    """Return µs a run a step of each network, and the ratio to that of runs whose network stays."""
    figures = {}
    for name in MODELS:
        kinds = ("frozen", "before", "learning")
        taken = blocks.take_turns({kind: Walk(name, kind).seconds for kind in kinds}, rounds)
        figures[name] = {
            kind: {
                "us_per_run": float(np.median(values)) / HORIZON / RUNS * 1e6,
                "ratio": blocks.ratio(values, taken["frozen"]),
            }
            for kind, values in taken.items()
        }
    return figures


def measure(quick: bool) -> results.Figures:  # noqa: FBT001  # what every benchmark is given
    """Return the figures of updates and of steps."""
    torch.set_num_threads(1)
    return {
        "updates": updates(*((3, 100) if quick else (15, 500))),
        "steps": steps(2 if quick else 9),
        "every": EVERY,
        "runs": RUNS,
    }


if __name__ == "__main__":
    results.run(__file__, __doc__, measure)
