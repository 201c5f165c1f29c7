"""The tables of each benchmark, from its figures: what scripts print, and what the page shows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from performance.report import dashboard
from performance.report.tables import FigureTable, number, ratio

Figures = dict[str, Any]
MS, US = 1e3, 1e6
"""Milliseconds and microseconds in a second."""
RATIO = "Ratios are medians over rounds, with their quartiles."


def latency(figures: Figures) -> list[FigureTable]:
    """Return the tables of `latency.py`."""
    names = {
        "echo": "echo",
        "bare": "advice, bare stream",
        "next_lr": "advice, `next_lr`",
        "overlapped": "advice, `observe` and `lr` around 5 ms of work",
    }
    columns = ["", "p50 µs", "p90 µs", "p99 µs", "p50 / echo", "p99 / echo"]
    over_tcp = [[names[name], *_percentiles(figures[f"tcp/{name}"])] for name in names]
    local = {
        "torch_forward": "forward of the paper's network in torch, in process",
        "torch_cosine": "`CosineAnnealingLR.step()` of torch, in process",
    }
    over_tcp += [[local[name], *_percentiles(figures[f"local/{name}"])] for name in local]
    sockets = [
        [
            names[name],
            number(figures[f"tcp/{name}"]["p50_us"]),
            number(figures[f"unix/{name}"]["p50_us"]),
            ratio(figures[f"unix/{name}"]["tcp_ratio"]),
            ratio(figures[f"unix/{name}"]["p50_ratio"]),
        ]
        for name in names
    ]
    return [
        FigureTable("One stream, one run", columns, over_tcp, RATIO),
        FigureTable(
            "A unix socket", ["", "TCP, p50 µs", "unix, p50 µs", "unix / TCP", "p50 / echo, on unix"], sockets
        ),
    ]


def _percentiles(row: Figures) -> list[str]:
    levels = [number(row[f"p{level}_us"]) for level in (50, 90, 99)]
    return [*levels, ratio(row["p50_ratio"]), f"{row['p99_ratio']:.2f}"]


def stalled(figures: Figures) -> list[FigureTable]:
    """Return the table of `stalled.py`."""
    levels = [(case, level) for case in ("undisturbed", "stalled") for level in ("p50_us", "p99_us")]
    columns = ["", "p50 µs", "p99 µs", "p50 µs, stopped", "p99 µs, stopped", "added to p99, µs"]
    rows = [
        [f"`{call}`", *(number(row[case][level]) for case, level in levels), ratio(row["p99_added_us"])]
        for call, row in figures.items()
    ]
    note = (
        "A lagged loop with 1 ms of other work a step, in blocks of 500 steps, while the daemon runs and "
        "while its process is stopped. Medians over blocks; what is added, with its quartiles over rounds."
    )
    return [FigureTable("A daemon that is stopped", columns, rows, note)]


def kernels(figures: Figures) -> list[FigureTable]:
    """Return the table of `kernels.py`."""
    names = {
        "torch": "torch module",
        "paper": "`paper` kernel",
        "drift": "`drift` kernel",
        "answers": "`drift`, the whole answer",
    }
    columns = ["runs together", *names.values(), *(f"{name} / torch" for name in names if name != "torch")]
    rows = [
        [
            f"{int(runs):,}",
            *(number(row[name]["us_per_run"]) for name in names),
            *(f"{row[name]['ratio']['median']:.2f}" for name in names if name != "torch"),
        ]
        for runs, row in figures.items()
    ]
    note = (
        "µs a run a step, the mean over a horizon of 1,000 steps. The torch module is the paper's network "
        "alone, with one thread; the kernels do all that a step needs; the whole answer is what the daemon "
        "does between a message's arrays and its answer's."
    )
    return [FigureTable("A step in process", columns, rows, note)]


def adapting(figures: Figures) -> list[FigureTable]:
    """Return the tables of `adapting.py`."""
    names = {"torch": "PyTorch, the paper's network", "paper": "`paper`", "drift": "`drift`"}
    rows = [
        [title, number(figures["updates"][name]["us"]), ratio(figures["updates"][name]["ratio"])]
        for name, title in names.items()
    ]
    kinds = {
        "frozen": "without meta mode",
        "before": "in meta mode, no update made",
        "learning": f"an update every {figures['every']} steps",
    }
    steps = [
        [f"`{name}`, {title}", number(row[kind]["us_per_run"]), ratio(row[kind]["ratio"])]
        for name, row in figures["steps"].items()
        for kind, title in kinds.items()
    ]
    note = f"{figures['runs']} runs together; updates are not in it. {RATIO}"
    return [
        FigureTable("A meta update", ["", "µs", "/ PyTorch"], rows, RATIO),
        FigureTable("A step of runs in meta mode", ["", "µs a run a step", "/ without"], steps, note),
    ]


def signals(figures: Figures) -> list[FigureTable]:
    """Return the table of `signals.py`."""
    names = {"momentum": "SGD with momentum", "adamw": "AdamW"}
    rows = [
        [
            f"{row['parameters'] / 1e6:.1f} million parameters, {names[case.partition('/')[2]]}",
            number(row["ms"]),
            f"{row['own_ms']:.2f}",
            _percent(row["share"]),
            ratio(row["ratio"]),
        ]
        for case, row in figures["costs"].items()
    ]
    note = f"Means over steps of which one in {figures['every']} is measured. {RATIO}"
    columns = ["", "ms a step", "ms of signals a step", "signals / all else", "with signals / without"]
    return [FigureTable("Signals of the optimizer's steps", columns, rows, note)]


def _percent(share: Figures) -> str:
    median, low, high = (100 * share[name] for name in ("median", "low", "high"))
    return f"{median:.1f} % [{low:.1f}, {high:.1f}]"


def load(figures: Figures) -> list[FigureTable]:
    """Return the tables of `load.py`."""
    streams = figures["streams"]
    cpu, rates, waits = [], [], []
    for count, row in streams.items():
        daemon, echo, first = row["daemon"], row["echo"], f"{int(count):,}"
        spent = [number(side[key]) for key in ("server_us", "generator_us") for side in (daemon, echo)]
        cpu.append([first, *spent[:2], ratio(daemon["server_us_ratio"]), *spent[2:]])
        rates.append([first, number(daemon["rate"]), number(echo["rate"]), ratio(daemon["rate_ratio"])])
        taken = [number(side[f"{level}_us"] / MS) for level in ("p50", "p99") for side in (daemon, echo)]
        waits.append(
            [first, *taken[:2], ratio(daemon["p50_ratio"]), *taken[2:], ratio(daemon["p99_ratio"])],
        )
    note = f"Each stream sends an observation, waits for the answer and sends the next. {RATIO}"
    return [
        FigureTable(
            "Many streams: CPU µs a message",
            ["streams", "daemon", "echo", "daemon / echo", "generator, for the daemon", "for the echo"],
            cpu,
            note,
        ),
        FigureTable(
            "Many streams: messages per second", ["streams", "daemon", "echo", "daemon / echo"], rates
        ),
        FigureTable(
            "Many streams: ms from an observation to its answer",
            ["streams", "daemon, p50", "echo, p50", "p50 / echo", "daemon, p99", "echo, p99", "p99 / echo"],
            waits,
        ),
        _newcomers(figures["newcomers"]),
    ]


def _newcomers(figures: Figures) -> FigureTable:
    kinds = {"alone": "alone", "among_busy": f"while {figures['others']:,} others are busy"}
    rows = [
        [
            title,
            *(
                number(figures[kind][name][level] * MS)
                for name in ("daemon", "echo")
                for level in ("p50_s", "worst_s")
            ),
            ratio(figures[kind]["daemon"]["ratio"]),
        ]
        for kind, title in kinds.items()
    ]
    columns = ["", "daemon, p50", "daemon, worst", "echo, p50", "echo, worst", "p50 / echo"]
    note = (
        "From no connection to the first advice: connect, OpenRun, StreamAdvice. The echo opens no runs: "
        "an answer on a stream of its own stands for that call."
    )
    return FigureTable("A new stream: ms to its first advice", columns, rows, note)


def columns(figures: Figures) -> list[FigureTable]:
    """Return the tables of `columns.py`."""
    cases = {"in_process": "in process", "echo/1": "echo, 1", "echo/4": "echo, 4"}
    cases |= {f"daemon/{depth}": f"daemon, {depth}" for depth in (1, 2, 4)}
    rates = [
        [f"{int(entries):,}", *(number(row[name]["rate"] / 1e3) for name in cases)]
        for entries, row in figures.items()
    ]
    ratios = [
        [
            f"{int(entries):,}",
            *(
                ratio(row[f"daemon/{depth}"][kind])
                for kind in ("echo_ratio", "in_process_ratio")
                for depth in (1, 4)
            ),
            *(number(row[name]["server_us"]) for name in ("daemon/4", "echo/4", "in_process")),
        ]
        for entries, row in figures.items()
    ]
    sides = ("echo", "in process")
    titles = ["entries", *(f"daemon / {side}, {depth}" for side in sides for depth in (1, 4))]
    titles += [f"CPU µs an entry: {case}" for case in ("daemon, 4", "echo, 4", "in process")]
    note = "After the comma: messages on their way at once."
    return [
        FigureTable(
            "Thousands of entries per second, by entries in a message",
            ["entries", *cases.values()],
            rates,
            note,
        ),
        FigureTable("The daemon's entries per second against others'", titles, ratios, RATIO),
    ]


def ranks(figures: Figures) -> list[FigureTable]:
    """Return the table of `ranks.py`."""
    rows = [
        [
            f"{int(count):,}",
            *(
                cell
                for case in ("each", "one")
                for cell in (
                    number(row[f"daemon/{case}"]["step_us"] / MS),
                    number(row[f"echo/{case}"]["step_us"] / MS),
                    ratio(row[f"daemon/{case}"]["step_ratio"]),
                    ratio(row[f"daemon/{case}"]["server_ratio"]),
                )
            ),
        ]
        for count, row in figures.items()
    ]
    columns = ["ranks", "daemon", "echo", "daemon / echo", "server's CPU / echo's"]
    columns += ["one message: daemon", "echo", "daemon / echo", "server's CPU / echo's"]
    note = (
        "ms from the first report of a step to the answer that the last rank reads; a stream a rank, and "
        "then one message with all ranks. All streams are in one process, whose own work is in the time. "
        f"{RATIO}"
    )
    return [FigureTable("One run, many ranks", columns, rows, note)]


def live_runs(figures: Figures) -> list[FigureTable]:
    """Return the table of `live_runs.py`."""
    rows = [
        [
            f"{int(runs):,}",
            number(row["p50_us"]),
            ratio(row["alone_ratio"]),
            ratio(row["echo_ratio"]),
            number(row["rss"] / 2**20),
            *(f"{row[key]:,.0f}" if row["opened"] else "-" for key in ("rss_per_run", "rss_per_further_run")),
            number(row["open_s"] * US / row["opened"]) if row["opened"] else "-",
            number(row["observe_s"] * US / row["opened"] / figures["observations"]) if row["opened"] else "-",
        ]
        for runs, row in figures["runs"].items()
    ]
    titles = ["live runs", "advice, p50 µs", "p50 / with 1 run", "p50 / echo", "memory, MiB", "bytes a run"]
    titles += ["bytes a further run", "opening, µs a run", "observing, µs each"]
    note = (
        f"Before its first run the daemon has {number(figures['rss_at_start'] / 2**20)} MiB; bytes a run are "
        f"what came since, after {figures['observations']} observations of each. {RATIO}"
    )
    tables = [FigureTable("Live runs in one daemon", titles, rows, note)]
    if idle := figures.get("idle"):
        row = [
            f"{idle['count']:,}",
            *(f"{idle[key]:,.0f}" for key in ("live_bytes_per_run", "idle_bytes_per_run")),
        ]
        titles = [
            "runs",
            "bytes a run just after they were opened and observed",
            "once they left memory as idle",
        ]
        tables.append(FigureTable("Runs that leave memory", titles, [row]))
    return tables


def startup(figures: Figures) -> list[FigureTable]:
    """Return the tables of `startup.py`."""
    names = {
        "first": "`mlrs serve`, the first on a machine, to the first advice of a plain run",
        "first_rescued": "the same, to the first advice of a run with rescue, as `AdvisedLR` opens it",
        "daemon": "`mlrs serve`, later ones, to the first advice of a plain run",
        "rescued": "the same, to the first advice of a run with rescue",
        "bare": "bare `grpc.aio` server that imports NumPy, to its first answer",
        "imports": "Python, with what the daemon imports",
        "python": "Python",
    }
    rows = [
        [
            title,
            *(number(figures[name][key] * MS) for key in ("seconds", "slowest", "cpu_s")),
            ratio(figures[name]["ratio"]),
            ratio(figures[name]["cpu_ratio"]),
        ]
        for name, title in names.items()
    ]
    parts = {
        "before_kernels": "Python, imports, store, models",
        "kernels": "machine code (`kernels_ready`): compiled at the first start, loaded at later ones",
        "after_kernels": "to the first advice",
    }
    split = [
        [title]
        + [
            text
            for splits, start in (("first_split", "first"), ("split", "daemon"))
            for text in (
                number(figures[splits][part] * MS),
                f"{figures[splits][part] / figures[start]['seconds']:.0%}",
            )
        ]
        for part, title in parts.items()
    ]
    titles = ["", "median, ms", "slowest", "CPU, ms", "/ bare", "CPU / bare"]
    return [
        FigureTable("From the start of the process", titles, rows, RATIO),
        FigureTable(
            "What the daemon's start is spent on",
            ["", "first start, ms", "share", "later start, ms", "share"],
            split,
        ),
    ]


def processes(figures: Figures) -> list[FigureTable]:
    """Return the table of `processes.py`."""
    columns = [
        "",
        "messages/s",
        "two / one",
        "p50 ms",
        "server CPU µs a message",
        "cores of servers",
        "of generators",
    ]
    rows = []
    for name in ("daemon", "echo"):
        for count, row in figures[name].items():
            rows.append(
                [
                    f"{count} {name}{'s' * (count == 'two')}",
                    number(row["rate"]),
                    ratio(row["rate_ratio"]) if "rate_ratio" in row else "",
                    number(row["p50_us"] / MS),
                    number(row["server_us"]),
                    f"{row['servers_of_a_core']:.2f}",
                    f"{row['generators_of_a_core']:.2f}",
                ]
            )
    note = (
        f"{figures['streams']} streams on one daemon, and divided between two that share nothing, on "
        f"{figures['cores']} cores. {RATIO}"
    )
    return [FigureTable("One process and two", columns, rows, note)]


def meta_mode(figures: Figures) -> list[FigureTable]:
    """Return the tables of `meta_mode.py`."""
    others, sent = figures["others"], figures["gradients"]
    names = {
        "still": "stand still",
        "observing": "observe",
        "learning": "observe and learn",
    }
    rows = [
        [
            f"{others['runs']} others {title}",
            *(number(others["states"][state][f"p{level}_us"]) for level in (50, 90, 99)),
            ratio(others["states"][state]["still_ratio"]),
            ratio(others["states"][state]["observing_ratio"]),
        ]
        for state, title in names.items()
    ]
    per_s = f"{others['runs'] / others['period_s']:,.0f}"
    pace = f"They take {per_s} steps a second together, and make as many updates. {RATIO}"
    gigabytes = [[name, f"{sent['bytes_per_s'][name] / 1e9:.2f}"] for name in ("daemon", "echo")]
    growth = (
        f"The same for {sent['large_bytes'] / 2**30:.2g} GiB of each vector: the daemon's memory grew by "
        f"{sent['rss_growth'] / 2**20:.1f} MiB."
    )
    return [
        FigureTable(
            "Advice of one run",
            ["while", "p50 µs", "p90 µs", "p99 µs", "p50 / still", "/ observe"],
            rows,
            pace,
        ),
        FigureTable(
            "Two gradients in pieces of 512 KiB",
            ["", "GB/s"],
            [*gigabytes, ["daemon / echo", ratio(sent["echo_ratio"])]],
            growth,
        ),
    ]


def loop_lag(figures: Figures) -> list[FigureTable]:
    """Return the table of `loop_lag.py`."""
    rows = [
        [
            name,
            *(number(row[who][level] * MS) for level in ("p99_s", "worst_s") for who in ("daemon", "alone")),
            *(number(row[f"{level}_ratio"]) for level in ("p99", "worst")),
        ]
        for name, row in figures.items()
    ]
    columns = ["while", "p99", "p99, left alone", "worst", "worst, left alone", "p99 ratio", "worst ratio"]
    note = (
        "How late a task on the daemon's event loop wakes that sleeps for 2 ms at a time, in ms, against "
        "that of another daemon at the same time; both advise one run."
    )
    return [FigureTable("The event loop's lag", columns, rows, note)]


def records(figures: Figures) -> list[FigureTable]:
    """Return the tables of `records.py`."""
    merged, flushed = "the record in large pieces", "the record in pieces of 10 steps"
    steps, runs = f"{figures['steps']:,}", f"{figures['runs']:,}"
    calls = {
        "get": "`GetRun`, the baseline",
        "watch merged": f"`WatchRun`, {steps} steps, {merged}",
        "watch flushed": f"the same, {flushed}",
        "summary merged": f"`SummarizeRecord` of {steps} steps in 1,000 buckets, {merged}",
        "summary flushed": f"the same, {flushed}",
        "new merged": "`SummarizeRecord` of what is new",
        "new flushed": f"the same, {flushed}",
        "sample 50 short": "`SampleRecords` of 50 short runs",
        "sample merged": f"`SampleRecords` of one run of {steps} steps, {merged}",
        "sample flushed": f"the same, {flushed}",
        "list 50 recent": f"`ListRuns`, 50 of {runs} runs, the newest first",
        "list 1000": f"`ListRuns`, 1,000 of {runs} runs, by id",
    }
    rows = [
        [
            title,
            number(row["seconds"] * MS),
            ratio(row["get_ratio"]),
            ratio(row["watch_ratio"]) if "watch_ratio" in row else "",
            f"{row['bytes']:,}",
            f"{row['points']:,}",
        ]
        for name, title in calls.items()
        for row in [figures["calls"][name]]
    ]
    columns = ["call", "ms", "to `GetRun`", "to `WatchRun`", "bytes", "points a series"]
    asked = {
        "nothing": "nothing",
        "whole this": "whole records, without a pause",
        "whole other": "the same, from another daemon",
        "new this": "what is new of ten runs, once a second",
        "new other": "the same, from another daemon",
    }
    advice = [
        [
            title,
            *(number(figures["advice"][name][f"p{level}_us"]) for level in (50, 90, 99)),
            *(ratio(figures["advice"][name][key]) for key in ("quiet_ratio", "other_ratio")),
        ]
        for name, title in asked.items()
    ]
    against = ["another process reads", "p50", "p90", "p99", "p50 to nothing", "p50 to another daemon"]
    return [
        FigureTable("Calls", columns, rows, "Times of a client on the same machine; medians."),
        FigureTable("Advice meanwhile", against, advice, "One run's steps, in µs."),
    ]


TABLES: dict[str, Callable[[Figures], list[FigureTable]]] = {
    "latency": latency,
    "stalled": stalled,
    "kernels": kernels,
    "adapting": adapting,
    "signals": signals,
    "load": load,
    "columns": columns,
    "live_runs": live_runs,
    "ranks": ranks,
    "processes": processes,
    "startup": startup,
    "meta_mode": meta_mode,
    "loop_lag": loop_lag,
    "records": records,
    "page_load": dashboard.page_load,
}
"""By benchmark, in the page's order."""
