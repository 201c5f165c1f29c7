"""A row of the benchmark: one task under one optimizer, and its two yardsticks."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from mlrs_bench.cell import Cell
from mlrs_bench.report.figures.losses import Key, Losses, by_row, evaluations, paired
from mlrs_bench.report.figures.methods import BEST_TUNED, CONSTANT, TUNED
from mlrs_bench.report.figures.statistics import STANDARD_ERRORS, Floats, Outcome, outcome, standard_error


@dataclass(frozen=True)
class Row:
    """Final test losses on one task under one optimizer."""

    task: str
    optimizer: str
    losses: Mapping[str, Losses]
    """By method and seed; the best tuned one again under its name as the yardstick."""
    best_tuned: str | None
    """The tuned method with the least mean loss; None when none ran, or they share no seed."""
    scale: float | None
    """L_constant - L_best_tuned: what a gap of 1 is worth; None when the row has no gap figure."""
    excluded: str | None
    """Why the row has no gap figure; None when it has one."""

    @property
    def name(self) -> str:
        """How tables and pictures call it."""
        return f"{self.task} / {self.optimizer}"

    def mean(self, method: str) -> float | None:
        """Return the mean final loss of a method over its seeds; None when it did not run."""
        losses = self.losses.get(method)
        return float(np.mean(list(losses.values()))) if losses else None

    def gap_scores(self, method: str) -> Floats | None:
        """Return the gap closed on each seed, (n,) float64; None when it is not defined.

        1 - (L_seed - L_best_seed) / (L_constant - L_best): seeds are paired in the numerator, the
        scale is the row's. Its mean over seeds is (L_constant - L) / (L_constant - L_best), and
        noise in the scale stretches the distance from 1 without moving a score across it.
        """
        losses, best = self._paired(method)
        if self.scale is None or not losses.size:
            return None
        return 1.0 - (losses - best) / self.scale

    def log_scores(self, method: str, other: str = BEST_TUNED) -> Floats | None:
        """Return ln(L_seed / L_other_seed), (n,) float64; None when it is not defined."""
        losses, others = self._paired(method, other)
        if not losses.size or min(losses.min(), others.min()) <= 0.0:
            return None
        return np.log(losses / others)

    def gap(self, method: str) -> float | None:
        """Return the gap closed by the mean losses over the shared seeds; None when not defined."""
        scores = self.gap_scores(method)
        return None if scores is None else float(scores.mean())

    def log_ratio(self, method: str) -> float | None:
        """Return ln(L / L_best) of the mean losses over the shared seeds; None when not defined."""
        return log_of_means(*self._paired(method))

    def beyond_tuned(self, method: str) -> float | None:
        """Return ln(L / L_tuned), where L_tuned is the largest mean loss of a tuned schedule.

        Means are over the seeds that the two share; None when it is not defined.
        """
        found = [log_of_means(*self._paired(method, other)) for other in TUNED]
        return min((ratio for ratio in found if ratio is not None), default=None)

    def outcome(self, method: str, other: str) -> Outcome | None:
        """Return how a method did against another; None when one of them did not run."""
        if method not in self.losses or other not in self.losses:
            return None
        return outcome(*paired(self.losses[method], self.losses[other]))

    def _paired(self, method: str, other: str = BEST_TUNED) -> tuple[Floats, Floats]:
        return paired(self.losses.get(method, {}), self.losses.get(other, {}))


def log_of_means(losses: Floats, others: Floats) -> float | None:
    """Return ln(mean loss / mean of the others); None without losses, or where one is not positive."""
    if not losses.size or min(losses.mean(), others.mean()) <= 0.0:
        return None
    return math.log(losses.mean() / others.mean())


def rows_of(cells: Iterable[Cell]) -> tuple[Row, ...]:
    """Return the rows of the evaluation cells with the default start, by task and optimizer.

    Raises:
        ValueError: two cells are the same measurement, or a diverged one has no loss at all.
    """
    return tuple(_row(key, losses) for key, losses in by_row(evaluations(cells)).items())


def _row(key: Key, losses: Mapping[str, Losses]) -> Row:
    best = _best_tuned(losses)
    if best is not None:
        losses = {**losses, BEST_TUNED: losses[best]}
    scale, excluded = _scale(losses)
    return Row(*key, losses=losses, best_tuned=best, scale=scale, excluded=excluded)


def _best_tuned(losses: Mapping[str, Losses]) -> str | None:
    present = [method for method in TUNED if method in losses]
    shared = set.intersection(*(set(losses[method]) for method in present)) if present else set()
    if not shared:
        return None
    return min(present, key=lambda method: sum(losses[method][seed] for seed in sorted(shared)))


def _scale(losses: Mapping[str, Losses]) -> tuple[float | None, str | None]:
    """Return the row's scale, or why it has none."""
    for method in (CONSTANT, BEST_TUNED):
        if method not in losses:
            return None, f"{method} not measured"
    constant, best = paired(losses[CONSTANT], losses[BEST_TUNED])
    if constant.size < 2:
        return None, f"{CONSTANT} and {BEST_TUNED} share fewer than two seeds, so the noise is unknown"
    gained = constant - best
    mean, error = float(gained.mean()), standard_error(gained)
    if mean <= STANDARD_ERRORS * error:
        return None, f"tuning gains nothing beyond the noise: {mean:.3g} ± {error:.2g}"
    return mean, None
