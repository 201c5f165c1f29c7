"""Requests of pages of the dashboard, and of pages of others."""

from __future__ import annotations

import pytest

from tests.support.dashboard import Dashboard

PATHS = ("/api/runs", "/api/live-runs", "/api/export?id=a/done", "/api/session")


@pytest.mark.parametrize(
    "headers",
    [
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Origin": "https://evil.example"},
        {"Origin": "http://127.0.0.1:1"},
        {"Origin": "null"},
        {"Origin": "http://[evil"},
    ],
)
def test_pages_of_others_get_nothing(dashboard: Dashboard, headers: dict[str, str]) -> None:
    """A request that the browser sends for a page of another origin is refused, streams and files, too."""
    for path in PATHS:
        answer = dashboard.request("GET", path, headers=headers)
        assert (answer.status, answer.json["error"]["code"]) == (403, "forbidden"), path
        assert answer.headers["cache-control"] == "no-store"


@pytest.mark.parametrize("site", ["same-origin", "none"])
def test_own_pages_are_answered(dashboard: Dashboard, site: str) -> None:
    """Pages of the dashboard, typed addresses, and links from elsewhere to a page are answered."""
    headers = {"Sec-Fetch-Site": site, "Origin": dashboard.url}
    assert dashboard.request("GET", "/api/runs", headers=headers).status == 200
    assert dashboard.request("GET", "/runs", headers={"Sec-Fetch-Site": "cross-site"}).status == 200
