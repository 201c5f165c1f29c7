"""The reliability page: what the failure tests measured, from the files that they saved.

    python -m performance.report.reliability

copies what the long tests have saved in `performance/results/reliability/`, which git ignores, to
`docs/reliability/`, and writes the page again. Nothing else writes there: a test changes no committed file.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

DOCS = Path(__file__).parents[2] / "docs"
PAGE, FOLDER = DOCS / "reliability.md", DOCS / "reliability"
SAVED = Path(__file__).parents[1] / "results" / "reliability"
"""Where tests save what they measured."""


@dataclass(frozen=True)
class ReliabilityRow:
    """A line of the table: a test, its target, and the files with its figures."""

    title: str
    target: str
    files: tuple[str, ...]
    does: str
    """What the test does."""
    quick: str = ""
    """The tests of `make test` that measure it completely: they pass or fail, and save no figures."""


EVERY_BIT = "every LR bit-identical to an undisturbed run, no observation lost"
ROWS = (
    ReliabilityRow(
        "`kill -9` of the daemon",
        f"200 random moments: {EVERY_BIT}",
        ("kills_daemon_killed",),
        "Three processes with four training loops each train one run after the other, with models and "
        "schedules, and with some unusual losses. Meanwhile the daemon is killed at random moments, also "
        "during its start. The learning rates that the loops got and the records of the daemon are compared, "
        "bit by bit, with runs computed without a daemon.",
    ),
    ReliabilityRow(
        "`kill -9` at failpoints",
        EVERY_BIT,
        ("kills_failpoints",),
        "The same, but the daemon kills itself before, in and after its transactions, and while it creates "
        "and finishes runs (`server/mlrs_server/failpoints.py`).",
    ),
    ReliabilityRow(
        "`kill -9` of clients, and of both",
        EVERY_BIT,
        ("kills_clients_killed", "kills_both_killed"),
        "Training processes are killed and started again; in the second test, the daemon and the training "
        "processes in alternation. A run must continue at or after the first step that was not durable.",
    ),
    ReliabilityRow(
        "a client that exits at any moment",
        "2,000 exits: no hang",
        ("exits",),
        "Processes end at any moment, by an exception or at the end of their script, with a daemon, without "
        "one, and with one that is stopped.",
    ),
    ReliabilityRow(
        "Ctrl-C at any moment",
        "50,000 interrupts: no hang, every LR as without interrupts",
        ("interrupts",),
        "A training loop whose streams break is interrupted between any two lines of Python, and continues.",
    ),
    ReliabilityRow(
        "a proxy that breaks connections",
        f"10,000 faults: {EVERY_BIT}; no call outlives its deadline by 100 ms",
        ("proxy",),
        "Each of 18 training loops has its own connection through a proxy that closes, resets, cuts, delays, "
        "throttles, half-opens and drops it, delivers bytes of an old connection when a new one is in use, "
        "and repeats bytes. Each training process also measures for how long the machine did not let it run. "
        "The first figure for late calls leaves this time out, the second one includes it.",
    ),
    ReliabilityRow(
        "two replicas on PostgreSQL",
        "takeover within the lease + 1 s; an owner that continues after its lease writes nothing; LRs "
        "bit-identical",
        ("replicas",),
        "The owner is killed; paused for longer than its lease and continued; cut off from the database.",
    ),
    ReliabilityRow(
        "rolling restart under load",
        "no training loop sees a held step, a fallback or an error",
        ("rolling_restart",),
        "Replicas are restarted one after the other while runs are in training.",
    ),
    ReliabilityRow(
        "power loss",
        "the store never has less than the `durable_step` that clients were sent",
        (),
        "The SQLite log is truncated after every frame and inside frames, and the store is opened again.",
        quick="tests/server/storage/test_store_power.py",
    ),
    ReliabilityRow(
        "rewind to any step",
        "identical LRs; 50 ms per 1,000 steps replayed",
        ("rewind",),
        "A job goes back to a checkpoint, as a restart by `torchrun` does.",
    ),
    ReliabilityRow(
        "a store that fails",
        "advice continues, health reports it, nothing is lost when the store works again; or a refusal "
        "says what to do",
        (),
        "A full disk; a file that is truncated, read-only or locked; PostgreSQL restarted, stopped or gone.",
        quick="tests/server/storage/test_store_faults.py",
    ),
    ReliabilityRow(
        "lifecycles against a dictionary",
        "5,000 steps, no divergence",
        ("lifecycles",),
        "hypothesis creates, resumes, observes, streams, finishes, rewinds, deletes, lists and follows "
        "runs of a daemon over gRPC, repeats steps, contradicts them, skips some, and kills the daemon. A "
        "model of the daemon, a plain dictionary, says what each call must return.",
    ),
    ReliabilityRow(
        "fuzz",
        "1,000,000 inputs: no crash, no hang, memory flat",
        (
            "fuzz_models",
            "fuzz_configs",
            "fuzz_records",
            "fuzz_snapshots",
            "fuzz_run_configs",
            "fuzz_messages",
            "fuzz_wire",
        ),
        "In process: mutated model files, settings, store blobs (half of them with a correct checksum) and "
        "messages. At every RPC of a daemon: random bytes, mutated messages and extreme values. Each must be "
        "answered, or refused with a reason; `INTERNAL` and `UNKNOWN` count as failures.",
    ),
    ReliabilityRow(
        "unusual losses",
        "a defined outcome for each",
        ("losses",),
        "NaN, infinite, zero, negative, subnormal and huge losses, as the first loss and in the middle of a "
        "run, under each kind of policy. The table below has the outcomes.",
    ),
    ReliabilityRow(
        "a clock that jumps",
        "nothing changes",
        ("clocks",),
        "The wall clock of the daemon and of a training process jumps by seconds and by years, back and "
        "forward, while runs are in training, are stored, become idle and are used again.",
    ),
    ReliabilityRow(
        "tenant isolation",
        "every call is refused as if the run or model did not exist",
        (),
        "Every RPC with another tenant's ids; with no token, an expired or a revoked one; with a wrong "
        "certificate.",
        quick="tests/server/auth",
    ),
    ReliabilityRow(
        "clients that misuse the daemon",
        "bounded memory; p99 latency of other clients at most doubled",
        ("abuse_slow_readers", "abuse_half_open", "abuse_streams", "abuse_oversize"),
        "Streams that send and never read; connections that send nothing; a connection that opens more and "
        "more streams; messages of 64 MiB, plain and compressed to very few bytes. The latency of a training "
        "loop in a separate process is measured before and meanwhile, on the same cores.",
    ),
    ReliabilityRow(
        "soak",
        "30 min, 500 runs at once: memory and open files flat, 0 errors",
        ("soak",),
        "500 runs at a time are opened, trained and finished over connections that break; the daemon is "
        "killed three times in the first third. Memory and open files are compared over the second half.",
    ),
)


def publish() -> list[str]:
    """Copy what tests have saved to the docs; return the names of the files."""
    files = sorted(SAVED.glob("*.json"))
    for file in files:
        shutil.copy(file, FOLDER)
    return [file.stem for file in files]


def load(name: str) -> dict[str, Any] | None:
    """Return what a test saved; `None` if it has not run."""
    file = FOLDER / f"{name}.json"
    return json.loads(file.read_text(encoding="utf-8")) if file.exists() else None


def figures(saved: dict[str, Any]) -> str:
    """Return a test's figures as text, without lists and tables."""
    return ", ".join(
        f"{name.replace('_', ' ')} {value:,}" if isinstance(value, (int, float)) else f"{name} {value}"
        for name, value in saved["figures"].items()
        if not isinstance(value, (dict, list))
    )


def line(row: ReliabilityRow) -> str:
    """Return a line of the table."""
    parts = [(name, saved) for name in row.files if (saved := load(name))]
    if row.quick:
        return f"| {row.title} | {row.target} | checked by `make test` | | `pytest {row.quick}` |"
    if not parts:
        return f"| {row.title} | {row.target} | not measured yet | | |"
    several = len(row.files) > 1
    measured = "<br>".join((f"*{name}*: " if several else "") + figures(saved) for name, saved in parts)
    dates = ", ".join(sorted({saved["date"] for _, saved in parts}))
    commands = "<br>".join(f"`{command}`" for command in sorted({saved["command"] for _, saved in parts}))
    return f"| {row.title} | {row.target} | {measured} | {dates} | {commands} |"


def outcomes() -> str:
    """Return the table of strange losses."""
    saved = load("losses")
    if saved is None:
        return "Not measured yet.\n"
    table = saved["figures"]["outcomes"]
    policies = list(next(iter(table.values())))
    lines = [f"| loss at step 10 | {' | '.join(policies)} |", "|---" * (len(policies) + 1) + "|"]
    for loss, by_policy in table.items():
        cells = [f"{by_policy[policy][0]}, {by_policy[policy][1]:.6g}" for policy in policies]
        lines.append(f"| {loss} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def page() -> str:
    """Return the page."""
    intro = (
        "# Reliability\n"
        "\n"
        "What the failure tests measured. `make test` runs a short version of each test. `make test-slow` "
        "runs the long versions, which save their figures in `performance/results/reliability/`; then "
        "`python -m performance.report.reliability` copies them to `docs/reliability/` and writes this "
        "page. Latencies were measured on two shared cores; the other figures do not depend on the machine.\n"
        "\n"
        "| test | target | measured | date | command |\n"
        "|---|---|---|---|---|\n"
    )
    table = "\n".join(map(line, ROWS))
    does = "\n".join(f"- **{row.title}.** {row.does}" for row in ROWS)
    return (
        f"{intro}{table}\n\n## What each test does\n\n{does}\n\n## Unusual losses\n\n"
        "A loss that is not finite is held: the state does not move, and the last learning rate stays "
        "(before the first finite loss it is `min_lr`, or 0). Every other loss is used as it is and gets "
        "a finite, positive learning rate. The table has the reason and the learning rate of each policy; "
        "the first line is for comparison:\n"
        "\n"
        f"{outcomes()}"
    )


if __name__ == "__main__":
    taken = publish()
    PAGE.write_text(page(), encoding="utf-8")
    print(f"{PAGE} written; new figures: {', '.join(taken) or 'none'}")
