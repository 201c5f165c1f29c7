"""The tokens that a daemon knows, as their file changes."""

from __future__ import annotations

import asyncio
import hmac
import time
from collections.abc import Mapping
from pathlib import Path

import structlog

from mlrs_server.auth.principal import Grant
from mlrs_server.auth.tokens import TOKEN, Token, TokenFile, digest_of_secret
from mlrs_server.errors import AdvisorError, Reason
from mlrs_server.system.files import write_atomically

log = structlog.get_logger()

MARK = b"Tokens were wanted here; while this file is there, the daemon does not start without any.\n"
"""What the marker says, for people."""
LOOK_S = 1.0
"""How often the file is looked at."""
_NOBODY = "0" * 64  # the digest that an unknown token is compared with, and of no secret

Stamp = tuple[int, int, int]


class TokenBook:
    """Tokens, and what each still gives. Used from one event loop.

    What cannot be read changes nothing: tokens that were good stay good, and no call gets in without one.
    """

    def __init__(self, file: TokenFile, *, required: bool, marker: Path | None = None) -> None:
        """Read the file.

        Args:
            file: where the tokens are.
            required: whether tokens are wanted though the file has none. If not, they are once it has one.
            marker: a file that says, from one start to the next, that tokens were wanted; made once they are.

        Raises:
            AdvisorError: the file is damaged, or required and not there; or tokens were wanted at an earlier
                start, and now there are none.
        """
        self._file = file
        self._marker = marker
        self._is_marked = marker is None
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
        self._check_marker()

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
        grant.good = known.is_good(time.time())
        return grant if grant.good else None

    async def keep_fresh(self) -> None:
        """Look at the file, and at the clock, every second; goes on until cancelled."""
        failing = False
        while True:
            await asyncio.sleep(LOOK_S)
            try:
                if (found := await asyncio.to_thread(self._read_if_changed)) is not None:
                    self._take(*found)
                if self.is_on and not self._is_marked:
                    await asyncio.to_thread(self._mark)
                if failing:
                    log.info("tokens_readable_again", file=str(self._file.path))
                failing = False
            except (AdvisorError, OSError) as error:
                if self.is_on and not failing:
                    failing = True
                    log.error("tokens_unreadable", problem=str(error), effect="those known so far stay good")
            self._look_at_clock()

    def _read_if_changed(self) -> tuple[Stamp, dict[str, Token]] | None:
        """Return what the file holds, and its stamp, if it changed; on any thread."""
        status = self._file.path.stat()
        stamp = status.st_mtime_ns, status.st_ino, status.st_size
        return None if stamp == self._stamp else (stamp, self._file.read())

    def _take(self, stamp: Stamp, tokens: Mapping[str, Token]) -> None:
        """Take over what the file holds; what a token gave that is not as it was is over."""
        same = {token_id for token_id, token in tokens.items() if self._tokens.get(token_id) == token}
        for token_id, grant in self._grants.items():
            if token_id not in same:
                grant.good = False
        self._grants = {
            token_id: self._grants[token_id] if token_id in same else Grant(token.tenant, token.role)
            for token_id, token in tokens.items()
        }
        self._tokens, self._stamp = tokens, stamp
        self._look_at_clock()
        self.is_on = self.is_on or bool(tokens)
        log.info("tokens_read", count=sum(grant.good for grant in self._grants.values()))

    def _look_at_clock(self) -> None:
        """Have each token give what it gives now: a clock may also be set back."""
        now = time.time()
        for token_id, token in self._tokens.items():
            self._grants[token_id].good = token.is_good(now)

    def _check_marker(self) -> None:
        """Refuse to let everybody in where tokens were wanted before."""
        if self._marker is None:
            return
        self._is_marked = self._marker.exists()
        if self.is_on and not self._is_marked:
            self._mark()
        elif self._is_marked and not self.is_on:
            raise AdvisorError(
                Reason.INVALID_FIELD,
                f"tokens_file: this daemon has wanted tokens before, and {self._file.path} has none now. "
                "Bring the file back, or say with --tokens-file where it is, or make a token with "
                f"`mlrs tokens create --data-dir {self._marker.parent}`; to let everybody in on purpose, "
                f"delete {self._marker}",
                field="tokens_file",
            )

    def _mark(self) -> None:
        """Make the marker; on any thread."""
        if self._marker is not None:
            write_atomically(self._marker, MARK, what="the daemon")
            self._is_marked = True
