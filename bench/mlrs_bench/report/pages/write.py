"""The report as files."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from mlrs_bench.cell import Cell
from mlrs_bench.report.figures.provenance import command_line, this_machine
from mlrs_bench.report.figures.scope import Scope
from mlrs_bench.report.figures.summary import summarise
from mlrs_bench.report.pages.markdown import report
from mlrs_bench.report.pages.panels import draw_learning_curves, draw_learning_rates
from mlrs_bench.report.pages.verdicts import draw_gaps, draw_matchups


def write_report(
    cells: Iterable[Cell], *, scope: Scope, metrics: Mapping[str, str], out: Path, words: Sequence[str]
) -> None:
    """Write `quality.md` and, beside it, its pictures: all that is there is replaced.

    Args:
        cells: one training each; any part of the benchmark. Without an evaluation there are no pictures.
        scope: the full benchmark.
        metrics: what the loss of each task is, by task.
        out: the folder; made where it is missing.
        words: the command that makes the report, program first.

    Raises:
        ValueError: two cells are the same measurement, or a diverged one has no finite loss.
    """
    cells = tuple(cells)
    summary = summarise(cells, scope=scope)
    out.mkdir(parents=True, exist_ok=True)
    text = report(summary, metrics, command=command_line(words), machine=this_machine())
    (out / "quality.md").write_text(text, encoding="utf-8")
    if summary.rows:
        draw_learning_curves(cells, summary.rows, out / "learning-curves.png")
        draw_learning_rates(cells, summary.rows, out / "learning-rates.png")
        draw_gaps(summary, out / "gap.png")
        draw_matchups(summary, out / "matchups.png")
