"""Structured logs on standard error."""

from __future__ import annotations

import logging
import sys
from typing import Literal

import structlog

from mlrs_server.telemetry.redact import redact


class _CoreHandler(logging.Handler):
    """Forwards logs of the core, which uses the standard library's loggers only."""

    def emit(self, record: logging.LogRecord) -> None:
        """Log a record under the name of its event."""
        event = getattr(record, "event", record.name)
        structlog.get_logger().log(record.levelno, event, problem=record.getMessage())


def configure_logs(
    level: Literal["debug", "info", "warning", "error"], style: Literal["auto", "console", "json"]
) -> None:
    """Write logs of this level and above to standard error, as text or as JSON lines."""
    for_people = style == "console" or (style == "auto" and sys.stderr.isatty())
    renderer: structlog.typing.Processor = (
        structlog.dev.ConsoleRenderer(
            exception_formatter=structlog.dev.plain_traceback
        )  # it shows no values of variables
        if for_people
        else structlog.processors.JSONRenderer()
    )
    processors: list[structlog.typing.Processor] = [
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    processors += [structlog.processors.format_exc_info, redact]  # a traceback's text may hold a secret too
    structlog.configure(
        processors=[*processors, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(getattr(logging, level.upper())),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
    core = logging.getLogger("mlrs_core")
    core.handlers, core.propagate = [_CoreHandler()], False
