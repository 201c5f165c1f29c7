"""Where trainings ended, by how their learning rates were chosen: as a table and as a picture."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf, isfinite
from statistics import fmean

from matplotlib.axes import Axes

from mlrs import SearchResult

WORST = 2.6
"""Test losses above it, and those that are not finite, are drawn here."""


@dataclass
class Trained:
    """A training: the learning rate of each step, its search, if it made one, and where it ended."""

    rates: list[float]
    found: SearchResult | None
    validation: float
    test: float
    accuracy: float

    @property
    def searched(self) -> int:
        """The steps of its search."""
        return self.found.steps if self.found else 0

    @property
    def fall(self) -> float:
        """By which share the best trial of its search lowered the loss."""
        if self.found is None or not self.found.trials:
            return 0.0
        start, *losses = (trial.loss for trial in self.found.trials)
        return 1 - min(filter(isfinite, losses)) / start


def average(trained: list[Trained], part: str) -> float:
    """Return a mean over seeds; infinite if one of them blew up."""
    values = [getattr(one, part) for one in trained]
    return fmean(values) if all(map(isfinite, values)) else inf


def report(network: str, swept: dict[float, list[Trained]], advised: list[list[Trained]]) -> str:
    """Return a line for each way to train, and how it compares with the best of the sweep."""
    best = min(swept, key=lambda rate: average(swept[rate], "validation"))
    rows = {f"cosine from {rate:.3g}": trained for rate, trained in swept.items()}
    rows |= {f"advised, run {number}": trained for number, trained in enumerate(advised, 1)}
    lines = [
        f"{network:19}  steps  searched  test loss  to the sweep's  accuracy   test loss of each training"
    ]
    for name, trained in rows.items():
        steps = len(trained[0].rates) + trained[0].searched
        searched = "/".join(str(one.searched) for one in trained)
        loss = average(trained, "test")
        lines.append(
            f"{name:19} {steps:6} {searched:>9} {loss:10.3f} {loss / average(swept[best], 'test'):15.2f}"
            f" {average(trained, 'accuracy'):9.1%}   {'  '.join(f'{one.test:.3f}' for one in trained)}"
        )
    lines.append(f"the sweep took {len(swept)} trainings; by validation loss it chose {best:.3g}")
    falls = ", ".join(f"{one.fall:.1%}" for one in advised[0])
    lines.append(f"the best trial of each search of run 1 lowered the loss by {falls}")
    return "\n".join(lines)


def shown(trained: list[Trained]) -> list[float]:
    """Return the test losses as they are drawn."""
    return [min(one.test, WORST) if isfinite(one.test) else WORST for one in trained]


def draw(axes: list[Axes], swept: dict[float, list[Trained]], advised: list[list[Trained]]) -> None:
    """Draw where trainings ended over their highest learning rate, and the learning rates of one seed."""
    ends, schedules = axes
    blue, red = {"color": "#2e86ab"}, {"color": "#d1495b"}
    ends.plot(list(swept), [fmean(shown(trained)) for trained in swept.values()], label="cosine", **blue)
    for rate, trained in swept.items():
        ends.plot([rate] * len(trained), shown(trained), ".", **blue)
        schedules.plot(trained[0].rates, linewidth=0.8, **blue)
    for number, trained in enumerate(advised):
        label = f"advised, run {number + 1}"
        highest = [max(one.rates) for one in trained]
        ends.plot(highest, shown(trained), "^sD"[number], label=label, **red)
        first = trained[0]
        steps = range(first.searched, first.searched + len(first.rates))
        schedules.plot(steps, first.rates, ["-", "--", ":"][number], label=label, **red)
    ends.set(xscale="log", xlabel="highest learning rate", ylabel="test loss, nats", ylim=(0, WORST + 0.1))
    schedules.set(yscale="log", xlabel="step", ylabel="learning rate", ylim=(1e-5, 2))
    for each in axes:
        each.grid(alpha=0.25)
        each.legend(frameon=False, loc="lower left")
