"""`mlrs status`: how a daemon is, for people and scripts."""

from __future__ import annotations

import datetime as dt
import json
import math
from collections.abc import Iterator, Mapping

import click
from rich.table import Column, Table
from rich.text import Text

from mlrs.types import DaemonInfo, DaemonStatus, LatencyHistogram, StoreStatus
from mlrs_cli.root import DaemonAddress, connected, daemon_options, print_table
from mlrs_cli.text import shown
from mlrs_cli.values import ago, or_dash, plain


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON, with every digit.")
@daemon_options
def status(daemon: DaemonAddress, *, as_json: bool) -> None:
    """Show how a daemon is: its load, its store, and the replicas beside it.

    Counts are of the daemon that answers, since it began to serve. A token of the role read suffices. Ask
    `mlrs health` for a status that probes and scripts can go by.

    \b
      mlrs status
      mlrs status --json | jq .refusals
    """
    with connected(daemon) as advisor:
        info, now = advisor.daemon(), advisor.status()
    if as_json:
        click.echo(json.dumps({**plain(info), **plain(now)}, indent=2))
        return
    table = Table("what", Column("now", overflow="fold"), show_header=False)
    for name, value in _facts(info, now):
        table.add_row(name, Text(shown(value)))
    print_table(table)
    print_table(_replicas(now))


def _facts(info: DaemonInfo, now: DaemonStatus) -> Iterator[tuple[str, str]]:
    """Yield what is known of a daemon in words, by subject."""
    yield (
        "daemon",
        f"mlrs {info.version}, began {ago(info.start_time)}, {now.resident_memory_bytes / 1e6:.0f} MB",
    )
    yield (
        "runs",
        f"{now.live_runs} in memory; streams of observations: {now.streams}, of records: {now.followers}",
    )
    yield "answers", _counts(now.answers)
    yield "answered", _latency(now.latency)
    yield "refusals", _counts(now.refusals)
    if now.pending_barriers:
        yield "ranks", f"{now.ranks_waiting} wait for others, at {now.pending_barriers} steps"
    yield "store", _store(now.store)


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {reason}" for reason, count in counts.items()) or "none"


def _latency(latency: LatencyHistogram) -> str:
    """Return the median and the 99th percentile of what messages took, as far as the buckets tell."""
    bounds = {"half": latency.bound_of(0.5), "99 %": latency.bound_of(0.99)}
    told = [f"{name} {_within(bound, latency)}" for name, bound in bounds.items() if bound is not None]
    return ", ".join(told) or "nothing yet"


def _within(bound: float, latency: LatencyHistogram) -> str:
    if math.isinf(bound):
        return f"in more than {max(latency.upper_bounds_s, default=0.0):g} s"
    return f"within {bound * 1e3:g} ms"


def _store(store: StoreStatus) -> str:
    works = "works" if store.works else "FAILS; the daemon's log says why"
    last = "nothing stored yet" if store.since_flush_s is None else f"stored {store.since_flush_s:.1f} s ago"
    mean_ms = 1e3 * store.flush_time_s / max(store.flushes, 1)
    flushes = f"{store.flushes} flushes of {mean_ms:.1f} ms, {store.flush_failures} failed"
    return f"{store.engine}, {works}; {store.unstored_answers} answers not stored; {last}; {flushes}"


def _replicas(now: DaemonStatus) -> Table:
    """Return a table of the replicas; the one that answers has a star."""
    table = Table(Column("replica", overflow="fold"), "shards", "your unfinished runs", "lease")
    for replica in now.replicas:
        lease = "-" if replica.lease_until is None else _left(replica.lease_until - now.time)
        address = f"{shown(replica.address)}{' *' if replica.answering else ''}"
        table.add_row(Text(address), str(replica.shards), or_dash(replica.unfinished_runs, "d"), lease)
    return table


def _left(left: dt.timedelta) -> str:
    seconds = left.total_seconds()
    return f"{seconds:.1f} s left" if seconds > 0 else "expired"
