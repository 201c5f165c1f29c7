"""The report of meta mode: groups, verdicts, and what it refuses."""

from __future__ import annotations

import pytest

from mlrs_bench.report.pages.meta import FAR, meta_report
from mlrs_bench.tasks import TASKS
from tests.bench.report.cells import cell, row

FROZEN = [1.0, 1.1, 0.9]


def report(far: float, near: float) -> list[list[str]]:
    """Return the lines of the first table, as cells; losses in meta mode are such multiples of the frozen."""
    cells = [
        cell
        for task, factor in (("char-lstm", far), ("digits-cnn", near))
        for cell in row(
            {"mlr-snet": FROZEN, "mlr-snet-meta": [factor * each for each in FROZEN], "tuned-wsd": FROZEN},
            task=task,
        )
    ]
    text = meta_report(cells, cells, command="mlrs bench meta")
    lines = [line for line in text.split("## Rows")[0].splitlines() if line.startswith("| ")]
    return [[part.strip() for part in line.strip("|").split("|")] for line in lines]


def test_every_far_row_is_a_row() -> None:
    """Each row that is called far is a task of the benchmark under one of its optimizers."""
    assert {task for task, _ in FAR} <= set(TASKS)
    assert {optimizer for _, optimizer in FAR} == {"sgd", "adamw"}


@pytest.mark.parametrize(
    ("factor", "verdict"), [(0.9, "gains"), (1.0, "does not lose"), (1.01, "loses"), (1.2, "loses")]
)
def test_verdicts(factor: float, verdict: str) -> None:
    """A group gains or loses when its whole interval does; equal losses are no loss."""
    found = {(line[0], line[1]): line for line in report(far=factor, near=1 / factor)}
    assert found["far", "mlr-snet-meta"][-1] == verdict
    assert found["far", "mlr-snet-meta"][3] == "1"
    assert found["near", "mlr-snet-meta"][-1] == {"gains": "loses", "loses": "gains"}.get(verdict, verdict)
    assert found["all", "mlr-snet-meta"][3] == "2"
    assert found["far", "paper-meta"][4] == "-"


def test_a_report_of_nothing_is_refused() -> None:
    """Cells without meta mode make no report, and the error says what to run."""
    with pytest.raises(ValueError, match="mlr-snet-meta, paper-meta, mlr-snet-meta-rescue; run them"):
        meta_report(row({"mlr-snet": FROZEN}), [], command="")


def test_the_frozen_network_may_have_been_measured_before() -> None:
    """Seeds of the frozen network that are in the other file count; one that ended otherwise is refused."""
    meta = row({"mlr-snet-meta": [0.9, 1.0, 0.8]}, task="linear")
    known = row({"mlr-snet": FROZEN}, task="linear")
    text = meta_report([*meta, known[0]], known, command="")
    assert "| linear / sgd | far | 3 | - | 1 | 0.9 |" in text
    other = cell("mlr-snet", 1.5, task="linear", seed=0)
    with pytest.raises(ValueError, match=r"ended at 1\.5, in the other file at 1\.0"):
        meta_report([*meta, other], known, command="")
