"""Where the user's daemon listens, and where it keeps its data."""

from __future__ import annotations

import os
import socket
import tempfile
from pathlib import Path

import pytest

from mlrs.errors import UnavailableError
from mlrs.local import place
from mlrs.local.place import MAX_SOCKET_PATH, local_place


@pytest.fixture
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with one for runtime, state and temporary files, which the environment names."""
    for name, variable in (("run", "XDG_RUNTIME_DIR"), ("state", "XDG_STATE_HOME"), ("tmp", "TMPDIR")):
        (tmp_path / name).mkdir()
        monkeypatch.setenv(variable, str(tmp_path / name))
    monkeypatch.setattr(tempfile, "tempdir", None)  # which is found once
    monkeypatch.setattr(place, "MAX_SOCKET_PATH", 250)  # the folders of tests have long names
    return tmp_path


def test_the_login_session_has_the_socket(folders: Path) -> None:
    """The socket is in `XDG_RUNTIME_DIR`, by user and version of the contract."""
    assert local_place().socket == folders / "run" / f"mlrs-{os.getuid()}" / "v1" / "daemon.sock"


def test_without_a_session_it_is_among_temporary_files(
    folders: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A runtime folder that does not exist is passed over."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(folders / "none"))
    assert local_place().folder.is_relative_to(folders / "tmp")


def test_a_path_that_is_too_long_is_passed_over(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """With long names of the runtime and temporary folders, the socket's path still fits."""
    long = tmp_path / ("x" * 120)
    long.mkdir()
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(long))
    monkeypatch.setenv("TMPDIR", str(long))
    monkeypatch.setattr(tempfile, "tempdir", None)
    assert len(os.fsencode(local_place().socket)) <= MAX_SOCKET_PATH


def test_the_data_has_the_names_of_host_and_contract(folders: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A home that several machines share has a folder for each, so that no two use one database."""
    monkeypatch.setattr(socket, "gethostname", lambda: "node 7/a")
    assert local_place().data_dir == folders / "state" / "mlrs" / "local" / "node_7_a-v1"


def test_no_data_on_a_network_file_system(folders: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A home on a file system of several machines keeps no database; a local folder does."""
    monkeypatch.setattr(place, "is_shared", lambda path: path.is_relative_to(folders / "state"))
    assert local_place().data_dir.is_relative_to(place.LASTING / f"mlrs-{os.getuid()}")


@pytest.mark.parametrize(
    ("kind", "problem"),
    [("open", "open to other users"), ("link", "is not a folder"), ("file", "cannot be created")],
)
def test_a_folder_that_others_may_have_made_is_refused(
    folders: Path, monkeypatch: pytest.MonkeyPatch, kind: str, problem: str
) -> None:
    """A folder of the socket that is open to others, or is none, is not used, and the error says why."""
    monkeypatch.setattr(place, "_runtime_folders", lambda: iter([folders / "run"]))
    own = folders / "run" / f"mlrs-{os.getuid()}"
    if kind == "open":
        own.mkdir()
        own.chmod(0o755)
    elif kind == "link":
        own.symlink_to(folders / "tmp")
    else:
        own.touch()
    with pytest.raises(UnavailableError, match=problem):
        local_place()


def test_a_folder_of_another_user_is_refused(folders: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder of the socket that belongs to another user is not used."""
    monkeypatch.setattr(place, "_runtime_folders", lambda: iter([folders / "run"]))
    local_place()
    uid = os.getuid()
    (folders / "run" / f"mlrs-{uid}").rename(folders / "run" / f"mlrs-{uid + 1}")
    monkeypatch.setattr(os, "getuid", lambda: uid + 1)
    with pytest.raises(UnavailableError, match="belongs to another user"):
        local_place()
