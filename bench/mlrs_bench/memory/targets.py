"""The targets that the memory of a task was built for, and whether they are met."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from mlrs_bench.memory.figures import Change, Figures, Standing, compared_at, method
from mlrs_bench.memory.scenario import RUNS, Scenario
from mlrs_bench.report.figures.wording import interval, record, share, signed

GAP, NEAR = 1.05, 0.75
"""The gap that the last compared run closes, and the share of rows where it ends near the best tuned."""


@dataclass(frozen=True)
class Target:
    """A target."""

    name: str
    goal: str
    measured: str
    is_met: bool


def targets(found: Figures) -> Iterator[Target]:
    """Yield the targets that can be judged by what was measured."""
    standings = {each.method: each for each in found.standings}
    for scenario in RUNS:
        name = method(scenario, compared_at(scenario)[-1])
        if (standing := standings.get(name)) is not None:
            yield from _of_standing(standing)
    for each in found.exploring:
        if each.scenario is Scenario.CAREFUL:
            yield Target(
                "careful runs against run 1",
                "mean loss no worse",
                f"ln ratio {signed(each.mean)} in the mean, {signed(each.median)} in the median",
                each.mean <= 0.0,
            )
            yield Target("careful runs lost that run 1 did not lose", "none", str(each.lost), each.lost == 0)
    for change in found.changes:
        yield _of_change(change)


def _of_standing(standing: Standing) -> Iterator[Target]:
    if standing.gap is not None:
        goal, gap = f"gap closed >= {GAP}", standing.gap
        yield Target(standing.method, goal, interval(gap), gap.point >= GAP)
    if standing.near is not None:
        goal = f"within 2 % of the best tuned on >= {share(NEAR)} of rows"
        yield Target(standing.method, goal, share(standing.near), standing.near >= NEAR)


def _of_change(change: Change) -> Target:
    """Return the target of a run after a change: no worse than one that begins with a search."""
    is_met = change.ratio is not None and change.ratio.point <= 0.0
    measured = f"ln ratio {interval(change.ratio, '+.3f')}; W / T / L {record(change.wins)}"
    return Target(f"after a change: {change.scenario}", "at least as good as with a search", measured, is_met)
