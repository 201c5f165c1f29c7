"""How fast advised SGD converges where that can be known: rates against the schedules of theory.

Three problems whose smoothness, minimum and noise are known exactly; horizons from 10^2 to 10^5; each
learning rate policy on the same samples, several seeds side by side. The steps of a search are charged. The
table shows, for each policy,
the exponent p of a fit of suboptimality ~ T^-p over all horizons, and what was reached at each.

    python -m performance.training.convergence [--model FILE] [--seeds N] [--json FILE] [--plot FILE]
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.progress import track
from rich.table import Table
from scipy.optimize import minimize

import mlrs_core
from mlrs_core.advise import step as step_of
from mlrs_core.config import FoundRate, Optimizer, RunConfig, ScheduleKind, ScheduleSpec
from mlrs_core.models.checkpoint import read_model
from mlrs_core.policy import Policy, RunColumns
from mlrs_core.schedules.kernel import schedule_policy
from mlrs_core.search import Found, SearchSetup, TrialResult, what_next

mpl.use("Agg")
import matplotlib.pyplot as plt  # after the choice of a backend

Floats = npt.NDArray[np.float64]
SIZE, ROWS, BATCH = 20, 1000, 4
"""Weights, examples, and examples in a batch of every problem."""
HORIZONS = [round(10 ** (2 + k / 2)) for k in range(7)]
"""10^2 to 10^5, two a decade."""
LEAST = 1e-12
"""The least suboptimality that is distinguished from 0."""
MODEL = Path(mlrs_core.__file__).parent / "models" / "mlr-snet.safetensors"


@dataclass(frozen=True)
class KnownProblem:
    """An average over examples of a function of the residual or margin a . w, with an L2 term."""

    name: str
    measure: str
    """What is reported."""
    features: Floats
    """(ROWS, SIZE)."""
    targets: Floats
    """(ROWS,)."""
    value: Callable[[Floats, Floats], Floats]
    """Loss of scores and targets, elementwise."""
    slope: Callable[[Floats, Floats], Floats]
    """Its derivative by the score."""
    curvature: float
    """The largest second derivative by the score."""
    ridge: float = 0.0
    """The L2 coefficient."""
    num_classes: int | None = None

    @property
    def smoothness(self) -> float:
        """L of the worst single example: 1 / L is a safe constant learning rate."""
        return self.curvature * float((self.features**2).sum(1).max()) + self.ridge

    def sample(self, weights: Floats, rows: npt.NDArray[np.int64]) -> tuple[Floats, Floats]:
        """Return losses (n,) and gradients (n, SIZE) of copies (n, SIZE) on their batches (n, BATCH)."""
        features, targets = self.features[rows], self.targets[rows]
        scores = np.einsum("nbd,nd->nb", features, weights)
        losses = self.value(scores, targets).mean(1) + self.ridge / 2 * (weights**2).sum(1)
        slopes = self.slope(scores, targets) / BATCH
        return losses, np.einsum("nb,nbd->nd", slopes, features) + self.ridge * weights

    def exact(self, weights: Floats) -> tuple[float, Floats]:
        """Return the loss of one copy over all examples, and its gradient."""
        scores = self.features @ weights
        loss = self.value(scores, self.targets).mean() + self.ridge / 2 * float(weights @ weights)
        slopes = self.slope(scores, self.targets) / ROWS
        return float(loss), slopes @ self.features + self.ridge * weights


def _design(rng: np.random.Generator) -> tuple[Floats, Floats]:
    """Return features whose scales span a decade, and true weights."""
    return rng.normal(size=(ROWS, SIZE)) * np.logspace(0, -1, SIZE), rng.normal(size=SIZE)


def least_squares(rng: np.random.Generator) -> KnownProblem:
    """Return a noisy linear regression; condition number about 100."""
    features, truth = _design(rng)
    return KnownProblem(
        "least squares",
        "f - f*",
        features,
        features @ truth + rng.normal(size=ROWS),
        lambda scores, targets: (scores - targets) ** 2 / 2,
        lambda scores, targets: scores - targets,
        curvature=1.0,
    )


def logistic(rng: np.random.Generator) -> KnownProblem:
    """Return a logistic regression whose classes overlap, with a little ridge."""
    features, truth = _design(rng)
    labels = np.where(rng.random(ROWS) < 1 / (1 + np.exp(-features @ truth)), 1.0, -1.0)
    return KnownProblem(
        "logistic regression",
        "f - f*",
        features,
        labels,
        lambda scores, targets: np.logaddexp(0, -scores * targets),
        lambda scores, targets: -targets / (1 + np.exp(np.minimum(scores * targets, 700))),
        curvature=0.25,
        ridge=1e-3,
        num_classes=2,
    )


def robust(rng: np.random.Generator) -> KnownProblem:
    """Return a regression with outliers under the Geman-McClure loss: smooth, bounded, not convex."""
    features, truth = _design(rng)
    outliers = 10 * rng.normal(size=ROWS) * (rng.random(ROWS) < 0.2)
    return KnownProblem(
        "robust regression, not convex",
        "squared gradient norm",
        features,
        features @ truth + 0.3 * rng.normal(size=ROWS) + outliers,
        lambda scores, targets: (scores - targets) ** 2 / (2 * (1 + (scores - targets) ** 2)),
        lambda scores, targets: (scores - targets) / (1 + (scores - targets) ** 2) ** 2,
        curvature=1.0,
    )


class InverseRoot:
    """lr_t = 1 / (L sqrt(t + 1)): the decay that general stochastic convex theory asks for."""

    def __init__(self, smoothness: float, _horizon: int) -> None:
        self._first = 1 / smoothness

    def rate(self, step: int) -> float:
        """Return the learning rate of a step."""
        return self._first / math.sqrt(step + 1)


class StepDecay:
    """1 / L, halved log2(T) times at equal intervals: constant, then decay (Ge et al. 2019)."""

    def __init__(self, smoothness: float, horizon: int) -> None:
        self._first = 1 / smoothness
        self._length = horizon / math.ceil(math.log2(horizon))

    def rate(self, step: int) -> float:
        """Return the learning rate of a step."""
        return float(self._first * 0.5 ** (step // self._length))


SCHEDULES = {"1/sqrt(t) from 1/L": InverseRoot, "step decay from 1/L": StepDecay}
SEARCHED = {"a search, then wsd": ScheduleKind.WSD, "a search, then linear": ScheduleKind.LINEAR}
NAMES = (*SEARCHED, "mlr-snet", *SCHEDULES)
"""The ways of choosing learning rates, in the order of the copies."""
COMPARED_ON = 4
"""Batches that the trials of a search are compared on."""
WARMUP = 0.05
"""The warmup of a schedule after a search, as a share of the horizon."""


def train(problem: KnownProblem, policy: Policy, horizon: int, seeds: int) -> dict[str, float]:
    """Return what each way of choosing learning rates reaches, averaged over the seeds."""
    schedules: list[Any] = [kind(problem.smoothness, horizon) for kind in SCHEDULES.values()]
    config = RunConfig(horizon=horizon, optimizer=Optimizer.SGD, num_classes=problem.num_classes)
    runs, states = RunColumns.of([config] * seeds), policy.init_state(seeds)
    found = [search(problem, horizon, np.random.default_rng([2, seed])) for seed in range(seeds)]
    searched = [_Searched(kind, config, found) for kind in SEARCHED.values()]
    weights = np.zeros((len(NAMES) * seeds, SIZE))
    draws = np.random.default_rng(1)
    for step in range(horizon):
        rows = np.tile(draws.integers(ROWS, size=(seeds, BATCH)), (len(NAMES), 1))
        losses, gradients = problem.sample(weights, rows)
        steps = np.full(seeds, step)
        own = losses[len(searched) * seeds :][:seeds]
        advised, states = step_of(policy, states, steps, own, runs)
        fixed = [np.full(seeds, schedule.rate(step)) for schedule in schedules]
        rates = [one.rates(step) for one in searched]
        weights -= np.concatenate([*rates, advised, *fixed])[:, None] * gradients
    reached = [_suboptimality(problem, row) for row in weights]
    means = np.array(reached).reshape(-1, seeds).mean(1)
    return dict(zip(NAMES, means.tolist(), strict=True))


class _Searched:
    """A schedule from the learning rates that searches have found, which took the last steps."""

    def __init__(self, kind: ScheduleKind, config: RunConfig, found: list[FoundRate]) -> None:
        horizon = config.horizon or 1
        spec = ScheduleSpec(kind, warmup=min(math.ceil(WARMUP * horizon), horizon - 1))
        configs = [replace(config, num_classes=None, schedule=spec, found=one) for one in found]
        self._policy, self._runs = schedule_policy(spec), RunColumns.of(configs)
        self._states = self._policy.init_state(len(found))

    def rates(self, step: int) -> Floats:
        """Return the learning rates of a step, one for each search."""
        steps = np.full(len(self._runs), step)
        rates, self._states = step_of(self._policy, self._states, steps, np.ones(len(steps)), self._runs)
        return np.where(steps < self._runs.horizon, rates, 0.0)


def search(problem: KnownProblem, horizon: int, draws: np.random.Generator) -> FoundRate:
    """Return what a search finds whose trials are made on batches of their own."""
    setup, results = SearchSetup(horizon=horizon, optimizer=Optimizer.SGD), list[TrialResult]()
    compared = draws.integers(ROWS, size=(COMPARED_ON, BATCH))
    batches = draws.integers(ROWS, size=(setup.steps, BATCH))
    while not isinstance(trial := what_next(setup, results), Found):
        weights = np.zeros((1, SIZE))
        for update, rows in enumerate(batches[: trial.steps]):
            share = 1 - update / trial.steps
            weights -= trial.learning_rate * share * problem.sample(weights, rows[None])[1]
        loss = float(problem.sample(np.tile(weights, (COMPARED_ON, 1)), compared)[0].mean())
        results.append(TrialResult(learning_rate=trial.learning_rate, steps=trial.steps, loss=loss))
    return FoundRate(
        learning_rate=trial.learning_rate, octaves=trial.octaves, steps=trial.steps, charged=True
    )


def _suboptimality(problem: KnownProblem, weights: Floats) -> float:
    loss, gradient = problem.exact(weights)
    if problem.measure == "f - f*":
        return loss - _least(problem)
    return float(gradient @ gradient)


_LEAST: dict[str, float] = {}


def _least(problem: KnownProblem) -> float:
    """Return the minimum of a convex problem."""
    if problem.name not in _LEAST:
        found = minimize(
            problem.exact, np.zeros(SIZE), jac=True, method="L-BFGS-B", options={"ftol": 1e-15, "gtol": 1e-10}
        )
        _LEAST[problem.name] = float(found.fun)
    return _LEAST[problem.name]


def exponent(horizons: list[int], reached: list[float]) -> float:
    """Return p of the fit reached ~ T^-p, by least squares of logarithms; NaN if anything diverged.

    What is at the minimum to within rounding counts as `LEAST`.
    """
    if not np.isfinite(reached).all():
        return math.nan
    return float(-np.polyfit(np.log(horizons), np.log(np.maximum(reached, LEAST)), 1)[0])


def measure(policy: Policy, horizons: list[int], seeds: int) -> dict[str, dict[str, list[float]]]:
    """Return, for each problem and policy, what was reached at each horizon."""
    results: dict[str, dict[str, list[float]]] = {}
    for make in (least_squares, logistic, robust):
        problem = make(np.random.default_rng(0))
        reached = [train(problem, policy, horizon, seeds) for horizon in track(horizons, problem.name)]
        results[f"{problem.name} ({problem.measure})"] = {
            name: [row[name] for row in reached] for name in NAMES
        }
    return results


def show(results: Mapping[str, Mapping[str, list[float]]], horizons: list[int]) -> None:
    """Print the tables."""
    for problem, curves in results.items():
        table = Table("policy", "exponent", *(f"T = {horizon:,}" for horizon in horizons), title=problem)
        for name, reached in curves.items():
            table.add_row(name, f"{exponent(horizons, reached):.2f}", *(f"{value:.2e}" for value in reached))
        Console(width=150).print(table)


def plot(results: Mapping[str, Mapping[str, list[float]]], horizons: list[int], path: Path) -> None:
    """Draw what was reached against the horizon, a panel a problem."""
    figure, panels = plt.subplots(1, len(results), figsize=(12, 3.8), layout="constrained")
    for panel, (problem, curves) in zip(panels, results.items(), strict=True):
        for (name, reached), marker in zip(curves.items(), "DPos^", strict=True):
            panel.loglog(
                horizons, reached, marker=marker, label=f"{name}: p = {exponent(horizons, reached):.2f}"
            )
        panel.set(title=problem.replace(" (", "\n("), xlabel="horizon T, steps")
        panel.grid(alpha=0.3)
        panel.legend(fontsize=8)
    figure.savefig(path, dpi=110)


def main() -> None:
    """Measure, print, and write what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--model", type=Path, default=MODEL, help="the model that advises")
    parser.add_argument("--seeds", type=int, default=8, help="runs that are averaged")
    parser.add_argument("--longest", type=int, default=HORIZONS[-1], help="leave out longer horizons")
    parser.add_argument("--json", type=Path, help="write the figures here")
    parser.add_argument("--plot", type=Path, help="draw a picture here")
    arguments = parser.parse_args()
    model, digest = read_model(arguments.model)
    horizons = [horizon for horizon in HORIZONS if horizon <= arguments.longest]
    results = measure(model.policy(), horizons, arguments.seeds)
    show(results, horizons)
    if arguments.json:
        content = {"model": digest, "seeds": arguments.seeds, "horizons": horizons, "results": results}
        arguments.json.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    if arguments.plot:
        plot(results, horizons, arguments.plot)


if __name__ == "__main__":
    main()
