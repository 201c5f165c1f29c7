"""Tokens, and the file that stores them.

A token is `mlrs_`, its id, `_`, and its secret: 32 random bytes in base64url. The file holds only the SHA-256
of the secret; 256 random bits cannot be guessed from it, so it needs no salt and no slow hash. A revoked
token stays in the file, so that revoking the last one does not open the daemon to everybody.

    {"format": 1, "tokens": [{"id": ..., "tenant": ..., "role": ..., "sha256": ..., ...}]}
"""

from __future__ import annotations

import hashlib
import json
import re
import secrets
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from mlrs_server.auth.roles import Role
from mlrs_server.errors import AdvisorError, Reason, invalid_field
from mlrs_server.system.files import changing, write_atomically
from mlrs_server.tenancy import check_tenant

FORMAT = 1
"""The version of the file's layout."""
TOKEN = re.compile(r"mlrs_([0-9a-f]{12})_([A-Za-z0-9_-]{43})")
"""The format of a token: its id and its secret."""
_MALFORMED = (ValueError, KeyError, TypeError, AttributeError, RecursionError)
MAX_NAME = 64
"""The longest name of a token, in characters."""


@dataclass(frozen=True, kw_only=True)
class Token:
    """A token without its secret, as it is stored."""

    id: str
    tenant: str
    role: Role
    name: str
    """A description by whoever created it."""
    sha256: str
    """The digest of its secret, in hexadecimal."""
    created: float
    """When it was created, in seconds since the epoch, UTC."""
    expires: float | None = None
    """When it expires, in seconds since the epoch, UTC; `None`: never."""
    revoked: float | None = None
    """When it was revoked, in seconds since the epoch, UTC; `None`: it was not."""

    def is_valid(self, now: float) -> bool:
        """Return whether it is neither revoked nor expired."""
        return self.revoked is None and (self.expires is None or now < self.expires)


def digest_of_secret(secret: str) -> str:
    """Return the SHA-256 of a token's secret, in hexadecimal."""
    return hashlib.sha256(secret.encode()).hexdigest()


class TokenFile:
    """Tokens in a file. A lock serializes changes, also across processes."""

    def __init__(self, path: Path) -> None:
        """Use the file at a path; it may be missing."""
        self.path = path

    def read(self) -> dict[str, Token]:
        """Return the tokens by id.

        Raises:
            AdvisorError: the file is damaged, cannot be read, or can be written by every user.
            FileNotFoundError: the file does not exist.
        """
        try:
            anybody_writes = self.path.stat().st_mode & stat.S_IWOTH
            fields: Any = json.loads(self.path.read_text(encoding="utf-8"))
            if fields["format"] != FORMAT:
                raise ValueError(f"it is of format {fields['format']!r}, not {FORMAT}")
            tokens = [_token_from(entry) for entry in fields["tokens"]]
        except FileNotFoundError:
            raise
        except (AdvisorError, OSError, *_MALFORMED) as error:
            raise AdvisorError(
                Reason.STORE,
                f"tokens_file: {self.path} cannot be read: {_in_short(error)}; restore it, or let the daemon "
                "read it",
                field="tokens_file",
            ) from None  # the text of the file may be in the chain
        if anybody_writes:
            raise AdvisorError(
                Reason.STORE,
                f"tokens_file: every user of this machine can write {self.path}, and so make tokens; see "
                f"that all in it are yours, then chmod o-w {self.path}",
                field="tokens_file",
            )
        return {token.id: token for token in tokens}

    def create(
        self, *, tenant: str, role: Role, name: str = "", lifetime_s: float | None = None
    ) -> tuple[str, Token]:
        """Create a token; return its full text, which cannot be read again later, and its stored form.

        Raises:
            AdvisorError: the tenant or the name is malformed, or the file cannot be read or written.
        """
        check_tenant(tenant)
        if len(name) > MAX_NAME or not name.isprintable():
            raise invalid_field("name", f"must be at most {MAX_NAME} printable characters")
        now, secret = time.time(), secrets.token_urlsafe(32)
        token = Token(
            id=secrets.token_hex(6),
            tenant=tenant,
            role=role,
            name=name,
            sha256=digest_of_secret(secret),
            created=now,
            expires=None if lifetime_s is None else now + lifetime_s,
        )
        with self._changing() as tokens:
            tokens[token.id] = token
        return f"mlrs_{token.id}_{secret}", token

    def revoke(self, token_id: str) -> Token:
        """Revoke a token; doing so twice is no error.

        Raises:
            AdvisorError: there is no token of that id, or the file cannot be read or written.
        """
        with self._changing() as tokens:
            if token_id not in tokens:
                raise invalid_field(
                    "id", f"there is no token {token_id[:MAX_NAME]!r}; see `mlrs tokens list`"
                )
            token = tokens[token_id]
            if token.revoked is None:
                token = tokens[token_id] = replace(token, revoked=time.time())
        return token

    @contextmanager
    def _changing(self) -> Iterator[dict[str, Token]]:
        """Yield the tokens under the lock, and write them back."""
        with changing(self.path.parent, what="tokens"):
            try:
                tokens = self.read()
            except FileNotFoundError:
                tokens = {}
            yield tokens
            entries = [{**asdict(token), "role": token.role.spelling} for token in tokens.values()]
            text = json.dumps({"format": FORMAT, "tokens": entries}, indent=2)
            write_atomically(self.path, text.encode(), what="tokens")


def _token_from(entry: Any) -> Token:
    """Return a token from its entry in the file, checked."""
    token = Token(**{**entry, "role": Role[entry["role"].upper()]})
    texts = (token.id, token.tenant, token.name, token.sha256)
    times = (token.created, token.expires, token.revoked)
    if not all(isinstance(text, str) for text in texts) or len(token.sha256) != 64:
        raise ValueError("an entry is not a token")
    if not all(time is None or isinstance(time, int | float) for time in times):
        raise ValueError("an entry's times are not numbers")
    check_tenant(token.tenant)
    return token


def _in_short(error: Exception) -> str:
    return (error.strerror or "") if isinstance(error, OSError) else f"{type(error).__name__}: {error}"[:200]
