"""The report as files."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from mlrs_bench.cell import Cell
from mlrs_bench.report.markdown import report
from mlrs_bench.report.panels import draw_learning_curves, draw_learning_rates
from mlrs_bench.report.summary import summarise
from mlrs_bench.report.verdicts import draw_gaps, draw_matchups

COMMAND = "mlrs bench quality --out FOLDER"


def write_report(
    cells: Iterable[Cell], *, tasks: Mapping[str, str], out: Path, command: str = COMMAND
) -> None:
    """Write `quality.md` and, beside it, its pictures: all that is there is replaced.

    Args:
        cells: one training each; any part of the benchmark. Without an evaluation there are no pictures.
        tasks: what the loss of each task of the full benchmark is, by task.
        out: the folder; made where it is missing.
        command: what the report says it was made by.

    Raises:
        ValueError: two cells are the same measurement, or a diverged one has no finite loss.
    """
    cells = tuple(cells)
    summary = summarise(cells, tasks=tasks)
    out.mkdir(parents=True, exist_ok=True)
    (out / "quality.md").write_text(report(summary, tasks, command=command), encoding="utf-8")
    if summary.rows:
        draw_learning_curves(cells, summary.rows, out / "learning-curves.png")
        draw_learning_rates(cells, summary.rows, out / "learning-rates.png")
        draw_gaps(summary, out / "gap.png")
        draw_matchups(summary, out / "matchups.png")
