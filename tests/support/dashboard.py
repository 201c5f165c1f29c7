"""A real dashboard in a process of its own, and a browser's part of HTTP: requests, and streams of events."""

from __future__ import annotations

import http.client
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Self
from urllib.parse import urlencode, urlsplit


@dataclass(frozen=True)
class Answer:
    """An answer to a request."""

    status: int
    headers: Mapping[str, str]
    """By name, in lower case."""
    body: bytes

    @property
    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body, parse_constant=_refuse)


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no JSON")


class Events:
    """A stream of server-sent events that is open."""

    def __init__(self, answer: http.client.HTTPResponse) -> None:
        self._answer = answer
        self.headers = answer.headers
        self.last_id = ""

    def next(self) -> tuple[str, Any]:
        """Wait for the next event; return its name and its data. Comments are passed over."""
        name, data = "", ""
        while line := self._answer.readline().decode():
            field, _, value = line.rstrip("\n").partition(": ")
            if field == "event":
                name = value
            elif field == "data":
                data = value
            elif field == "id":
                self.last_id = value
            elif not field and name:
                return name, json.loads(data, parse_constant=_refuse)
        raise EOFError("the stream has ended")

    def until(self, name: str) -> Any:
        """Return the data of the next event of a name; pass over others."""
        while True:
            found, data = self.next()
            if found == name:
                return data


class Dashboard:
    """`mlrs dashboard` on a free port of loopback; a context manager that stops it."""

    def __init__(self, *arguments: str, environment: Mapping[str, str] | None = None) -> None:
        self._command = [sys.executable, "-m", "mlrs_cli", "dashboard", "--listen", "127.0.0.1:0", *arguments]
        self._environment = {**os.environ, **(environment or {})}
        self._process: subprocess.Popen[str] | None = None
        self.url = ""
        self.cookie = ""

    def start(self) -> Self:
        """Start it and wait until it serves pages."""
        self._process = subprocess.Popen(
            self._command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=self._environment
        )
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line.startswith("dashboard: http"), line + self.end()[1]
        self.url = line.split()[-1]
        return self

    @property
    def pid(self) -> int:
        """The process's id."""
        assert self._process is not None
        return self._process.pid

    def request(
        self, method: str, path: str, body: str | None = None, headers: Mapping[str, str] | None = None
    ) -> Answer:
        """Send a request, with the cookie of the sign-in before; return the answer."""
        with self._connected() as connection:
            connection.request(method, path, body, self._headers(headers))
            answer = connection.getresponse()
            found = {name.lower(): value for name, value in answer.getheaders()}
            return Answer(answer.status, found, answer.read())

    def get(self, path: str, **query: Any) -> Answer:
        """Read an address."""
        return self.request("GET", f"{path}?{urlencode(query, doseq=True)}" if query else path)

    def sign_in(self, token: str, **headers: str) -> Answer:
        """Sign in with a token; keep the cookie."""
        own = {"X-MLRS": "1", "Origin": self.url, **headers}
        answer = self.request("POST", "/api/session", json.dumps({"token": token}), own)
        self.cookie = answer.headers.get("set-cookie", "").partition(";")[0] or self.cookie
        return answer

    def sign_out(self) -> None:
        """Sign out."""
        own = {"X-MLRS": "1", "Origin": self.url}
        assert self.request("DELETE", "/api/session", headers=own).status == 204

    @contextmanager
    def follow(self, path: str, last_id: str = "", **query: Any) -> Iterator[Events]:
        """Open a stream of events."""
        with self._connected() as connection:
            headers = self._headers({"Last-Event-ID": last_id} if last_id else None)
            connection.request("GET", f"{path}?{urlencode(query, doseq=True)}", headers=headers)
            answer = connection.getresponse()
            assert answer.status == 200, answer.read()
            assert answer.headers["content-type"].startswith("text/event-stream")
            try:
                yield Events(answer)
            finally:
                answer.close()

    def browser(self) -> Dashboard:
        """Return the same dashboard as another browser sees it, which is not signed in."""
        other = Dashboard()
        other.url = self.url
        return other

    def end(self, number: int = signal.SIGINT) -> tuple[int, str]:
        """Send a signal and wait; return the exit status and what was said on standard error."""
        assert self._process is not None
        if self._process.poll() is None:
            self._process.send_signal(number)
        try:
            _, said = self._process.communicate(timeout=20)
        finally:
            self._process.kill()  # one that does not end
        return self._process.returncode, said

    @contextmanager
    def _connected(self) -> Iterator[http.client.HTTPConnection]:
        parts = urlsplit(self.url)
        assert parts.hostname is not None
        connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=30)
        try:
            yield connection
        finally:
            connection.close()

    def _headers(self, others: Mapping[str, str] | None) -> dict[str, str]:
        return {**({"Cookie": self.cookie} if self.cookie else {}), **(others or {})}

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        assert self._process is not None
        if self._process.poll() is None:
            status, said = self.end()
            assert status == 0, said
            assert said == ""
