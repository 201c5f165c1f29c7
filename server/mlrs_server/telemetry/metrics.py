"""Metrics for Prometheus, read from the figures of the daemon at each request."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import accumulate
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

import structlog
from prometheus_client import CollectorRegistry, make_wsgi_app, start_http_server
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
    SummaryMetricFamily,
)
from prometheus_client.registry import Collector

from mlrs_core.adapting import MetaOutcome
from mlrs_server.errors import AdvisorError, Reason
from mlrs_server.telemetry.figures import DaemonFigures, resident_bytes
from mlrs_server.telemetry.latency import BOUNDS_S

log = structlog.get_logger()


@dataclass(frozen=True, eq=False)
class DaemonCollector(Collector):
    """Collects a daemon's metrics. It runs on a thread of its own, and only reads numbers."""

    figures: DaemonFigures

    def collect(self) -> Iterable[Metric]:
        """Return every metric with its current value."""
        figures = self.figures
        yield from self._advice()
        yield from self._store()
        yield _gauge("mlrs_runs_live", "Runs in memory", figures.live_runs)
        yield _gauge("mlrs_streams", "Open streams", figures.open_streams())
        yield _gauge(
            "mlrs_pending_barriers",
            "Runs of which some ranks have reported their loss of the next step, not enough for an answer",
            figures.rank_reducer.pending_barriers,
        )
        yield _gauge(
            "mlrs_ranks_waiting",
            "Ranks that wait for the others; stays up if a rank is missing or slower than the others",
            figures.rank_reducer.ranks_waiting,
        )
        yield _gauge("mlrs_resident_memory_bytes", "Resident memory of the daemon", resident_bytes())

    def _advice(self) -> Iterator[Metric]:
        yield _counter(
            "mlrs_advice",
            "Answers, by reason; replayed: asked again; held: the loss was not finite",
            "reason",
            self.figures.answers(),
        )
        yield _counter(
            "mlrs_refusals",
            "Calls and observations that failed, by reason; internal is a defect of mlrs",
            "reason",
            self.figures.refusals(),
        )
        latency = self.figures.latency
        bounds = (*map(str, BOUNDS_S), "+Inf")
        yield HistogramMetricFamily(
            "mlrs_answer_seconds",
            "Messages of observations, from arrival to answer, but those of ranks, which wait for each other",
            buckets=list(zip(bounds, accumulate(latency.counts), strict=True)),
            sum_value=latency.sum_s,
        )

    def _store(self) -> Iterator[Metric]:
        flushes, updates = self.figures.flushes, self.figures.counts.updates
        yield _gauge("mlrs_unflushed_answers", "Answers that wait to be stored", self.figures.unflushed)
        yield SummaryMetricFamily(
            "mlrs_flush_seconds",
            "Flushes to the store, and their time",
            count_value=flushes.count,
            sum_value=flushes.seconds,
        )
        by_outcome = {outcome.name.lower(): updates[outcome] for outcome in MetaOutcome}
        yield _counter("mlrs_meta_updates", "Meta updates, by their outcome", "outcome", by_outcome)
        yield CounterMetricFamily("mlrs_flush_failures", "Flushes that failed", value=flushes.failures)
        yield _gauge(
            "mlrs_seconds_since_durable_flush",
            "Seconds since the last flush that worked; rises also when there is nothing to store",
            self.figures.since_flush_s(),
        )
        yield _gauge(
            "mlrs_store_up",
            "0 while flushes fail, or renewals of the lease",
            int(self.figures.health.works),
        )


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


def _counter(name: str, text: str, label: str, counts: Mapping[str, int]) -> CounterMetricFamily:
    """Return a counter with a value for each value of its label."""
    family = CounterMetricFamily(name, text, labels=[label])
    for value, count in counts.items():
        family.add_metric([value], count)
    return family
