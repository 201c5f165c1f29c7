"""`memory.md` and its picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mlrs_bench.cell import Cell
from mlrs_bench.memory.figures import Figures, by_row, compared_at, figures, method
from mlrs_bench.memory.lineage import Lineage
from mlrs_bench.memory.scenario import FACTOR, RUNS, Scenario
from mlrs_bench.memory.targets import targets
from mlrs_bench.report.figures.bootstrap import Estimate
from mlrs_bench.report.figures.methods import ADVISED, BEST_TUNED
from mlrs_bench.report.figures.provenance import command_line, this_machine
from mlrs_bench.report.figures.wording import NOTHING, interval, loss, record, share, signed
from mlrs_bench.report.pages.style import GROUPS, new_figure, save
from mlrs_bench.report.pages.tables import table

PICTURE = "memory.png"
CHANGED = {
    Scenario.HORIZON: f"first run with {FACTOR} times the steps",
    Scenario.BATCH_SIZE: f"first run with {FACTOR} times the batch size",
    Scenario.REPLACED: "second run after the task was replaced",
}
"""What the run is that is compared after something has changed."""
READING = f"""\
- A *row* is a task under one optimizer, as in [quality.md](quality.md). Every sequence of runs has a task \
name of its own in the daemon, and goes through the daemon and the adapter of PyTorch. Run 1 begins with a \
search, whose steps are charged; every run ends by telling its validation loss as its metric.
- *Run n* of a sequence is compared: after n - 1 runs that explored, one with `explore=False` on a seed of \
`mlrs bench quality`, which is deleted afterwards and tells no metric, so that it teaches nothing (unless it \
diverges). Runs that explore have other seeds. The first run is itself compared.
- *Gap closed*, *best tuned* and the intervals are those of quality.md, on the seeds that the methods share. \
Best tuned is chosen after the fact among three schedules, each tuned at half-decade steps on each row by \
validation losses, in 18 to 28 trainings.
- W / T / L against `{ADVISED}` at two standard errors of the paired difference.
"""


def write_page(
    lineages: Sequence[Lineage], yardsticks: Sequence[Cell], *, out: Path, words: Sequence[str]
) -> None:
    """Write the report and its picture into a folder.

    Args:
        lineages: any part of the sequences, at least one.
        yardsticks: cells of the quality benchmark.
        out: the folder; made where it is missing.
        words: the command that makes the report, program first.

    Raises:
        ValueError: two cells are the same measurement.
    """
    found = figures(lineages, yardsticks)
    out.mkdir(parents=True, exist_ok=True)
    (out / "memory.md").write_text(_report(found, command_line(words)), encoding="utf-8")
    _draw(found, out / PICTURE)


def _report(found: Figures, command: str) -> str:
    machine = this_machine()
    packages = ", ".join(f"{name} {version}" for name, version in machine.packages.items())
    parts = [
        "# Memory across runs\n",
        (
            f"Made by `{command}`: {len(found.rows)} rows, "
            f"{' to '.join(map(str, sorted(set(found.repetitions))))} repetitions, "
            f"{found.trainings:,} trainings.\n"
        ),
        f"Written on {machine.platform}, {machine.cpu}, with {packages}.\n",
        f"![Gap closed by the number of runs]({PICTURE})\n",
        "## Targets\n",
        _targets(found),
        "## Over rows\n",
        _standings(found),
        "## What exploring costs\n",
        _exploring(found),
        "## When something changes\n",
        _changes(found),
        "## Rows\n",
        _rows(found),
        "## How to read this\n",
        READING,
    ]
    return "\n".join(parts)


def _targets(found: Figures) -> str:
    lines = [(one.name, one.goal, one.measured, "met" if one.is_met else "missed") for one in targets(found)]
    return table(("of", "target", "measured", "verdict"), lines)


def _standings(found: Figures) -> str:
    lines = [
        (
            each.method,
            str(each.rows),
            interval(each.gap),
            signed(each.median),
            share(each.near),
            record(each.wins),
        )
        for each in found.standings
    ]
    header = ("method", "rows", "gap closed, IQM [95 %]", "ln ratio, median", "within 2 %", "W / T / L")
    return table(header, lines)


def _exploring(found: Figures) -> str:
    lines = [
        (
            each.scenario,
            str(each.runs),
            signed(each.mean),
            signed(each.median),
            share(each.worse),
            str(each.lost),
            str(each.lost_like_first),
        )
        for each in found.exploring
    ]
    header = (
        "explore",
        "runs after the first",
        "ln(L / L of run 1), mean",
        "median",
        "10 % worse",
        "lost, run 1 not",
        "lost, as run 1",
    )
    return f"{table(header, lines)}\nA run is *lost* if it ends above the loss before training.\n"


def _changes(found: Figures) -> str:
    lines = [
        (
            CHANGED[each.scenario],
            str(each.rows),
            interval(each.ratio, "+.3f"),
            record(each.wins),
        )
        for each in found.changes
    ]
    return table(("run", "rows", f"ln(L / L of {ADVISED}), IQM [95 %]", "W / T / L"), lines)


def _rows(found: Figures) -> str:
    names = [ADVISED, *(method(scenario, compared_at(scenario)[-1]) for scenario in RUNS)]
    means = by_row(found.rows)
    lines = []
    for row in found.rows:
        own = means.get(row.name, {})
        best = row.mean(BEST_TUNED)
        ratios = [row.log_ratio(name) for name in names]
        lines.append(
            (
                row.name,
                row.best_tuned or NOTHING,
                loss(best),
                *(
                    f"{loss(own.get(name))} ({signed(each)})"
                    for name, each in zip(names, ratios, strict=True)
                ),
            )
        )
    header = ("row", "best tuned", "loss", *(f"{name} (ln ratio)" for name in names))
    return table(header, lines)


def _draw(found: Figures, path: Path) -> None:
    """Draw gap closed over the number of runs as a PNG."""
    figure = new_figure(4.2, "Gap closed by the next run, interquartile mean over rows and seeds")
    axis: Any = figure.subplots()
    gaps = {each.method: each.gap for each in found.standings}
    for scenario, style in zip(RUNS, GROUPS[1:], strict=False):
        numbers = [one for one in compared_at(scenario) if gaps.get(method(scenario, one)) is not None]
        estimates = [gaps[method(scenario, one)] for one in numbers]
        known: list[Estimate] = [one for one in estimates if one is not None]
        if known:
            errors = [[one.point - one.low for one in known], [one.high - one.point for one in known]]
            axis.errorbar(
                numbers,
                [one.point for one in known],
                errors,
                label=f"explore: {scenario}",
                capsize=3,
                **style,
            )
    axis.axhline(1.0, color="#0072b2", linestyle="--", linewidth=1.2, label=BEST_TUNED)
    if (searched := gaps.get(ADVISED)) is not None:
        axis.axhline(searched.point, color="#7f7f7f", linestyle=":", linewidth=1.4, label=ADVISED)
    axis.set_xlabel("run of the task")
    axis.set_ylabel("gap closed")
    axis.spines[["top", "right"]].set_visible(False)
    axis.grid(visible=True, alpha=0.25)
    axis.legend(frameon=False, loc="lower right")
    save(figure, path)
