"""Debian's Chromium, driven by Playwright, and pages that must give the browser nothing to complain of."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

try:
    from playwright.sync_api import (
        Browser,
        BrowserContext,
        ConsoleMessage,
        Locator,
        Page,
        Request,
        expect,
        sync_playwright,
    )
except ModuleNotFoundError:  # which `chromium` says
    sync_playwright = expect = None

__all__ = ["Browser", "Locator", "Page", "Visitor", "chromium", "chromium_or_skip", "expect"]

ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
PATIENCE_MS = 60_000
"""How long a page may take to show something, in milliseconds; other processes share the cores."""
VIOLATIONS = """addEventListener("securitypolicyviolation", (event) => console.error(
    `violates the policy ${event.violatedDirective}: ${event.blockedURI} at ${event.sourceFile}`))"""


@contextmanager
def chromium() -> Iterator[Browser]:
    """Yield a browser. Meanwhile no other event loop can run in this thread.

    Raises:
        FileNotFoundError: Chromium is not installed.
        ModuleNotFoundError: Playwright is not installed.
    """
    if sync_playwright is None:
        raise ModuleNotFoundError("Playwright is not installed: pip install 'mlrs[dev]'")
    if (program := shutil.which("chromium")) is None:
        raise FileNotFoundError("Chromium is not installed: apt-get install chromium")
    expect.set_options(timeout=PATIENCE_MS)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=ARGUMENTS)
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def chromium_or_skip() -> Iterator[Browser]:
    """Yield a browser; skip where it is not installed, but in CI, which must have it."""
    try:
        manager = chromium()
        browser = manager.__enter__()
    except (FileNotFoundError, ModuleNotFoundError) as error:
        if os.environ.get("CI") == "true":
            pytest.fail(str(error))
        pytest.skip(str(error))
    try:
        yield browser
    finally:
        manager.__exit__(None, None, None)


class Visitor:
    """Opens pages of a dashboard, and keeps what the browser complains of.

    These are errors in the console, exceptions that no script caught, violations of the security policy,
    and requests to another origin.

    Attributes:
        context: the browser's profile.
        complaints: what it complained of.
    """

    def __init__(
        self, browser: Browser, url: str, *, width: int = 1280, height: int = 900, **options: Any
    ) -> None:
        viewport = {"width": width, "height": height}
        self.context: BrowserContext = browser.new_context(base_url=url, viewport=viewport, **options)
        self.context.set_default_timeout(PATIENCE_MS)
        self.context.add_init_script(VIOLATIONS)
        self.context.on("console", self._on_console)
        self.context.on("weberror", lambda error: self.complaints.append(f"exception: {error.error}"))
        self.context.on("request", self._on_request)
        self.complaints: list[str] = []
        self._own = (f"{url}/", f"blob:{url}/")
        self._expected: list[re.Pattern[str]] = []

    def open(self, path: str) -> Page:
        """Open a page in a tab of its own."""
        page = self.context.new_page()
        page.goto(path)
        return page

    def expect_complaints(self, pattern: str) -> None:
        """Take complaints that a regular expression describes for what the test is about."""
        self._expected.append(re.compile(pattern))

    def check(self) -> None:
        """Close the tabs, and check that there was nothing to complain of but what was expected."""
        self.context.close()
        unexpected = [
            each for each in self.complaints if not any(pattern.search(each) for pattern in self._expected)
        ]
        assert unexpected == [], "\n".join(unexpected)

    def _on_console(self, message: ConsoleMessage) -> None:
        if message.type == "error":
            where = message.location.get("url", "")
            self.complaints.append(f"console: {message.text} ({where})")

    def _on_request(self, request: Request) -> None:
        if not request.url.startswith(self._own):
            self.complaints.append(f"a request to another origin: {request.url}")
