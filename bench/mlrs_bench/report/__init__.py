"""The quality benchmark's figures: what was measured, as numbers, tables and pictures.

Everything here is computed from cells, one training each, and works on whatever cells there are:
what is missing is said, never guessed.

    methods.py        the names of methods that mean something here, and how they are grouped
    losses.py         final losses by row, method and seed; what a diverged training counts as
    rows.py           a row: one task under one optimizer, its yardsticks, gap closed and log ratio
    statistics.py     the interquartile mean; a win, tie or loss at two standard errors
    bootstrap.py      the stratified bootstrap interval of an interquartile mean
    standings.py      one method over many rows
    sensitivity.py    what a start ten times off changes
    scope.py          the full benchmark: rows, methods, starts and seeds
    coverage.py       what of it was measured, and what is missing
    bookkeeping.py    what tuning cost, and how many trainings failed
    provenance.py     which networks, packages and seeds, on what machine
    targets.py        the promises, and whether the numbers keep them
    summary.py        all of the above in one value
    wording.py        figures as text
    tables.py         the summary's parts as Markdown tables
    markdown.py       `quality.md`
    panels.py         grids of learning curves and of learning rates
    verdicts.py       the forest plot, and wins, ties and losses as a heat map
    style.py          colours, sizes and the file format that the pictures share
    meta.py           `meta.md`: meta mode against the frozen network
    write.py          the report as files
"""

from mlrs_bench.report.scope import Scope, benchmark_scope
from mlrs_bench.report.summary import Summary, summarise
from mlrs_bench.report.write import write_report

__all__ = ["Scope", "Summary", "benchmark_scope", "summarise", "write_report"]
