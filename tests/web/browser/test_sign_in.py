"""Signing in and out, where the daemon has tokens."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

import mlrs
from mlrs_server.auth.roles import Role
from mlrs_server.auth.tokens import TokenFile
from tests.support.browser import Page, expect
from tests.support.daemon import Daemon
from tests.support.dashboard import Dashboard
from tests.support.runs import open_run
from tests.web.browser.conftest import Visit


@pytest.fixture(scope="module")
def token(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A token, in a file beside the daemon's data."""
    file = TokenFile(tmp_path_factory.getbasetemp() / "browser-tokens.json")
    return file.create(tenant="acme", role=Role.ADVISE, name="", lifetime_s=None)[0]


@pytest.fixture(scope="module")
def guarded(token: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dashboard]:
    """A dashboard of a daemon that wants tokens, with the run `guarded`."""
    tokens = str(tmp_path_factory.getbasetemp() / "browser-tokens.json")
    with Daemon(tmp_path_factory.mktemp("guarded") / "data", "--tokens-file", tokens) as daemon:
        with mlrs.connect(daemon.address, token=token, timeout_s=20.0) as advisor:
            open_run(advisor, "guarded", policy="constant").next_lr(0, 1.0)
        with Dashboard("--connect", daemon.address) as running:
            yield running


def sign_in(page: Page, token: str) -> None:
    """Type a token, and send it."""
    page.get_by_label("Token").fill(token)
    page.get_by_role("button", name="Sign in").click()


def test_a_cookie_stands_for_the_token(guarded: Dashboard, token: str, visit: Visit) -> None:
    """Pages ask for a token first; a cookie that no script can read stands for it, until the sign-out."""
    visitor = visit(guarded)
    page = visitor.open("/runs?contains=guard")
    expect(page.get_by_role("heading", name="Sign in")).to_be_visible()
    assert "guarded" not in page.content()
    sign_in(page, token)
    expect(page.get_by_title("guarded", exact=True)).to_be_visible()
    expect(page).to_have_url(re.compile(r"/runs\?contains=guard$"))
    (cookie,) = visitor.context.cookies()
    assert (cookie["httpOnly"], cookie["sameSite"], cookie["path"]) == (True, "Strict", "/")
    assert token not in cookie["value"]
    assert page.evaluate("document.cookie") == ""
    assert page.evaluate("JSON.stringify([localStorage, sessionStorage])") == "[{},{}]"
    page.reload()
    expect(page.get_by_title("guarded", exact=True)).to_be_visible()

    page.get_by_role("button", name="Sign out").click()
    expect(page.get_by_role("heading", name="Sign in")).to_be_visible()
    assert visitor.context.cookies() == []
    page.goto("/run?id=guarded")
    expect(page.get_by_role("heading", name="Sign in")).to_be_visible()


def test_a_wrong_token_is_refused(guarded: Dashboard, visit: Visit) -> None:
    """A token that the daemon does not accept is said, and nothing is kept of it."""
    visitor = visit(guarded)
    visitor.expect_complaints(r"status of 401 .*/api/session")
    page = visitor.open("/")
    sign_in(page, "mlrs_wrong")
    expect(page.get_by_role("alert")).to_have_text("The daemon does not accept this token.")
    assert visitor.context.cookies() == []
    expect(page.get_by_label("Token")).to_be_focused()
