"""What other users of the machine or network can see of a daemon: private files, one page, few log lines."""

from __future__ import annotations

import json
import stat
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import grpc
import pytest

from mlrs_proto import v1 as pb
from mlrs_proto.v1.advisor_service_pb2_grpc import AdvisorServiceStub
from mlrs_server.auth.roles import Role
from mlrs_server.auth.token_store import TokenStore
from mlrs_server.auth.tokens import TokenFile
from mlrs_server.errors import Reason
from tests.server.support import raises
from tests.support.daemon import Daemon
from tests.support.ports import steady_port


def mode(path: Path) -> int:
    """Return the permission bits of a file."""
    return stat.S_IMODE(path.stat().st_mode)


def advise(address: str, token: str = "") -> grpc.StatusCode:
    """Open a run and observe a step of it; return the status."""
    metadata = [("authorization", f"Bearer {token}")] if token else []
    with grpc.insecure_channel(address) as channel:
        stub = AdvisorServiceStub(channel)
        try:
            stub.OpenRun(pb.OpenRunRequest(run_id="a"), timeout=20, metadata=metadata)
            stub.Advise(pb.AdviseRequest(run_id="a", loss=2.0), timeout=20, metadata=metadata)
        except grpc.RpcError as error:
            says: Any = error
            return says.code()
    return grpc.StatusCode.OK


@pytest.mark.parametrize("before", ["nothing", "an open folder", "an open store"])
def test_the_data_folder_is_its_owners(tmp_path: Path, model_file: Path, before: str) -> None:
    """The data folder is of mode 0700, the database with its log and index 0600, also if they were open."""
    data_dir = tmp_path / "data"
    files = [data_dir / f"mlrs.sqlite3{suffix}" for suffix in ("", "-wal", "-shm")]
    if before == "an open folder":
        data_dir.mkdir(mode=0o755)
    with Daemon(data_dir, "--model", str(model_file)) as daemon:
        if before == "an open store":
            assert advise(daemon.address) == grpc.StatusCode.OK
            daemon.kill()  # which leaves the log and the index behind
            data_dir.chmod(0o755)
            for file in files:
                file.chmod(0o644)
            daemon.start()
        assert advise(daemon.address) == grpc.StatusCode.OK
        assert mode(data_dir) == 0o700
        assert [mode(file) for file in files] == [0o600] * 3


def test_a_folder_with_others_files_is_left_as_it_is(tmp_path: Path, model_file: Path) -> None:
    """A folder that holds more than the daemon's own files keeps its mode, and a warning says so."""
    (tmp_path / "theirs").write_text("")
    tmp_path.chmod(0o755)
    with Daemon(tmp_path, "--model", str(model_file)) as daemon:
        assert daemon.stop() == 0
    assert mode(tmp_path) == 0o755
    assert mode(tmp_path / "mlrs.sqlite3") == 0o600
    assert "data_dir_open" in daemon.log.read_text(encoding="utf-8")


def test_tokens_that_anybody_can_write_are_refused(tmp_path: Path) -> None:
    """A world-writable file of tokens is refused, with what to do, by daemons and by `mlrs tokens`."""
    file = TokenFile(tmp_path / "tokens.json")
    _, token = file.create(tenant="", role=Role.ADMIN)
    file.path.chmod(0o602)
    for use in (
        lambda: TokenStore(file, required=False),
        lambda: file.create(tenant="", role=Role.ADMIN),
        lambda: file.revoke(token.id),
    ):
        with raises(Reason.STORE, field="tokens_file", match=f"every user .* chmod o-w {file.path}"):
            use()
    file.path.chmod(0o600)
    assert TokenStore(file, required=False).is_on


def test_metrics_are_at_one_path(tmp_path: Path, model_file: Path) -> None:
    """The metrics port answers 200 at /metrics and 404 everywhere else."""
    at = f"127.0.0.1:{steady_port()}"
    with Daemon(tmp_path / "d", "--model", str(model_file), "--metrics", at):
        with urllib.request.urlopen(f"http://{at}/metrics?x=y", timeout=20) as answer:
            assert answer.status == 200
            assert b"mlrs_store_up" in answer.read()
        for path in ("/", "/admin", "/metrics/", "/metrics/more", "/favicon.ico"):
            with pytest.raises(urllib.error.HTTPError) as refused:
                urllib.request.urlopen(f"http://{at}{path}", timeout=20)
            assert refused.value.code == 404
            refused.value.close()


def test_refused_tokens_are_logged_and_cannot_fill_the_disk(tmp_path: Path, model_file: Path) -> None:
    """Refused calls are logged with their peer, RPC and token id; a flood of them leaves few lines."""
    text, token = TokenFile(tmp_path / "d" / "tokens.json").create(tenant="acme", role=Role.ADVISE)
    with Daemon(tmp_path / "d", "--model", str(model_file), "--log-format", "json") as daemon:
        assert advise(daemon.address, text) == grpc.StatusCode.OK
        assert logged(daemon) == []
        wrong = text[:-1] + ("A" if text[-1] != "A" else "B")
        assert advise(daemon.address, wrong) == grpc.StatusCode.UNAUTHENTICATED
        (line,) = logged(daemon)
        assert line["level"] == "warning"
        assert line["reason"] == "unauthenticated"
        assert line["rpc"] == "OpenRun"
        assert line["token_id"] == token.id
        assert line["peer"].startswith("ipv4:127.0.0.1:")
        assert wrong not in json.dumps(line)
        for _ in range(500):
            assert advise(daemon.address) == grpc.StatusCode.UNAUTHENTICATED
        assert len(logged(daemon)) <= 20


def logged(daemon: Daemon) -> list[dict[str, Any]]:
    """Return a daemon's log lines of refused calls."""
    lines = daemon.log.read_text(encoding="utf-8").splitlines()
    return [event for event in map(json.loads, lines) if event["event"] == "call_refused"]
