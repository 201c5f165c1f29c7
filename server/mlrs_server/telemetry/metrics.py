"""Metrics for Prometheus, read from existing counters at each request."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

import structlog
from prometheus_client import CollectorRegistry, make_wsgi_app, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric, SummaryMetricFamily
from prometheus_client.registry import Collector

from mlrs_core.adapting import MetaOutcome
from mlrs_server.auth.authenticator import Authenticator
from mlrs_server.errors import AdvisorError, Reason
from mlrs_server.live.live_runs import LiveRuns
from mlrs_server.ranks.reports import RankReducer
from mlrs_server.telemetry.counts import AdviceCounts
from mlrs_server.telemetry.health import StoreHealth

log = structlog.get_logger()


@dataclass(frozen=True, eq=False)
class DaemonCollector(Collector):
    """Collects a daemon's metrics. It runs on a thread of its own, and only reads numbers."""

    counts: AdviceCounts
    live: LiveRuns
    authenticator: Authenticator
    refusals: Counter[Reason | None]
    """The number of failed calls, by reason; `None` is a defect."""
    health: StoreHealth
    rank_reducer: RankReducer

    def collect(self) -> Iterable[Metric]:
        """Return every metric with its current value."""
        yield from self._advice()
        yield from self._store()
        yield _gauge("mlrs_runs_live", "Runs in memory", self.live.count())
        yield _gauge("mlrs_streams", "Open streams of the service", self.authenticator.streams)
        yield _gauge(
            "mlrs_pending_barriers",
            "Steps that some ranks have reported, and not enough",
            self.rank_reducer.pending_barriers,
        )
        yield _gauge(
            "mlrs_ranks_waiting",
            "Ranks that wait at pending barriers for the others",
            self.rank_reducer.ranks_waiting,
        )
        yield _gauge("mlrs_resident_memory_bytes", "Memory of the process in RAM", resident_bytes())

    def _advice(self) -> Iterator[Metric]:
        advice = CounterMetricFamily("mlrs_advice", "Answers given", labels=["reason"])
        for reason, count in self.counts.by_reason().items():
            advice.add_metric([reason.name.lower()], count)
        yield advice
        refused = CounterMetricFamily("mlrs_refusals", "Entries and calls that failed", labels=["reason"])
        calls, entries = dict(self.refusals), dict(self.counts.refused)
        for why in (*Reason, None):
            count = calls.get(why, 0) + (0 if why is None else entries.get(why, 0))
            refused.add_metric(["internal" if why is None else why.name.lower()], count)
        yield refused

    def _store(self) -> Iterator[Metric]:
        figures = self.live.journal.figures
        yield _gauge("mlrs_unflushed_answers", "Answers that are not stored yet", self.live.journal.unflushed)
        yield SummaryMetricFamily(
            "mlrs_flush_seconds", "Flushes to the store", count_value=figures.count, sum_value=figures.seconds
        )
        updates = CounterMetricFamily("mlrs_meta_updates", "Meta updates, by outcome", labels=["outcome"])
        for outcome in MetaOutcome:
            updates.add_metric([outcome.name.lower()], self.counts.updates[outcome])
        yield updates
        yield CounterMetricFamily("mlrs_flush_failures", "Flushes that failed", value=figures.failures)
        yield _gauge(
            "mlrs_seconds_since_durable_flush",
            "Seconds since the last flush that stored something; relevant while answers wait",
            time.monotonic() - figures.last,
        )
        yield _gauge(
            "mlrs_store_up", "0 while flushes fail, or renewals of the lease", int(self.health.works)
        )


def resident_bytes() -> int:
    """Return the resident memory of this process in bytes; 0 if the system does not report it."""
    try:
        return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * os.sysconf(
            "SC_PAGE_SIZE"
        )
    except (OSError, ValueError, IndexError):
        return 0


@contextmanager
def serving_metrics(collector: Collector, listen: str | None) -> Iterator[str | None]:
    """Serve metrics over HTTP on a background thread, unless `listen` is `None`; yield the address.

    Raises:
        AdvisorError: the address cannot be used.
    """
    if listen is None:
        yield None
        return
    host, _, port = listen.rpartition(":")
    registry = CollectorRegistry()
    registry.register(collector)
    try:
        server, thread = start_http_server(int(port), host.strip("[]"), registry)
    except OSError as error:
        raise AdvisorError(
            Reason.INVALID_FIELD,
            f"metrics: cannot listen on {listen}: {error.strerror or error}; choose another with --metrics",
            field="metrics",
        ) from error
    server.set_app(_only_metrics(make_wsgi_app(registry)))  # the library's application answers at every path
    log.info("serving_metrics", address=f"{host}:{server.server_port}")
    try:
        yield f"{host}:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _only_metrics(app: WSGIApplication) -> WSGIApplication:
    """Return an application that serves another one at /metrics, and answers 404 elsewhere."""

    def answer(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        if environ.get("PATH_INFO") == "/metrics":
            return app(environ, start_response)
        start_response("404 Not Found", [("Content-Type", "text/plain; charset=utf-8")])
        return [b"metrics are at /metrics\n"]

    return answer


def _gauge(name: str, text: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, text, value=value)
