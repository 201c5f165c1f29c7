"""The tables of what the dashboard costs, from the figures of `performance.dashboard.page_load`."""

from __future__ import annotations

from typing import Any

from performance.report.tables import FigureTable, number, ratio

Figures = dict[str, Any]
MS, MIB, PERCENT = 1e3, 2**20, 100
RATIO = "Ratios are medians over rounds, with their quartiles."
TITLES = {
    "list": "the list of runs: a hundred, and pictures of fifty",
    "run": "the page of the long run, with what the dashboard keeps",
    "run, read again": "the same, of which it keeps nothing",
    "bare list": "`ListRuns` of a hundred runs over gRPC",
    "bare run": "`SummarizeRecord` of the long run over gRPC",
}


def page_load(figures: Figures) -> list[FigureTable]:
    """Return the tables of `page_load.py`."""
    return [_pages(figures), _cpu(figures), _advice(figures), _memory(figures)]


def _pages(figures: Figures) -> FigureTable:
    rows = [
        _page(f"{TITLES[name]}{first}", row)
        for first, looks in ((", first look", figures["first"]), ("", figures["later"]))
        for name, row in looks.items()
        if name in TITLES
    ]
    rows += [
        [f"in Chromium, from navigation until it is drawn: {page}", *_spread(seconds, MS), ""]
        for page, seconds in figures["drawn"].items()
    ]
    later = figures["later"]
    note = (
        f"{figures['runs']:,} runs and one of {figures['steps']:,} steps. The list is "
        f"{later['list_bytes']:,} bytes; the run's page {later['run_bytes']:,}, with {later['points']:,} "
        "buckets of a smallest, a greatest and a mean value in each series. At the first look, the "
        f"daemon and the dashboard have just started. {RATIO}"
    )
    return FigureTable("Pages", ["", "ms", "quartiles", "worst", "/ bare call"], rows, note)


def _page(title: str, row: Figures) -> list[str]:
    return [title, *_spread(row["seconds"], MS), ratio(row["bare_ratio"])]


def _spread(value: dict[str, float], scale: float) -> list[str]:
    middle, low, high, worst = (number(value[name] * scale) for name in ("median", "low", "high", "worst"))
    return [middle, f"{low} to {high}", worst]


def _cpu(figures: Figures) -> FigureTable:
    rows = []
    for pace, row in figures["cpu"].items():
        shown = {
            f"daemon, {pace}, no page": row["daemon"]["closed"],
            f"daemon, {pace}, {figures['pages']} pages": row["daemon"]["open"],
            f"daemon, {pace}, more with pages": row["daemon_more"],
            f"dashboard, {pace}": row["dashboard"],
        }
        rows += [[title, *_spread(value, PERCENT)] for title, value in shown.items()]
    paces = "; ".join(
        f"{pace}: {number(row['steps_per_s']['closed']['median'])} steps a second without pages, "
        f"{number(row['steps_per_s']['open']['median'])} with them, which get {number(row['events_per_s'])} "
        f"events and {number(row['received_per_s'])} bytes a second together, and the daemon's CPU a step is "
        f"{ratio(row['per_step_ratio'])} of that without"
        for pace, row in figures["cpu"].items()
    )
    note = f"Ten training loops and {figures['pages']} pages that follow them. {paces}."
    return FigureTable("CPU, percent of a core", ["", "median", "quartiles", "worst"], rows, note)


def _advice(figures: Figures) -> FigureTable:
    advice = figures["advice"]
    rows = [
        [title, *(number(advice[state][f"p{level}_us"]) for level in (50, 90, 99))]
        for state, title in (("closed", "no page"), ("open", f"{figures['pages']} pages"))
    ]
    rows.append(["with / without", ratio(advice["p50_ratio"]), "", ratio(advice["p99_ratio"])])
    note = f"Of another training loop, in turns, while the ten take their steps at their pace. {RATIO}"
    return FigureTable("Advice while pages are open", ["", "p50 µs", "p90 µs", "p99 µs"], rows, note)


def _memory(figures: Figures) -> FigureTable:
    rows = [
        ["at the start", number(figures["rss_at_start"] / MIB)],
        ["after pages were shown, and followed", number(figures["rss_followed"] / MIB)],
    ]
    rows += [
        [f"after {row['requests']:,} different parts of the long record", number(row["rss"] / MIB)]
        for row in figures["hammered"]
    ]
    received = figures["hammered"][-1]["received"] / MIB
    note = (
        f"The answers to all parts are {number(received)} MiB; the dashboard keeps at most "
        f"{number(figures['cache'] / MIB)} MiB of answers."
    )
    return FigureTable("Memory of the dashboard", ["", "MiB in RAM"], rows, note)
