"""Options of channels, for threads and asyncio."""

from __future__ import annotations

MAX_RECEIVE_BYTES = 64 * 2**20
"""The largest message that is received, in bytes: well above 65,536 entries with an error each."""

CHANNEL_OPTIONS: tuple[tuple[str, int], ...] = (
    # A daemon that stopped answering is noticed within 15 s; without the ping timeout, after 60 s.
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.http2.ping_timeout_ms", 5_000),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.max_receive_message_length", MAX_RECEIVE_BYTES),
    # A daemon that restarts is found again within half a second of its return.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 1_000),
    ("grpc.max_reconnect_backoff_ms", 500),
)
"""Options of every channel, as `(name, value)`."""


def options_of(address: str) -> tuple[tuple[str, int | str], ...]:
    """Return the options of a channel to an address, as `(name, value)`.

    The authority of a unix socket would be its path with `%2F` for each slash, which some servers refuse.
    """
    authority = (("grpc.default_authority", "localhost"),) if address.startswith("unix:") else ()
    return (*CHANNEL_OPTIONS, *authority)
