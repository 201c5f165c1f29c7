"""The numbers of the memory's report, of sequences whose final losses are made up."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import pytest

from mlrs_bench.cell import Cell
from mlrs_bench.memory.figures import figures, method
from mlrs_bench.memory.lineage import Ended, Lineage
from mlrs_bench.memory.page import write_page
from mlrs_bench.memory.scenario import Scenario, steps
from mlrs_bench.memory.targets import targets
from tests.bench.report.cells import cell

TUNED, CONSTANT, SEARCH = 1.0, 3.0, 1.5
"""Final losses of the best tuned schedule, of a constant learning rate, and after a search."""


def lineage(scenario: Scenario, repetition: int, *, later: float, exploring: float = 1.2) -> Lineage:
    """Return a sequence whose first run ends as a search does, and whose later compared ones at `later`."""
    ended = []
    for step in steps(scenario, "digits-cnn", repetition):
        loss = exploring if not step.compared else SEARCH if step.number == 1 else later
        one = cell("memory", loss, task="digits-cnn", seed=step.seed)
        ended.append(Ended(step.number, step.compared, one, "why"))
    return Lineage(
        scenario=scenario, task="digits-cnn", optimizer="sgd", repetition=repetition, ended=tuple(ended)
    )


def yardsticks() -> list[Cell]:
    """Return the cells of the quality benchmark for three seeds, with a little noise."""
    losses = {"tuned-wsd": TUNED, "tuned-linear": 1.1, "constant": CONSTANT, "search": SEARCH}
    return [
        cell(name, loss + 0.001 * seed, task="digits-cnn", seed=100 + seed)
        for name, loss in losses.items()
        for seed in range(3)
    ]


def test_gap_closed_by_number_of_runs() -> None:
    """The first run closes what the search does, a later one what its own loss says."""
    found = figures([lineage(Scenario.CAREFUL, one, later=1.0) for one in range(3)], yardsticks())
    gaps = {one.method: one.gap for one in found.standings}
    first, last = gaps[method(Scenario.CAREFUL, 1)], gaps[method(Scenario.CAREFUL, 8)]
    assert first is not None
    assert last is not None
    assert first.point == pytest.approx(0.75, abs=0.002)
    assert last.point == pytest.approx(1.0, abs=0.002)
    assert found.repetitions == (3, 3)
    assert found.trainings == 3 * 12


def test_repetitions_that_are_missing_show() -> None:
    """Where some sequences were repeated less often than others, both numbers are given."""
    counts = {Scenario.FULL: 1, Scenario.CAREFUL: 3}
    made = [lineage(one, n, later=1.0) for one, count in counts.items() for n in range(count)]
    assert figures(made, yardsticks()).repetitions == (1, 3)


def test_what_exploring_costs() -> None:
    """Runs that explore are compared with the first run of their sequence; lost ones are counted apart."""
    good = lineage(Scenario.FULL, 0, later=1.0, exploring=1.2)
    bad = lineage(Scenario.FULL, 1, later=1.0, exploring=1.2)
    worst = dataclasses.replace(bad.ended[2].cell, diverged=True)
    bad = dataclasses.replace(
        bad, ended=(*bad.ended[:2], dataclasses.replace(bad.ended[2], cell=worst), *bad.ended[3:])
    )
    (found,) = figures([good, bad], yardsticks()).exploring
    assert found.runs == 10
    assert found.median == pytest.approx(math.log(1.2 / SEARCH))
    assert (found.lost, found.lost_like_first) == (1, 0)


def test_changes_are_compared_with_a_search() -> None:
    """The first run after a change is set against a run that begins with a search, on the same seeds."""
    found = figures([lineage(Scenario.HORIZON, one, later=1.2) for one in range(3)], yardsticks())
    (change,) = found.changes
    assert change.ratio is not None
    assert change.ratio.point == pytest.approx(math.log(1.2 / SEARCH), abs=0.002)
    assert change.wins.wins == 1


def test_targets_are_judged_by_the_figures() -> None:
    """A gap of 1 misses its target, runs that explore and end lower than the first meet theirs."""
    found = figures([lineage(Scenario.CAREFUL, one, later=1.0) for one in range(3)], yardsticks())
    judged = {(one.name, one.goal): one.is_met for one in targets(found)}
    assert judged == {
        ("careful run 8", "gap closed >= 1.05"): False,
        ("careful run 8", "within 2 % of the best tuned on >= 75 % of rows"): True,
        ("careful runs against run 1", "mean loss no worse"): True,
        ("careful runs lost that run 1 did not lose", "none"): True,
    }


def test_the_report_has_every_table_and_the_picture(tmp_path: Path) -> None:
    """The page names its command, and has a line for each standing, cost, change and row."""
    made = [lineage(one, n, later=1.0) for one in Scenario for n in range(2)]
    write_page(made, yardsticks(), out=tmp_path, words=["/bin/mlrs", "bench", "memory"])
    text = (tmp_path / "memory.md").read_text(encoding="utf-8")
    assert "Made by `mlrs bench memory`: 1 rows, 2 repetitions" in text
    for words in (
        "careful run 8",
        "full run 6",
        "second run after the task was replaced",
        "digits-cnn / sgd",
    ):
        assert words in text
    assert (tmp_path / "memory.png").stat().st_size > 1000
