"""Removal of secrets from logs."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from structlog.typing import EventDict, WrappedLogger

SECRET_KEYS = frozenset({"authorization", "password", "secret", "token"})
"""The keys whose values are not logged."""
HIDDEN = "[redacted]"
_TOKEN = re.compile(r"mlrs_([0-9a-f]{1,12})_[A-Za-z0-9_-]+")
_BEARER = re.compile(r"(?i)\b(bearer\s+)(?!mlrs_[0-9a-f]+_\[)[^\s'\"`]+")
_URL_PASSWORD = re.compile(r"(\w+://[^\s:/@]+:)[^\s@/]+@")


def redact(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Replace everything in an event that looks like a secret: the last of structlog's processors."""
    return {key: _shown(key, value) for key, value in event.items()}


def _shown(key: str, value: Any) -> Any:
    return HIDDEN if key.lower() in SECRET_KEYS else _cleaned(value)


def _cleaned(value: Any) -> Any:
    match value:
        case str():
            shown = _TOKEN.sub(rf"mlrs_\1_{HIDDEN}", value)
            shown = _BEARER.sub(rf"\1{HIDDEN}", shown)
            return _URL_PASSWORD.sub(rf"\1{HIDDEN}@", shown)
        case Mapping():
            return {
                key: HIDDEN if str(key).lower() in SECRET_KEYS else _cleaned(one)
                for key, one in value.items()
            }
        case list() | tuple():
            return [_cleaned(one) for one in value]
        case bytes() | BaseException():
            return _cleaned(str(value))
        case _:
            return value
