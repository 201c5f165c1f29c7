"""Sign-in with tokens of the daemon."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

import mlrs
from mlrs_server.auth.roles import Role
from mlrs_server.auth.tokens import TokenFile
from tests.support.daemon import Daemon
from tests.support.dashboard import Dashboard
from tests.support.runs import open_run


@dataclass
class Guarded:
    """A daemon with tokens of two tenants, each with a run."""

    daemon: Daemon
    file: TokenFile
    tokens: dict[str, str]
    """By tenant."""
    ids: dict[str, str]
    """The tokens' ids, by tenant."""


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    """A daemon that wants tokens."""
    folder = tmp_path_factory.mktemp("guarded")
    file, tokens, ids = TokenFile(folder / "tokens.json"), {}, {}
    for tenant in ("acme", "other"):
        tokens[tenant], made = file.create(tenant=tenant, role=Role.ADVISE, name="", lifetime_s=None)
        ids[tenant] = made.id
    with Daemon(folder / "data", "--tokens-file", str(folder / "tokens.json")) as daemon:
        for tenant, token in tokens.items():
            with mlrs.connect(daemon.address, token=token, timeout_s=20) as advisor:
                open_run(advisor, f"run-of-{tenant}", policy="constant").next_lr(0, 1.0)
        yield Guarded(daemon, file, tokens, ids)


@pytest.fixture(scope="module")
def shown(guarded: Guarded) -> Iterator[Dashboard]:
    """A dashboard of that daemon."""
    with Dashboard("--connect", guarded.daemon.address) as running:
        yield running


def ids_of(dashboard: Dashboard) -> list[str]:
    """Return the ids of the runs that a browser sees."""
    return [run["id"] for run in dashboard.get("/api/runs").json["runs"]]


def test_a_browser_sees_what_its_token_may(guarded: Guarded, shown: Dashboard) -> None:
    """Without sign-in nothing is shown; with a token, its tenant's runs; after sign-out, nothing."""
    acme = shown.browser()
    refused = acme.get("/api/runs")
    assert (refused.status, refused.json["error"]["code"]) == (401, "unauthenticated")
    session = acme.get("/api/session").json
    assert (session["signed_in"], session["tokens_required"], session["daemon"]) == (False, True, None)
    assert set(session) == {"signed_in", "tokens_required", "daemon", "demo", "dashboard"}

    answer = acme.sign_in(guarded.tokens["acme"])
    assert answer.status == 204
    cookie = answer.headers["set-cookie"]
    assert {"HttpOnly", "SameSite=strict", "Path=/"} <= set(cookie.split("; ")[1:])
    assert guarded.tokens["acme"] not in cookie
    assert ids_of(acme) == ["run-of-acme"]
    assert acme.get("/api/session").json["signed_in"]
    cursor = acme.get("/api/record", id="run-of-acme").json["cursor"]

    other = shown.browser()
    other.sign_in(guarded.tokens["other"])
    assert ids_of(other) == ["run-of-other"]
    for path in ("/api/run", "/api/record", "/api/export"):
        assert other.get(path, id="run-of-acme").status == 404, path
    for path in ("/api/record", "/api/live"):
        assert other.get(path, id="run-of-acme", cursor=cursor).status == 404, path
    assert other.get("/api/samples", id="run-of-acme").json == {"samples": {}}

    acme.sign_out()
    assert acme.get("/api/runs").status == 401


def test_sign_out_ends_the_streams_of_its_browser(guarded: Guarded, shown: Dashboard) -> None:
    """A browser that signs out is sent nothing more, and another one with the same token goes on."""
    leaving, staying = shown.browser(), shown.browser()
    for each in (leaving, staying):
        assert each.sign_in(guarded.tokens["acme"]).status == 204
    with leaving.follow("/api/live-health") as ended, staying.follow("/api/live-health") as goes_on:
        ended.until("health")
        goes_on.until("health")
        leaving.sign_out()
        with pytest.raises(EOFError):
            ended.until("none")
        goes_on.until("health")


@pytest.mark.parametrize(
    "headers",
    [
        {"X-MLRS": ""},
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": ""},
    ],
)
def test_pages_of_others_cannot_sign_in_or_out(
    guarded: Guarded, shown: Dashboard, headers: dict[str, str]
) -> None:
    """Sign-in and sign-out want a header of our pages, and their origin."""
    running = shown.browser()
    assert running.sign_in(guarded.tokens["acme"], **headers).status == 403
    assert running.sign_in(guarded.tokens["acme"]).status == 204
    own = {"X-MLRS": "1", "Origin": running.url, **headers}
    assert running.request("DELETE", "/api/session", headers=own).status == 403
    assert ids_of(running) == ["run-of-acme"]


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ("", 400),
        ("[]", 400),
        ('{"token": 1}', 400),
        ("\xff", 400),
        ('{"token": ""}', 400),
        ('{"token": "wrong"}', 401),
        ('{"token": "a b"}', 400),
        ("x" * 9000, 413),
    ],
)
def test_what_is_no_token_of_the_daemon_is_refused(shown: Dashboard, body: str, status: int) -> None:
    """A body that is malformed, too large, or has a token that the daemon refuses signs nobody in."""
    running = shown.browser()
    own = {"X-MLRS": "1", "Origin": running.url}
    answer = running.request("POST", "/api/session", body, own)
    assert answer.status == status
    assert "set-cookie" not in answer.headers
    assert "wrong" not in answer.json["error"]["message"]


def test_there_is_nothing_to_sign_in_to_without_tokens(dashboard: Dashboard) -> None:
    """Where the daemon has no tokens, any string would do, so none signs a browser in."""
    running = dashboard.browser()
    answer = running.sign_in("anything")
    assert answer.status == 409
    assert answer.json["error"]["message"] == "the daemon has no tokens: nothing to sign in to"
    assert running.cookie == ""
    assert running.get("/api/session").json["dashboard"]["sessions"] == 0


def test_a_revoked_token_signs_its_browsers_out(guarded: Guarded, shown: Dashboard) -> None:
    """When a token is revoked, streams of its browsers end, and they have to sign in again."""
    token, made = guarded.file.create(tenant="acme", role=Role.ADVISE, name="", lifetime_s=None)
    running = shown.browser()
    until = time.monotonic() + 20.0
    while running.sign_in(token).status != 204:  # the daemon reads the file every two seconds
        assert time.monotonic() < until
        time.sleep(0.05)
    with running.follow("/api/live-runs") as events:
        assert events.until("runs")["runs"]
        guarded.file.revoke(made.id)
        with pytest.raises(EOFError):
            events.until("none")
    assert running.get("/api/runs").status == 401
    assert not running.get("/api/session").json["signed_in"]


def test_a_token_of_its_own_is_everyones(guarded: Guarded, tmp_path: Path) -> None:
    """Started with a token, whoever opens a page uses it; beyond this machine that is refused."""
    file = tmp_path / "token"
    file.write_text(guarded.tokens["acme"] + "\n", encoding="utf-8")
    environment = {"MLRS_TOKEN": guarded.tokens["other"]}
    with Dashboard("--connect", guarded.daemon.address, environment=environment) as running:
        assert ids_of(running) == ["run-of-other"]
        assert running.get("/api/session").json["signed_in"]
        assert guarded.tokens["other"] not in str(running.get("/api/session").json)
    with Dashboard("--connect", guarded.daemon.address, "--token-file", str(file)) as running:
        assert ids_of(running) == ["run-of-acme"]
        running.sign_in(guarded.tokens["other"])
        assert ids_of(running) == ["run-of-other"]
