"""The address that a daemon listens on, and the error when it cannot be used."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from mlrs_server.errors import Reason
from tests.server.support import raises, service
from tests.support.daemon import Daemon


def serves(address: str) -> bool:
    """Return whether a daemon answers there."""
    with grpc.insecure_channel(address) as channel:
        stub = health_pb2_grpc.HealthStub(channel)  # type: ignore[no-untyped-call]
        try:
            answer = stub.Check(health_pb2.HealthCheckRequest(), timeout=20)
        except grpc.RpcError:
            return False
    return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)


def refused(*arguments: str) -> str:
    """Run `mlrs serve`, which must fail; return its standard error."""
    command = [sys.executable, "-m", "mlrs_cli", "serve", *arguments]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    assert ended.returncode == 1, ended.stderr
    return ended.stderr


def test_a_socket_is_one_daemons_at_a_time(tmp_path: Path, model_file: Path) -> None:
    """A second daemon on a unix socket fails with the first one's process id, and does not disturb it."""
    path = tmp_path / "mlrs.sock"
    with Daemon(tmp_path / "one", "--model", str(model_file), listen=f"unix:{path}") as first:
        other = ("--data-dir", str(tmp_path / "two"), "--model", str(model_file))
        said = refused("--listen", f"unix:{path}", *other)
        assert f"another daemon (process {first.pid}) listens on unix:{path}" in said
        assert serves(f"unix:{path}")
        assert first.stop() == 0
        assert not path.exists()
    with Daemon(tmp_path / "two", "--model", str(model_file), listen=f"unix:{path}"):
        assert serves(f"unix:{path}")


def test_a_stale_socket_is_replaced(tmp_path: Path, model_file: Path) -> None:
    """A daemon that was killed leaves its socket behind, and the next one listens there."""
    path = tmp_path / "mlrs.sock"
    with Daemon(tmp_path / "one", "--model", str(model_file), listen=f"unix:{path}") as daemon:
        daemon.kill()
        assert path.is_socket()
        daemon.start()
        assert serves(f"unix:{path}")


async def test_a_socket_of_another_program_is_left_alone(tmp_path: Path, model_file: Path) -> None:
    """A socket that another program listens on is not replaced, nor is a file that is not a socket."""
    path = tmp_path / "mlrs.sock"
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(path))
        other.listen()
        with raises(Reason.INVALID_FIELD, field="listen", match=f"another process listens on unix:{path}"):
            async with service(tmp_path / "d", model_file, listen=f"unix:{path}"):
                pass
        assert path.is_socket()
    path.unlink()
    path.write_text("mine")
    with raises(Reason.INVALID_FIELD, field="listen", match="a file is in the way"):
        async with service(tmp_path / "d", model_file, listen=f"unix:{path}"):
            pass
    assert path.read_text() == "mine"


@pytest.mark.parametrize(
    ("listen", "why"),
    [
        ("127.0.0.1:{taken}", "Address already in use"),
        ("localhost:{taken}", "Address already in use"),
        ("192.0.2.1:0", "Cannot assign requested address"),
        ("unix:{folder}/nowhere/mlrs.sock", "No such file or directory"),
        ("unix:{folder}/" + 100 * "x", "AF_UNIX path too long"),
    ],
)
def test_an_address_that_cannot_be_used_is_one_line(tmp_path: Path, listen: str, why: str) -> None:
    """A start that fails for its address prints one line with the cause and what to do."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        where = listen.format(taken=other.getsockname()[1], folder=tmp_path)
        said = refused("--listen", where, "--data-dir", str(tmp_path / "d"), "--insecure")
    assert said == (f"Error: listen: cannot listen on {where}: {why}; choose another address with --listen\n")
