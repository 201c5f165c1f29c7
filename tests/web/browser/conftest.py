"""A browser, a daemon with runs of every kind, and a dashboard that shows them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

import mlrs
from tests.support.browser import Browser, Visitor, chromium_or_skip
from tests.support.daemon import Daemon, write_random_model
from tests.support.dashboard import Dashboard
from tests.web.browser import varied

Visit = Callable[..., Visitor]


# Of a module, and not of all: while Playwright runs, asynchronous tests of this process cannot.
@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """A browser."""
    with chromium_or_skip() as running:
        yield running


@pytest.fixture(scope="session")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """A daemon with runs of every kind."""
    folder = tmp_path_factory.mktemp("browser")
    model = write_random_model(folder / "tiny.safetensors")
    with Daemon(folder / "data", "--model", str(model)) as running:
        with mlrs.connect(running.address, timeout_s=20.0) as advisor:
            varied.make_runs(advisor)
        yield running


@pytest.fixture(scope="session")
def dashboard(daemon: Daemon) -> Iterator[Dashboard]:
    """A dashboard of that daemon."""
    with Dashboard("--connect", daemon.address) as running:
        yield running


@pytest.fixture
def visit(browser: Browser) -> Iterator[Visit]:
    """Return what makes visitors of a dashboard; at the end, the browser has nothing to complain of."""
    visitors = []

    def visitor(dashboard: Dashboard, **options: Any) -> Visitor:
        visitors.append(Visitor(browser, dashboard.url, **options))
        return visitors[-1]

    yield visitor
    for each in visitors:
        each.check()
