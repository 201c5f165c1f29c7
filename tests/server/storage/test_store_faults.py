"""A store that fails says what is wrong and what to do, and works again once that is mended."""

from __future__ import annotations

import logging
import resource
import socket
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import psycopg
import pytest

from mlrs_server.errors import AdvisorError, Reason
from mlrs_server.storage import SqlStore, open_store
from mlrs_server.storage.engines import bounded, sqlite
from tests.server.storage.stored import create, fill, got, same, stretch, update
from tests.server.support import raises
from tests.support.mounts import filled, small_disk, write_protected
from tests.support.postgres import PASSWORD, PostgresServer, postgres_or_skip

RESTORE = "`mlrs store restore FILE --replace`"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where a SQLite store is."""
    return tmp_path / "mlrs.sqlite3"


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    """A PostgreSQL server for tests that stop it."""
    server = postgres_or_skip()
    yield server
    server.remove()


def filled_store(where: Path | str) -> SqlStore:
    """Return a store with a run "a" of two steps."""
    store = open_store(where)
    fill(store, create(store, "a"), 2)
    return store


def check_goes_on(store: SqlStore, start: int = 2) -> None:
    """Check that a run "a" of so many steps takes more, and that nothing of it is lost."""
    run = got(store, "a")
    assert run.snapshot.next_step == start
    store.append([update(run, start, start + 3)])
    assert same(store.read(run.key, 0, 99), stretch(0, start + 3))


# ---------------------------------------------------------------------------------------- SQLite


def test_a_crash_while_the_file_was_made(path: Path) -> None:
    """A file that a crash left empty as it was made is made again; one that is emptied later is an error."""
    path.touch()
    path.with_name(f"{path.name}.making").touch()
    filled_store(path).close()
    with closing(open_store(path)) as store:
        check_goes_on(store)
    assert not path.with_name(f"{path.name}.making").exists()
    for file in path.parent.iterdir():
        file.unlink()
    path.touch()
    with raises(Reason.STORE, match="the file is empty, so what it held is lost"):
        open_store(path)


def test_a_full_disk(tmp_path: Path) -> None:
    """A write on a full disk fails whole, reading goes on, and once there is space so does writing."""
    with small_disk(tmp_path / "disk") as disk, closing(filled_store(disk / "mlrs.sqlite3")) as store:
        run = got(store, "a")
        with filled(disk):
            for _ in range(2):
                with raises(Reason.STORE, match="mlrs.sqlite3: its disk is full; free some"):
                    store.append([update(run, 2, 20_000)])
            assert same(store.read(run.key, 0, 99), stretch(0, 2))
        check_goes_on(store)


def test_a_disk_that_is_full_at_the_start(tmp_path: Path) -> None:
    """Neither a new store nor one that is there opens on a full disk, and both do later."""
    with small_disk(tmp_path / "disk") as disk:
        filled_store(disk / "old.sqlite3").close()
        with filled(disk):
            for name in ("old", "new"):
                with raises(Reason.STORE, match=f"cannot open .*/{name}.sqlite3: its disk is full"):
                    open_store(disk / f"{name}.sqlite3")
        with closing(open_store(disk / "old.sqlite3")) as store:
            check_goes_on(store)
        (disk / "new.sqlite3").unlink(missing_ok=True)
        filled_store(disk / "new.sqlite3").close()


def test_a_disk_that_is_read_only(tmp_path: Path) -> None:
    """A store that can be read but not written is refused as it is opened, not at the first flush."""
    with small_disk(tmp_path / "disk") as disk:
        path = disk / "mlrs.sqlite3"
        filled_store(path).close()
        with write_protected(disk), raises(Reason.STORE, match=f"cannot open the store {path}: it"):
            open_store(path)
        with closing(open_store(path)) as store:
            check_goes_on(store)


@contextmanager
def no_larger_files(size: int) -> Iterator[None]:
    """Have this process's writes beyond a size fail, as those to a broken disk do."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_disk_that_fails(path: Path) -> None:
    """A write that the disk refuses is named as such, and is done once the disk takes it."""
    with closing(filled_store(path)) as store:
        run = got(store, "a")
        with no_larger_files(32_768), raises(Reason.STORE, match="its disk fails to read or write.*IOERR"):
            store.append([update(run, 2, 20_000)])
        check_goes_on(store)


def test_another_process_that_holds_the_file(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A lock that does not go away is an error in a while, and reading goes on beside it."""
    monkeypatch.setattr(sqlite, "BUSY_S", 0.1)
    with closing(filled_store(path)) as store:
        run = got(store, "a")
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            with raises(Reason.STORE, match="another process holds it; end that process"):
                store.append([update(run, 2, 4)])
            assert same(store.read(run.key, 0, 99), stretch(0, 2))
            with raises(Reason.STORE, match="cannot open the store .* another process holds it"):
                open_store(path)
            other.execute("ROLLBACK")
        check_goes_on(store)


@pytest.mark.parametrize("kept", [0, 100, 4096, 12_288])
def test_a_file_that_was_cut(path: Path, kept: int) -> None:
    """A file that lost its end is refused, also one that lost all, with the command that restores it."""
    filled_store(path).close()
    with path.open("r+b") as file:
        assert file.seek(0, 2) > kept
        file.truncate(kept)
    with raises(Reason.STORE, match=f"cannot open the store {path}: .*{RESTORE}"):
        open_store(path)
    assert path.stat().st_size == kept


def test_a_corrupt_page(path: Path) -> None:
    """A page of noise is an error that says how to restore; runs on other pages are read and written."""
    with closing(filled_store(path)) as store:
        other = create(store, "b")
        store.append([update(other, 0, 5000)])
    with closing(sqlite3.connect(path)) as file:
        ((root, size),) = file.execute(
            "SELECT rootpage, (SELECT page_size FROM pragma_page_size) FROM sqlite_master "
            "WHERE name = 'observations'"
        ).fetchall()
    with path.open("r+b") as raw:
        raw.seek((root - 1) * size)
        raw.write(b"\xa5" * size)
    with closing(open_store(path)) as store:
        run = got(store, "a")
        for _ in range(2):
            with raises(Reason.STORE, match=f"it is damaged; .*{RESTORE}.*CORRUPT"):
                store.read(run.key, 0, 9)
            with raises(Reason.STORE, match=RESTORE):
                store.append([update(run, 2, 4)])
        create(store, "c")


@pytest.mark.parametrize("kind", ["text", "folder", "missing folder", "another database"])
def test_what_is_no_store(tmp_path: Path, kind: str) -> None:
    """A file that is no database, another program's, a folder, and a place that is not there are named."""
    path, match = tmp_path / "store", ""
    match kind:
        case "text":
            path.write_text("not a database " * 100)
            match = "damaged, or no database at all"
        case "folder":
            path.mkdir()
            match = "see that .* is a folder that this user may write in"
        case "missing folder":
            path = tmp_path / "nowhere" / "store"
            match = "see that .*nowhere is a folder"
        case _:
            with closing(sqlite3.connect(path)) as file:
                file.execute("CREATE TABLE runs (lap INTEGER)")
            match = "is a database of something else; choose another data folder"
    with raises(Reason.STORE, match=f"{path}.*{match}"):
        open_store(path)


def test_a_file_that_is_moved_away_is_not_made_again(path: Path) -> None:
    """A store whose file is gone when it is opened again, after a failure, does not begin anew in silence."""
    with closing(filled_store(path)) as store:
        store._engine.dispose()  # as after a failure of the disk
        path.rename(path.with_name("moved"))
        with raises(Reason.STORE, match="it cannot be opened"):
            store.get(["a"])
        path.with_name("moved").rename(path)
        check_goes_on(store)


# ------------------------------------------------------------------------------------ PostgreSQL


def free_port() -> int:
    """Return a port on which nothing listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.mark.parametrize("fault", ["password", "database", "port", "encoding of the URL", "engine"])
def test_a_server_that_cannot_be_used(postgres: PostgresServer, fault: str) -> None:
    """What keeps a store from being opened is named in one line, and the password is not in it."""
    secret = "hunter2%2Fhunter2"  # noqa: S105  # of nobody
    url, match = {
        "password": (
            postgres.url(password=secret),
            "the password is wrong; give them in the URL",
        ),
        "database": (postgres.url("nowhere"), "there is no such database; make it with `createdb`"),
        "port": (
            f"postgresql://me:{secret}@127.0.0.1:{free_port()}/mlrs",
            "the server cannot be reached; see that it runs",
        ),
        "encoding of the URL": (f"postgresql://me:{secret}@host:port/mlrs", "store: is no URL of a store"),
        "engine": (f"mysql://me:{secret}@host/mlrs", "store: is no URL of a store; give postgresql://"),
    }[fault]
    with pytest.raises(AdvisorError, match=match) as caught:
        open_store(url)
    said = str(caught.value)
    assert "\n" not in said
    assert "sqlite:" not in said  # which `mlrs serve` refuses
    assert not any(part in said for part in ("hunter2", PASSWORD, PASSWORD.replace(" ", "%20")))


def test_a_server_that_is_restarted(server: PostgresServer) -> None:
    """The first call after a restart works: the store connects anew by itself."""
    with closing(filled_store(server.new_database())) as store:
        server.restart()
        check_goes_on(store)


@pytest.mark.parametrize("ending", ["stop", "kill"])
def test_a_server_that_is_gone(server: PostgresServer, ending: str) -> None:
    """While a server is down each call fails and says so; what was stored is there when it is back."""
    with closing(filled_store(server.new_database())) as store:
        run = got(store, "a")
        getattr(server, ending)()
        for _ in range(2):
            with raises(Reason.STORE, match="the server cannot be reached; see that it runs"):
                store.append([update(run, 2, 4)])
        server.start()
        check_goes_on(store)


def test_a_server_that_stands_still(server: PostgresServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server whose machine acknowledges all and that answers nothing is given up on, within bounds."""
    monkeypatch.setattr(bounded, "PATIENCE_S", 0.5)
    monkeypatch.setitem(bounded.PARAMETERS, "connect_timeout", 2)
    with closing(filled_store(server.new_database())) as store:
        run = got(store, "a")
        server.pause()
        try:
            for _ in range(2):
                with raises(Reason.STORE, match="the server"):
                    store.append([update(run, 2, 4)])
        finally:
            server.resume()
        check_goes_on(store)


def test_a_server_that_is_read_only(server: PostgresServer) -> None:
    """A standby, or one that was set read-only, is named; once it can be written all goes on."""
    url = server.new_database()
    name = url.rpartition("/")[2]
    filled_store(url).close()

    def set_read_only(value: str) -> None:
        with psycopg.connect(server.url(), autocommit=True) as connection:
            connection.execute(f"ALTER DATABASE {name} SET default_transaction_read_only = {value}".encode())

    set_read_only("on")
    with raises(Reason.STORE, match="it is read-only here; give the URL of the primary"):
        open_store(url)
    set_read_only("off")
    with closing(open_store(url)) as store:
        check_goes_on(store)


def test_a_row_that_another_session_holds(server: PostgresServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """A lock that does not go away is an error in a while; nothing is half written."""
    options = str(bounded.PARAMETERS["options"]).replace("lock_timeout=5000", "lock_timeout=100")
    monkeypatch.setitem(bounded.PARAMETERS, "options", options)
    url = server.new_database()
    with closing(filled_store(url)) as store, psycopg.connect(url) as other:
        run = got(store, "a")
        other.execute("SELECT * FROM runs FOR UPDATE")
        with raises(Reason.STORE, match="another session holds a row"):
            store.append([update(run, 2, 4)])
        other.rollback()
        check_goes_on(store)


def test_passwords_are_in_no_log(
    postgres: PostgresServer, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    """Neither logging at its most talkative nor a store's name says the password."""
    caplog.set_level(logging.DEBUG)
    with closing(filled_store(postgres.new_database())) as store:
        assert "***" in store.name
        said = [store.name, repr(store._engine), caplog.text, *capfd.readouterr()]
    assert not any(PASSWORD in text or PASSWORD.replace(" ", "%20") in text for text in said)
