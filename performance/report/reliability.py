"""The page of what the tests under fire measured, from the files that they saved.

    python -m performance.report.reliability

takes what the long tests have saved in `performance/results/reliability/`, which git ignores, into
`docs/reliability/`, and writes the page anew. Nothing else writes there: a test changes no committed file.
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
    """Tests that are all of it, in `make test`: what they show is yes or no."""


EVERY_BIT = "every LR bit-identical to an undisturbed run, no observation lost"
ROWS = (
    ReliabilityRow(
        "`kill -9` of the daemon",
        f"200 random moments: {EVERY_BIT}",
        ("kills_daemon_killed",),
        "Three processes of four training loops each train one run after the other, models and schedules, "
        "strange losses among them, while the daemon is killed at random moments, some of them during its "
        "start. What loops saw and what the daemon recorded is compared, bit by bit, with runs computed "
        "without a daemon.",
    ),
    ReliabilityRow(
        "`kill -9` at failpoints",
        EVERY_BIT,
        ("kills_failpoints",),
        "The same; the daemon kills itself before, in and after its transactions, as it creates and as it "
        "finishes runs (`server/mlrs_server/failpoints.py`).",
    ),
    ReliabilityRow(
        "`kill -9` of clients, and of both",
        "the same",
        ("kills_clients_killed", "kills_both_killed"),
        "Training processes are killed and started again, and both sides in turns. A run resumes no earlier "
        "than at the step after the last that was promised to survive.",
    ),
    ReliabilityRow(
        "a client that exits at any moment",
        "2,000 exits: no hang",
        ("exits",),
        "Processes end in the middle of everything, by an exception or at the end of their script, with a "
        "daemon, without one, and with one that is stopped.",
    ),
    ReliabilityRow(
        "Ctrl-C at any moment",
        "50,000 interrupts: no hang, every LR as without",
        ("interrupts",),
        "A loop whose streams break is interrupted between any two lines of Python, and goes on.",
    ),
    ReliabilityRow(
        "a proxy that breaks connections",
        "10,000 faults: the same; no call outlives its deadline by 100 ms",
        ("proxy",),
        "Each of 18 training loops has a connection of its own through a proxy that closes, resets, cuts, "
        "delays, throttles, half-opens and swallows it, delivers an old connection's bytes after a new one "
        "is in use, and repeats bytes. Each training process also measures for how long the machine did not "
        "let it run; the figure is without that, and the next one with it.",
    ),
    ReliabilityRow(
        "two replicas on PostgreSQL",
        "takeover within the lease + 1 s; a woken owner writes nothing; LRs bit-identical",
        ("replicas",),
        "The owner is killed, stopped past its lease and woken, and cut off.",
    ),
    ReliabilityRow(
        "rolling restart under load",
        "0 held, 0 fallback, 0 errors seen by a training loop",
        ("rolling_restart",),
        "Replicas are restarted one after the other while runs go on.",
    ),
    ReliabilityRow(
        "power loss",
        "never less than the `durable_step` that was promised",
        (),
        "The SQLite log is cut off at every frame, and inside of each by turns, and opened again.",
        quick="tests/server/storage/test_store_power.py",
    ),
    ReliabilityRow(
        "rewind to any step",
        "identical LRs; 50 ms per 1,000 steps replayed",
        ("rewind",),
        "A job goes back to a checkpoint, as `torchrun` does.",
    ),
    ReliabilityRow(
        "a store that fails",
        "advice goes on, health says so, nothing is lost once it heals; or a refusal says what to do",
        (),
        "Full disk, a file cut off, read-only, locked; PostgreSQL restarted, stopped, gone.",
        quick="tests/server/storage/test_store_faults.py",
    ),
    ReliabilityRow(
        "lifecycles against a dictionary",
        "5,000 steps, no divergence",
        ("lifecycles",),
        "hypothesis creates, resumes, observes, repeats, contradicts, skips ahead, streams, finishes, "
        "rewinds, deletes, lists and follows runs of a daemon over the wire, and kills it; a plain "
        "dictionary says what must come of it.",
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
        "Mutated model files, settings, store blobs (half of them with a right checksum) and messages in "
        "process, and random bytes, mutated messages and extreme values at every RPC of a daemon. Each is "
        "answered, or refused with a reason; `INTERNAL` and `UNKNOWN` are failures.",
    ),
    ReliabilityRow(
        "strange losses",
        "a defined outcome each",
        ("losses",),
        "NaN, infinities, 0, negative, subnormal and gigantic losses as the first and in the middle of a "
        "run, under each kind of policy; the table below has the outcomes.",
    ),
    ReliabilityRow(
        "a clock that is set",
        "nothing changes",
        ("clocks",),
        "The wall clock of the daemon and of a training process jumps by seconds and by years, back and "
        "forward, while runs go on, are stored, go idle and come back.",
    ),
    ReliabilityRow(
        "tenant isolation",
        "all refused, as if there were nothing",
        (),
        "Every RPC with another tenant's ids, and with no token, an expired, a revoked one, a wrong "
        "certificate.",
        quick="tests/server/auth",
    ),
    ReliabilityRow(
        "clients that take without giving",
        "bounded memory; others' p99 at most doubled",
        ("abuse_slow_readers", "abuse_half_open", "abuse_streams", "abuse_oversize"),
        "Streams that send and never read; connections that never speak; a connection that opens streams "
        "without end; messages of 64 MiB, plain and compressed to next to nothing. A training loop beside "
        "them, in a process of its own, is measured before and meanwhile, on the same cores as the abuse.",
    ),
    ReliabilityRow(
        "soak",
        "30 min, 500 runs at once: memory and open files flat, 0 errors",
        ("soak",),
        "500 runs come and go over connections that break, under a daemon that is killed three times in the "
        "first third. Memory and files are compared over the second half.",
    ),
)


def publish() -> list[str]:
    """Take what tests have saved into the docs; return the names of the files."""
    files = sorted(SAVED.glob("*.json"))
    for file in files:
        shutil.copy(file, FOLDER)
    return [file.stem for file in files]


def load(name: str) -> dict[str, Any] | None:
    """Return what a test saved; `None` if it has not run."""
    file = FOLDER / f"{name}.json"
    return json.loads(file.read_text(encoding="utf-8")) if file.exists() else None


def figures(saved: dict[str, Any]) -> str:
    """Return a test's figures as words; those that are lists and tables are left out."""
    return ", ".join(
        f"{name.replace('_', ' ')} {value:,}" if isinstance(value, (int, float)) else f"{name} {value}"
        for name, value in saved["figures"].items()
        if not isinstance(value, (dict, list))
    )


def line(row: ReliabilityRow) -> str:
    """Return a line of the table."""
    parts = [(name, saved) for name in row.files if (saved := load(name))]
    if row.quick:
        return f"| {row.title} | {row.target} | held by `make test` | | `pytest {row.quick}` |"
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
        "What the tests under fire measured. `make test` runs a short version of each, `make test-slow` the "
        "long ones, which save their figures in `performance/results/reliability/`; `python -m "
        "performance.report.reliability` takes them into `docs/reliability/` and writes this page of them. "
        "Counts and bits carry from machine to machine; latencies were measured on two shared cores.\n"
        "\n"
        "| test | target | measured | date | command |\n"
        "|---|---|---|---|---|\n"
    )
    table = "\n".join(map(line, ROWS))
    does = "\n".join(f"- **{row.title}.** {row.does}" for row in ROWS)
    return (
        f"{intro}{table}\n\n## What each test does\n\n{does}\n\n## Strange losses\n\n"
        "A loss that is not finite is held: the state does not move, the last learning rate stays (before "
        "any finite loss that is `min_lr`, or 0). Any other is taken as it is and gets a finite, positive "
        "learning rate. Reason and learning rate by policy, the first line for comparison:\n"
        "\n"
        f"{outcomes()}"
    )


if __name__ == "__main__":
    taken = publish()
    PAGE.write_text(page(), encoding="utf-8")
    print(f"{PAGE} written; new figures: {', '.join(taken) or 'none'}")
