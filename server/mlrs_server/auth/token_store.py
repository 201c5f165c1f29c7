"""The tokens that a daemon accepts, read again when their file changes."""

from __future__ import annotations

import asyncio
import hmac
import time
from collections.abc import Mapping
from pathlib import Path

import structlog

from mlrs_server.auth.principal import Principal
from mlrs_server.auth.tokens import TOKEN, Token, TokenFile, digest_of_secret
from mlrs_server.errors import AdvisorError, Reason
from mlrs_server.system.files import write_atomically

log = structlog.get_logger()

MARK = b"This daemon requires tokens: while this file exists, it does not start without any.\n"
"""The text of the marker file, for people."""
LOOK_S = 1.0
"""The interval at which the file is checked for changes."""
_NO_DIGEST = "0" * 64  # an unknown token is compared with it; no secret has this digest

Stamp = tuple[int, int, int]


class TokenStore:
    """Tokens and their principals. Used from one event loop.

    If the file becomes unreadable, the tokens read before stay valid, and calls still need one.
    """

    def __init__(self, file: TokenFile, *, required: bool, marker: Path | None = None) -> None:
        """Read the file.

        Args:
            file: the file of tokens.
            required: whether calls need a token even if the file is empty. If not, they do once it has one.
            marker: a file that records, across restarts, that calls have needed tokens; created once they do.

        Raises:
            AdvisorError: the file is damaged, or required and missing; or the marker exists, and there are no
                tokens.
        """
        self._file = file
        self._marker = marker
        self._is_marked = marker is None
        self._stamp: Stamp | None = None
        self._tokens: Mapping[str, Token] = {}
        self._principals: dict[str, Principal] = {}
        self.is_on = required
        """Whether calls need a token. Once true, it stays true until the daemon ends."""
        try:
            if (found := self._read_if_changed()) is not None:
                self._replace(*found)
        except FileNotFoundError:
            if required:
                raise AdvisorError(
                    Reason.INVALID_FIELD,
                    f"tokens_file: there is no file {file.path}; `mlrs tokens create --tokens-file` makes it",
                    field="tokens_file",
                ) from None
        self._check_marker()

    def principal_of(self, token: str) -> Principal | None:
        """Return the principal of a token; `None` if the token is unknown, revoked or expired.

        An unknown token takes as long as one with a wrong secret.
        """
        parts = TOKEN.fullmatch(token)
        token_id, secret = parts.groups() if parts else ("", token)
        known = self._tokens.get(token_id)
        same = hmac.compare_digest(digest_of_secret(secret), known.sha256 if known else _NO_DIGEST)
        if known is None or not same:
            return None
        principal = self._principals[token_id]
        principal.valid = known.is_valid(time.time())
        return principal if principal.valid else None

    async def keep_fresh(self) -> None:
        """Check the file and expiry times every second, until cancelled."""
        failing = False
        while True:
            await asyncio.sleep(LOOK_S)
            try:
                if (found := await asyncio.to_thread(self._read_if_changed)) is not None:
                    self._replace(*found)
                if self.is_on and not self._is_marked:
                    await asyncio.to_thread(self._mark)
                if failing:
                    log.info("tokens_readable_again", file=str(self._file.path))
                failing = False
            except (AdvisorError, OSError) as error:
                if self.is_on and not failing:
                    failing = True
                    log.error(
                        "tokens_unreadable", problem=str(error), effect="the tokens read before stay valid"
                    )
            self._expire()

    def _read_if_changed(self) -> tuple[Stamp, dict[str, Token]] | None:
        """Return the stamp and the tokens of the file if it has changed; on any thread."""
        status = self._file.path.stat()
        stamp = status.st_mtime_ns, status.st_ino, status.st_size
        return None if stamp == self._stamp else (stamp, self._file.read())

    def _replace(self, stamp: Stamp, tokens: Mapping[str, Token]) -> None:
        """Replace the tokens; principals of tokens that were changed or removed become invalid."""
        same = {token_id for token_id, token in tokens.items() if self._tokens.get(token_id) == token}
        for token_id, principal in self._principals.items():
            if token_id not in same:
                principal.valid = False
        self._principals = {
            token_id: self._principals[token_id] if token_id in same else Principal(token.tenant, token.role)
            for token_id, token in tokens.items()
        }
        self._tokens, self._stamp = tokens, stamp
        self._expire()
        self.is_on = self.is_on or bool(tokens)
        log.info("tokens_read", count=sum(principal.valid for principal in self._principals.values()))

    def _expire(self) -> None:
        """Update the validity of each principal by the clock, which may also have been set back."""
        now = time.time()
        for token_id, token in self._tokens.items():
            self._principals[token_id].valid = token.is_valid(now)

    def _check_marker(self) -> None:
        """Refuse to start without tokens where an earlier start had some."""
        if self._marker is None:
            return
        self._is_marked = self._marker.exists()
        if self.is_on and not self._is_marked:
            self._mark()
        elif self._is_marked and not self.is_on:
            raise AdvisorError(
                Reason.INVALID_FIELD,
                f"tokens_file: this daemon has required tokens before, and {self._file.path} has none now. "
                "Restore the file, or name it with --tokens-file, or create a token with "
                f"`mlrs tokens create --data-dir {self._marker.parent}`; to serve everybody on purpose, "
                f"delete {self._marker}",
                field="tokens_file",
            )

    def _mark(self) -> None:
        """Create the marker file; on any thread."""
        if self._marker is not None:
            write_atomically(self._marker, MARK, what="the daemon")
            self._is_marked = True
