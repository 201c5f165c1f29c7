"""Ports for servers that come back: none that a client of any test may be given meanwhile."""

from __future__ import annotations

import random
import socket


def steady_port() -> int:
    """Return a free port below those that the system hands out by itself.

    While a server is down, a client's own end may get its port, and then it cannot come back.
    """
    for port in random.sample(range(10_000, 32_000), 100):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise AssertionError("a hundred ports are taken")
