"""Tokens and their file."""

from __future__ import annotations

import asyncio
import json
import stat
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import structlog

from mlrs_server.auth import token_store as book_module
from mlrs_server.auth.roles import Role
from mlrs_server.auth.token_store import TokenStore
from mlrs_server.auth.tokens import TOKEN, TokenFile, digest_of_secret
from mlrs_server.errors import Reason
from mlrs_server.system.files import write_atomically
from tests.server.support import raises


@pytest.fixture
def file(tmp_path: Path) -> TokenFile:
    """A file of tokens that does not exist yet."""
    return TokenFile(tmp_path / "sub" / "tokens.json")


def test_a_token_is_stored_as_its_hash(file: TokenFile) -> None:
    """The file holds only the SHA-256 of a token's secret, and only its owner can read it."""
    text, token = file.create(tenant="acme", role=Role.ADAPT, name="ci", lifetime_s=60)
    match = TOKEN.fullmatch(text)
    assert match is not None
    assert match[1] == token.id
    written = file.path.read_text()
    assert match[2] not in written
    assert digest_of_secret(match[2]) in written
    assert stat.S_IMODE(file.path.stat().st_mode) == 0o600
    assert file.read() == {token.id: token}
    assert (token.tenant, token.role, token.name) == ("acme", Role.ADAPT, "ci")
    assert token.expires == pytest.approx(time.time() + 60, abs=30)
    assert [path.name for path in file.path.parent.iterdir()] == ["tokens.json"]


def test_tokens_differ(file: TokenFile) -> None:
    """No two tokens share an id or a secret."""
    texts = [file.create(tenant="", role=Role.ADVISE)[0] for _ in range(20)]
    ids, secrets = zip(*(text.removeprefix("mlrs_").split("_", 1) for text in texts), strict=True)
    assert len(set(ids)) == len(set(secrets)) == 20


def test_concurrent_changes_are_all_stored(file: TokenFile) -> None:
    """Tokens that threads create at the same time are all in the file."""
    with ThreadPoolExecutor(8) as executor:
        made = list(executor.map(lambda _: file.create(tenant="", role=Role.ADVISE)[1], range(40)))
        list(executor.map(lambda token: file.revoke(token.id), made[::2]))
    tokens = file.read()
    assert set(tokens) == {token.id for token in made}
    assert sum(token.revoked is not None for token in tokens.values()) == 20


def test_processes_do_not_lose_changes(file: TokenFile) -> None:
    """Tokens that processes create at the same time are all in the file."""
    script = (
        "import sys; from pathlib import Path\n"
        "from mlrs_server.auth.roles import Role\n"
        "from mlrs_server.auth.tokens import TokenFile\n"
        "for _ in range(10): TokenFile(Path(sys.argv[1])).create(tenant='', role=Role.ADVISE)\n"
    )
    running = [subprocess.Popen([sys.executable, "-c", script, str(file.path)]) for _ in range(3)]
    assert [process.wait(60) for process in running] == [0, 0, 0]
    assert len(file.read()) == 30


def test_revoking_twice_is_no_error_and_of_nothing_is(file: TokenFile) -> None:
    """A revoked token keeps the time of its revocation; an unknown id is an error that names it."""
    _, token = file.create(tenant="", role=Role.ADVISE)
    first = file.revoke(token.id)
    assert first.revoked is not None
    assert file.revoke(token.id) == first
    with raises(Reason.INVALID_FIELD, field="id", match="no token 'nobody'"):
        file.revoke("nobody")


@pytest.mark.parametrize("tenant", ["ACME", "a!b", "a b", "-a", "a" * 33, "a/b", "ä"])
def test_malformed_tenants_are_refused(file: TokenFile, tenant: str) -> None:
    """A tenant's name cannot be mistaken for a part of an id."""
    with raises(Reason.INVALID_FIELD, field="tenant"):
        file.create(tenant=tenant, role=Role.ADVISE)
    assert not file.path.exists()


GOOD = {"id": "0" * 12, "tenant": "", "role": "admin", "name": "", "sha256": "0" * 64, "created": 1.0}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "{}",
        '{"format": 2, "tokens": []}',
        '{"format": 1, "tokens": {}, "x": ' + "[" * 50_000,
        '{"format": 1, "tokens": [{}]}',
        json.dumps({"format": 1, "tokens": [{**GOOD, "role": "root"}]}),
        json.dumps({"format": 1, "tokens": [{**GOOD, "tenant": "a!b"}]}),
        json.dumps({"format": 1, "tokens": [{**GOOD, "sha256": "0"}]}),
        json.dumps({"format": 1, "tokens": [{**GOOD, "sha256": 7}]}),
        json.dumps({"format": 1, "tokens": [{**GOOD, "expires": "never"}]}),
        json.dumps({"format": 1, "tokens": [{**GOOD, "more": 1}]}),
    ],
)
def test_a_daemon_does_not_start_with_a_damaged_file(file: TokenFile, text: str) -> None:
    """A file that is not one of tokens is an error that names it, also at a daemon's start."""
    file.path.parent.mkdir()
    file.path.write_text(text)
    for use in (file.read, lambda: TokenStore(file, required=False), lambda: file.revoke("x")):
        with raises(Reason.STORE, field="tokens_file", match="tokens.json cannot be read"):
            use()
    assert file.path.read_text() == text


def test_a_missing_file_is_an_error_if_it_is_required(file: TokenFile) -> None:
    """A file that a setting names must exist; the default one need not."""
    assert not TokenStore(file, required=False).is_on
    with raises(Reason.INVALID_FIELD, field="tokens_file", match="there is no file"):
        TokenStore(file, required=True)
    file.path.parent.mkdir()
    file.path.write_text('{"format": 1, "tokens": []}')
    assert TokenStore(file, required=True).is_on
    assert not TokenStore(file, required=False).is_on


def test_a_valid_token_has_a_principal(file: TokenFile) -> None:
    """A valid token has its tenant and role; a revoked, expired, truncated or altered one has none."""
    good, _ = file.create(tenant="acme", role=Role.ADAPT)
    gone, token = file.create(tenant="acme", role=Role.ADAPT)
    file.revoke(token.id)
    late, _ = file.create(tenant="acme", role=Role.ADAPT, lifetime_s=-1)
    tokens = TokenStore(file, required=False)
    assert tokens.is_on
    principal = tokens.principal_of(good)
    assert principal is not None
    assert (principal.tenant, principal.role, principal.valid) == ("acme", Role.ADAPT, True)
    for bad in (
        gone,
        late,
        good[:-1],
        good + "A",
        good.upper(),
        "",
        "x",
        good[:-1] + "é",
        "mlrs__",
        f" {good}",
    ):
        assert tokens.principal_of(bad) is None


def test_an_unknown_token_costs_the_same_comparison(file: TokenFile, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every token, known or not, is hashed and compared once, so timing reveals nothing."""
    good, _ = file.create(tenant="acme", role=Role.ADAPT)
    tokens = TokenStore(file, required=False)
    compared: list[tuple[int, int]] = []

    def compare(left: str, right: str) -> bool:
        compared.append((len(left), len(right)))
        return left == right

    monkeypatch.setattr(book_module.hmac, "compare_digest", compare)
    for text in (good, good[:-1] + "A", f"mlrs_{'f' * 12}_{good[-43:]}", "", "rubbish"):
        tokens.principal_of(text)
    assert compared == [(64, 64)] * 5


@pytest.mark.parametrize("change", ["removed", "another role", "another tenant", "another secret", "expired"])
async def test_a_principal_becomes_invalid_with_its_entry(
    file: TokenFile, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    """Any change of an entry makes its principal invalid, and no other."""
    monkeypatch.setattr(book_module, "LOOK_S", 0.005)
    (text, token), (unchanged, _) = (file.create(tenant="acme", role=Role.ADMIN) for _ in range(2))
    tokens = TokenStore(file, required=False)
    principal, other = tokens.principal_of(text), tokens.principal_of(unchanged)
    assert principal is not None
    fields = json.loads(file.path.read_text())
    entry = next(entry for entry in fields["tokens"] if entry["id"] == token.id)
    changes = {"another role": {"role": "advise"}, "another tenant": {"tenant": "evil"},
               "another secret": {"sha256": "0" * 64}, "expired": {"expires": 1.0}}  # fmt: skip
    entry.update(changes.get(change, {}))
    if change == "removed":
        fields["tokens"].remove(entry)
    looking = asyncio.create_task(tokens.keep_fresh())
    write_atomically(file.path, json.dumps(fields).encode(), what="tokens")
    async with asyncio.timeout(20):
        while principal.valid:  # noqa: ASYNC110  # nothing announces it
            await asyncio.sleep(0.005)
    looking.cancel()
    assert tokens.principal_of(unchanged) is other
    now = tokens.principal_of(text)
    assert (now is None) == (change in {"removed", "another secret", "expired"})
    assert now is not principal


async def test_an_unreadable_file_changes_nothing(file: TokenFile, monkeypatch: pytest.MonkeyPatch) -> None:
    """While the file is damaged or missing, the tokens read before stay valid; then it is read again."""
    monkeypatch.setattr(book_module, "LOOK_S", 0.005)
    text, _ = file.create(tenant="acme", role=Role.ADMIN)
    tokens = TokenStore(file, required=False)
    good = file.path.read_text()
    looking = asyncio.create_task(tokens.keep_fresh())
    with structlog.testing.capture_logs() as logs:
        for broken in ("{", None):
            logs.clear()
            file.path.unlink() if broken is None else file.path.write_text(broken)
            await _until_logged(logs, "tokens_unreadable")
            assert tokens.is_on
            assert tokens.principal_of(text) is not None
            assert tokens.principal_of(f"mlrs_{'0' * 12}_{'A' * 43}") is None
            file.path.write_text(good)
            await _until_logged(logs, "tokens_readable_again")
            assert [log["event"] for log in logs].count("tokens_unreadable") == 1
        late, _ = file.create(tenant="acme", role=Role.ADVISE)
        async with asyncio.timeout(20):
            while tokens.principal_of(late) is None:  # noqa: ASYNC110  # nothing announces it
                await asyncio.sleep(0.005)
    looking.cancel()


async def test_an_open_call_outlives_a_clock_set_forward_and_back(
    file: TokenFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A principal's validity follows the clock, also while the file changes."""
    monkeypatch.setattr(book_module, "LOOK_S", 0.005)
    clock = {"ahead": 0.0}
    real = time.time
    monkeypatch.setattr(book_module.time, "time", lambda: real() + clock["ahead"])
    text, _ = file.create(tenant="acme", role=Role.ADMIN, lifetime_s=1000.0)
    tokens = TokenStore(file, required=False)
    principal = tokens.principal_of(text)
    assert principal is not None
    looking = asyncio.create_task(tokens.keep_fresh())
    async with asyncio.timeout(20):
        clock["ahead"] = 5000.0
        while principal.valid:  # noqa: ASYNC110  # nothing announces it
            await asyncio.sleep(0.005)
        late, _ = file.create(tenant="acme", role=Role.ADVISE)
        while tokens.principal_of(late) is None:  # noqa: ASYNC110  # nothing announces it
            await asyncio.sleep(0.005)
        assert tokens.principal_of(text) is None
        clock["ahead"] = 0.0
        while not principal.valid:  # noqa: ASYNC110  # nothing announces it
            await asyncio.sleep(0.005)
    looking.cancel()
    assert tokens.principal_of(text) is principal


async def _until_logged(logs: list[Any], event: str) -> None:
    async with asyncio.timeout(20):
        while not any(log["event"] == event for log in logs):  # noqa: ASYNC110  # nothing announces it
            await asyncio.sleep(0.005)
