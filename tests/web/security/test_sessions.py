"""Signed-in browsers."""

from __future__ import annotations

from mlrs_web.security.sessions import Sessions
from mlrs_web.settings import Bounds


class Clock:
    """A clock that stands still unless it is told to move."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        """Return the time."""
        return self.now


def test_a_session_ends_when_it_is_idle() -> None:
    """A session stands for its token while it is used, and ends after it was idle for long."""
    clock, ended = Clock(), list[str]()
    sessions = Sessions(Bounds(session_idle_s=10.0), clock, ended.append)
    id_ = sessions.add("token")
    for _ in range(3):
        clock.now += 9.0
        assert sessions.token(id_) == "token"
    clock.now += 11.0
    sessions.drop_idle()
    assert ended == [id_]
    assert sessions.token(id_) is None
    assert len(sessions) == 0


def test_sessions_are_bounded() -> None:
    """Beyond the bound, the session that was idle longest ends."""
    ended = list[str]()
    sessions = Sessions(Bounds(sessions=2), Clock(), ended.append)
    first, second = sessions.add("a"), sessions.add("b")
    assert sessions.token(first) == "a"
    third = sessions.add("c")
    assert [sessions.token(id_) for id_ in (first, second, third)] == ["a", None, "c"]
    assert ended == [second]


def test_signing_out() -> None:
    """A browser signs out alone; a token that is refused signs all of its browsers out."""
    ended = list[str]()
    sessions = Sessions(Bounds(), Clock(), ended.append)
    ids = [sessions.add("a"), sessions.add("a"), sessions.add("b")]
    sessions.remove(ids[0])
    assert [sessions.token(id_) for id_ in ids] == [None, "a", "b"]
    sessions.remove_token("a")
    assert [sessions.token(id_) for id_ in ids] == [None, None, "b"]
    sessions.remove(ids[0])
    assert ended == ids[:2]
    assert not sessions.has("a")
    assert sessions.token(None) is None
    assert len(set(ids)) == 3
    assert all(len(id_) >= 43 for id_ in ids)  # 256 bits
