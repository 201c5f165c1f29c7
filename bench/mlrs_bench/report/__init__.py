"""The quality benchmark's figures: what was measured, as numbers, tables and pictures.

Everything here is computed from cells, one training each, and works on whatever cells there are:
what is missing is said, never guessed.

    figures/    what was measured, as numbers
    pages/      the numbers as text and pictures
"""

from mlrs_bench.report.figures.scope import Scope, benchmark_scope
from mlrs_bench.report.figures.summary import Summary, summarise
from mlrs_bench.report.pages.write import write_report

__all__ = ["Scope", "Summary", "benchmark_scope", "summarise", "write_report"]
