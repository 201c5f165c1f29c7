"""The tokens that a daemon knows, as their file changes."""

from __future__ import annotations

import asyncio
import hmac
import time
from collections.abc import Mapping

import structlog

from mlrs_server.errors import AdvisorError, Reason
from mlrs_server.security.caller import Grant
from mlrs_server.security.tokens import TOKEN, Token, TokenFile, digest_of_secret

log = structlog.get_logger()

LOOK_S = 1.0
"""How often the file is looked at."""
_NOBODY = "0" * 64  # the digest that an unknown token is compared with, and of no secret

Stamp = tuple[int, int, int]


class TokenBook:
    """Tokens, and what each still gives. Used from one event loop.

    What cannot be read changes nothing: tokens that were good stay good, and no call gets in without one.
    """

    def __init__(self, file: TokenFile, *, required: bool) -> None:
        """Read the file.

        Args:
            file: where the tokens are.
            required: whether tokens are wanted though the file has none. If not, they are once it has one.

        Raises:
            AdvisorError: the file is damaged, or required and not there.
        """
        self._file = file
        self._stamp: Stamp | None = None
        self._tokens: Mapping[str, Token] = {}
        self._grants: dict[str, Grant] = {}
        self.is_on = required
        """Whether calls need a token. Once they do, they do until the daemon ends."""
        try:
            if (found := self._read_if_changed()) is not None:
                self._take(*found)
        except FileNotFoundError:
            if required:
                raise AdvisorError(
                    Reason.INVALID_FIELD,
                    f"tokens_file: there is no file {file.path}; `mlrs tokens create --tokens-file` makes it",
                    field="tokens_file",
                ) from None

    def grant_of(self, token: str) -> Grant | None:
        """Return what a token gives; `None` if it is not, or no longer, good.

        It takes as long for a token that is unknown as for one with a wrong secret.
        """
        parts = TOKEN.fullmatch(token)
        token_id, secret = parts.groups() if parts else ("", token)
        known = self._tokens.get(token_id)
        same = hmac.compare_digest(digest_of_secret(secret), known.sha256 if known else _NOBODY)
        if known is None or not same:
            return None
        grant = self._grants[token_id]
        grant.good = grant.good and known.is_good(time.time())
        return grant if grant.good else None

    async def keep_fresh(self) -> None:
        """Look at the file, and at the clock, every second; goes on until cancelled."""
        failing = False
        while True:
            await asyncio.sleep(LOOK_S)
            try:
                if (found := await asyncio.to_thread(self._read_if_changed)) is not None:
                    self._take(*found)
                if failing:
                    log.info("tokens_readable_again", file=str(self._file.path))
                failing = False
            except (AdvisorError, OSError) as error:
                if self.is_on and not failing:
                    failing = True
                    log.error("tokens_unreadable", problem=str(error), effect="those known so far stay good")
            self._expire()

    def _read_if_changed(self) -> tuple[Stamp, dict[str, Token]] | None:
        """Return what the file holds, and its stamp, if it changed; on any thread."""
        status = self._file.path.stat()
        stamp = status.st_mtime_ns, status.st_ino, status.st_size
        return None if stamp == self._stamp else (stamp, self._file.read())

    def _take(self, stamp: Stamp, tokens: Mapping[str, Token]) -> None:
        """Take over what the file holds; what a token gave that is not as it was is over."""
        now = time.time()
        for token_id, grant in self._grants.items():
            if (token := tokens.get(token_id)) is None or token != self._tokens[token_id]:
                grant.good = False
        self._grants = {
            token_id: kept
            if (kept := self._grants.get(token_id)) and kept.good
            else Grant(token.tenant, token.role, good=token.is_good(now))
            for token_id, token in tokens.items()
        }
        self._tokens, self._stamp = tokens, stamp
        self.is_on = self.is_on or bool(tokens)
        log.info("tokens_read", count=sum(token.is_good(now) for token in tokens.values()))

    def _expire(self) -> None:
        now = time.time()
        for token_id, token in self._tokens.items():
            if not token.is_good(now):
                self._grants[token_id].good = False
