"""The whole of the dashboard: what holds for every path."""

from __future__ import annotations

import pytest

from mlrs_web.routes.pages import PATHS
from mlrs_web.security.headers import POLICY
from tests.support.dashboard import Dashboard

API = (
    "/api/session",
    "/api/runs",
    "/api/samples?id=a/done",
    "/api/run?id=a/done",
    "/api/record?id=a/done",
    "/api/export?id=a/done",
    "/api/tasks",
    "/api/task?name=letters",
    "/api/models",
    "/api/model?ref=tiny",
    "/api/health",
)
WRONG = ("/api/none", "/none", "/api/run?id=none", "/api/record", "/static/none.js", "/static/../settings.py")
STREAMS = ("/api/live-runs", "/api/live-health")


@pytest.mark.parametrize("path", [*PATHS, *API, *WRONG])
def test_every_answer_has_the_security_headers(dashboard: Dashboard, path: str) -> None:
    """Pages, answers of the API and failures state the policy; answers of the API are not stored."""
    answer = dashboard.get(path)
    assert answer.headers["content-security-policy"] == POLICY
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["referrer-policy"] == "no-referrer"
    assert answer.headers["cache-control"] == ("no-store" if path.startswith("/api/") else "no-cache")
    assert (answer.status >= 400) == (path in WRONG), answer.body
    if path.startswith("/api/") and answer.status >= 400:
        assert set(answer.json["error"]) == {"code", "message", "field"}


@pytest.mark.parametrize("path", STREAMS)
def test_streams_have_the_security_headers(dashboard: Dashboard, path: str) -> None:
    """A stream of events states the policy, too."""
    with dashboard.follow(path) as events:
        headers = events.headers
        events.next()
    assert headers["content-security-policy"] == POLICY
    assert headers["cache-control"] == "no-store"


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
def test_nothing_is_changed_through_the_dashboard(dashboard: Dashboard, method: str) -> None:
    """Apart from sign-in and sign-out, every path can only be read."""
    for path in (*PATHS, *API[1:], *STREAMS):
        answer = dashboard.request(method, path, headers={"X-MLRS": "1", "Origin": dashboard.url})
        assert answer.status == 405, path


def test_the_policy_allows_nothing_from_elsewhere() -> None:
    """The policy has no source but the dashboard itself."""
    sources = {source for rule in POLICY.split("; ") for source in rule.split()[1:]}
    assert sources == {"'self'", "'none'"}
