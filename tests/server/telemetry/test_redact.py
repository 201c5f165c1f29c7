"""Removal of secrets from logs."""

from __future__ import annotations

import json

import pytest
import structlog

from mlrs_server.telemetry.logs import configure_logs
from mlrs_server.telemetry.redact import redact

SECRET = "A" * 20 + "-_" + "z" * 21
TOKEN = f"mlrs_0123456789ab_{SECRET}"
EVENT = f"event {TOKEN}"


@pytest.mark.parametrize("style", ["json", "console"])
def test_secrets_do_not_reach_the_log(capsys: pytest.CaptureFixture[str], style: str) -> None:
    """Wherever in an event a token or an authorization is, traceback included, it is not written."""
    configure_logs("debug", "json" if style == "json" else "console")
    try:
        log = structlog.get_logger()
        try:
            raise ValueError(f"cannot use {TOKEN}")
        except ValueError as error:
            log.error("failed", exc_info=error, authorization="Basic hunter2", nested={"Token": "hunter2"})
        log.info(EVENT, listed=[TOKEN, ("x", f"Bearer {SECRET}")], error=ValueError(TOKEN))
        log.info("store", url="postgresql://mlrs:hunter2@db.example.org/mlrs", count=3, ok=True, none=None)
    finally:
        structlog.reset_defaults()
    written = capsys.readouterr().err
    assert SECRET not in written
    assert "hunter2" not in written
    assert "mlrs_0123456789ab_[redacted]" in written  # which token it was may be said
    assert "postgresql://mlrs:[redacted]@db.example.org/mlrs" in written
    if style == "json":
        assert json.loads(written.splitlines()[-1])["count"] == 3


def test_other_values_stay() -> None:
    """Values that are not secrets are unchanged."""
    event = {"event": "x", "run_id": "mlrs_run", "bearer": "of news", "n": 1.5, "some": {"a": [1, None]}}
    assert redact(None, "info", dict(event)) == event
