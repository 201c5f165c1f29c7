"""The parts of a summary as Markdown tables."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from mlrs_bench.report.figures.comparisons import Comparison
from mlrs_bench.report.figures.methods import ABLATIONS, ADVISED, BEST_TUNED, CONSTANT
from mlrs_bench.report.figures.rows import Row
from mlrs_bench.report.figures.summary import Summary
from mlrs_bench.report.figures.targets import EVERY, advised_is_apart
from mlrs_bench.report.figures.wording import NOTHING, interval, loss, record, share, signed


def table(header: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table; the first column is text, the others align to the right."""
    ruler = [":---", *("---:" for _ in header[1:])]
    rows = [header, ruler, *lines]
    return "".join(f"| {' | '.join(each.replace('|', chr(92) + '|') for each in row)} |\n" for row in rows)


def target_table(summary: Summary) -> str:
    """Return the targets, each with what was measured."""
    lines = [(each.name, each.goal, each.measured, each.judged, each.verdict) for each in summary.targets]
    return table(("target", "goal", "measured", "judged on", "verdict"), lines)


def standing_table(summary: Summary, group: str) -> str:
    """Return every method over the rows of a group (`all`, an optimizer and so on)."""
    header = (
        "method",
        "rows",
        "gap closed, IQM [95 %]",
        f"{ADVISED} on the same rows",
        "ln ratio, IQM [95 %]",
        "median",
        "worst",
        "within 2 %",
        f"ln({ADVISED} / it), IQM [95 %]",
        f"{ADVISED} W / T / L",
    )
    lines = [
        _comparison(method, comparison)
        for (each, method), comparison in summary.comparisons.items()
        if each == group
    ]
    return table(header, lines)


def _comparison(method: str, comparison: Comparison) -> tuple[str, ...]:
    return (
        method,
        f"{comparison.rows} ({comparison.gap_rows})",
        interval(comparison.gap),
        interval(comparison.advised_gap),
        interval(comparison.log_ratio, "+.3f"),
        signed(comparison.median_log_ratio),
        signed(comparison.worst_log_ratio),
        share(comparison.near),
        NOTHING if method == ADVISED else interval(comparison.advised_ratio, "+.3f"),
        NOTHING if method == ADVISED else record(comparison.advised),
    )


def ablation_table(summary: Summary) -> str:
    """Return what the advised method is worth without parts of it, over all rows."""
    header = (
        "advice",
        "method",
        "rows",
        "gap closed, IQM [95 %]",
        f"{ADVISED} on the same rows",
        "apart",
        f"ln({ADVISED} / it), IQM [95 %]",
        f"{ADVISED} W / T / L",
    )
    lines = [
        _ablation(about, method, comparison)
        for method, about in {ADVISED: "all", **ABLATIONS}.items()
        if (comparison := summary.comparisons.get((EVERY, method))) is not None
    ]
    return table(header, lines)


def _ablation(about: str, method: str, comparison: Comparison) -> tuple[str, ...]:
    gap = f"{comparison.rows} ({comparison.common_gap_rows})", interval(comparison.common_gap)
    if method == ADVISED:
        return (about, method, *gap, *([NOTHING] * 4))
    apart = {None: NOTHING, True: "yes", False: "no"}[advised_is_apart(comparison)]
    ratio = interval(comparison.advised_ratio, "+.3f")
    return (about, method, *gap, interval(comparison.advised_gap), apart, ratio, record(comparison.advised))


def row_table(summary: Summary, metrics: Mapping[str, str]) -> str:
    """Return every row: final losses, gap closed, log ratio and accuracies."""
    header = (
        "row",
        "loss",
        "best tuned",
        CONSTANT,
        ADVISED,
        "gap closed",
        "ln ratio",
        f"accuracy: best tuned → {ADVISED}",
    )
    return table(header, [_row(summary, row, metrics) for row in summary.rows])


def _row(summary: Summary, row: Row, metrics: Mapping[str, str]) -> tuple[str, ...]:
    accuracies = summary.accuracies.get((row.task, row.optimizer), {})
    best, advised = (accuracies.get(method) for method in (BEST_TUNED, ADVISED))
    gap = row.gap(ADVISED)
    return (
        row.name,
        metrics.get(row.task, NOTHING),
        f"{loss(row.mean(BEST_TUNED))} ({row.best_tuned})" if row.best_tuned else NOTHING,
        loss(row.mean(CONSTANT)),
        loss(row.mean(ADVISED)),
        NOTHING if gap is None else f"{gap:.2f}",
        signed(row.log_ratio(ADVISED)),
        f"{share(best, '.1f')} → {share(advised, '.1f')}" if accuracies else NOTHING,
    )


def excluded_table(summary: Summary) -> str:
    """Return the rows without a gap figure, and why."""
    return table(("row", "why"), [(row.name, row.excluded) for row in summary.rows if row.excluded])


def loss_table(summary: Summary) -> str:
    """Return the mean final loss of every method on every row."""
    methods = [method for method in summary.methods if method != BEST_TUNED]
    lines = [(row.name, *(loss(row.mean(method)) for method in methods)) for row in summary.rows]
    return table(("row", *methods), lines)


def matchup_table(summary: Summary) -> str:
    """Return wins, ties and losses of each method (row) against each other (column)."""
    lines = [
        (method, *(_against(summary, method, other) for other in summary.methods))
        for method in summary.methods
    ]
    return table(("against", *summary.methods), lines)


def _against(summary: Summary, method: str, other: str) -> str:
    return NOTHING if method == other else record(summary.matchups[method, other])


def sensitivity_table(summary: Summary) -> str:
    """Return what a start that is off moves."""
    header = ("method", "start", "rows", "median size of move", "at most", "worst move", "on", "diverged")
    lines = [
        (
            each.method,
            f"x{each.start:g}",
            f"{each.rows}",
            NOTHING if each.median_move is None else f"{each.median_move:.3f}",
            NOTHING if each.median_high is None else f"{each.median_high:.3f}",
            signed(each.worst_move),
            each.worst_row or NOTHING,
            f"{each.diverged} of {each.runs}",
        )
        for each in summary.sensitivities
    ]
    return table(header, lines)


def stability_table(summary: Summary) -> str:
    """Return how many evaluation trainings diverged, were lost, and did not learn."""
    lines = [
        (method, f"{each.diverged}", f"{each.lost}", f"{each.not_learning}", f"{each.runs}")
        for method, each in summary.stabilities.items()
    ]
    return table(("method", "diverged", "lost", "not learning", "of runs"), lines)


def identity_table(summary: Summary) -> str:
    """Return what set the learning rates, exactly."""
    lines = [(method, "; ".join(each)) for method, each in summary.measured.identities.items()]
    return table(("method", "identity"), lines)


def tuning_table(summary: Summary) -> str:
    """Return what the search for base learning rates cost."""
    lines = [
        (method, f"{each.rows}", f"{each.runs}", f"{each.steps:,}", f"{each.seconds / 3600:.2f}")
        for method, each in summary.tuning.items()
    ]
    return table(("method", "rows", "runs", "steps", "hours"), lines)
