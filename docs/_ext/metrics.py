"""The directive `metrics`: what the daemon offers to Prometheus, from its collector."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

from docutils import nodes
from prometheus_client.core import Metric
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective
from sphinx.util.typing import ExtensionMetadata

from mlrs_server.errors import Reason
from mlrs_server.live.journal import FlushFigures
from mlrs_server.runs.watchers import Watchers
from mlrs_server.telemetry.counts import AdviceCounts
from mlrs_server.telemetry.figures import DaemonFigures
from mlrs_server.telemetry.health import StoreHealth
from mlrs_server.telemetry.metrics import DaemonCollector


def metrics() -> list[Metric]:
    """Return the metrics of a daemon that has done nothing yet."""
    live: Any = SimpleNamespace(journal=SimpleNamespace(figures=FlushFigures(), unflushed=0), count=int)
    ranks: Any = SimpleNamespace(pending_barriers=0, ranks_waiting=0)
    figures = DaemonFigures(
        counts=AdviceCounts(),
        refused_calls=Counter[Reason | None](),
        live=live,
        watchers=Watchers(),
        rank_reducer=ranks,
        health=StoreHealth(),
        engine_name="sqlite",
        open_streams=int,
        advice_streams=int,
    )
    return list(DaemonCollector(figures).collect())


def sample_names() -> set[str]:
    """Return the names of all samples of a daemon's metrics."""
    return {sample.name for metric in metrics() for sample in metric.samples}


def table() -> Iterator[str]:
    """Yield the lines of a table of Markdown."""
    yield "| metric | type | |"
    yield "|---|---|---|"
    for metric in sorted(metrics(), key=lambda metric: metric.name):
        names = dict.fromkeys(sample.name for sample in metric.samples)
        values: dict[str, dict[str, None]] = {}
        for sample in metric.samples:
            for label, value in sample.labels.items():
                values.setdefault(label, {})[value] = None
        labels = "".join(
            f"; `{label}`: {', '.join(f'`{one}`' for one in of)}" for label, of in values.items()
        )
        listed = ", ".join(f"`{name}`" for name in names)
        yield f"| {listed} | {metric.type} | {metric.documentation}{labels} |"


class Metrics(SphinxDirective):
    """Shows the table of metrics."""

    def run(self) -> list[nodes.Node]:
        """Return the table."""
        return self.parse_text_to_nodes("\n".join(table()))


def setup(app: Sphinx) -> ExtensionMetadata:
    """Add the directive."""
    app.add_directive("metrics", Metrics)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
