"""Which daemon a request is about, and who has to sign in."""

from __future__ import annotations

import pytest

from mlrs.errors import UnavailableError
from mlrs_web.daemons import access as module
from mlrs_web.daemons.access import Access, NoTokensError, SignInError
from mlrs_web.settings import Settings
from tests.support.daemon import Daemon

OPEN = "10.0.0.7:8265"


async def test_beyond_this_machine_nobody_is_let_in_without_a_token(daemon: Daemon) -> None:
    """A dashboard that others reach shows nothing of a daemon without tokens, whatever token is given."""
    access = Access(Settings(target=(daemon.address,), listen=OPEN))
    with pytest.raises(SignInError, match="sign in"):
        access.of(None)
    with pytest.raises(NoTokensError, match=r"the daemon has no tokens.*mlrs tokens create"):
        await access.admit("anything")
    assert len(access.sessions) == 0
    await access.close()


async def test_if_the_operator_says_so_everybody_is_let_in(daemon: Daemon) -> None:
    """With `--insecure`, browsers of other machines see a daemon without tokens."""
    access = Access(Settings(target=(daemon.address,), listen=OPEN, insecure=True))
    assert (await access.of(None).advisor.daemon()).version
    await access.close()


async def test_connections_that_nobody_uses_are_closed(
    daemon: Daemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A connection of a browser that has signed out is closed after a while, and no other."""
    access = Access(Settings(target=(daemon.address,)))
    id_ = access.sessions.add("a")
    connection = access.of(id_)
    monkeypatch.setattr(module, "UNUSED_S", -1.0)
    await access.tidy()
    assert access.of(id_) is connection
    access.sessions.remove(id_)
    await access.tidy()
    assert access.of(access.sessions.add("a")) is not connection
    await access.close()


async def test_a_failed_sign_in_leaves_no_connection() -> None:
    """Where the daemon does not answer, nobody is signed in, and nothing is kept of the attempt."""
    access = Access(Settings(target=("127.0.0.1:1",)))
    with pytest.raises(UnavailableError):
        await access.admit("a")
    assert len(access.sessions) == 0
    assert access._daemons == {}
