"""Channels to a daemon: the authority that a server sees."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NoReturn

import grpc
import pytest
import trustme

import mlrs
from mlrs import TLS
from tests.client.conftest import done


class Server(grpc.GenericRpcHandler):
    """A server on a unix socket that refuses every call, and notes the authorities that they name.

    Args:
        path: of the socket.
        credentials: what it encrypts with.
    """

    def __init__(self, path: Path, credentials: grpc.ServerCredentials | None = None) -> None:
        self.target = f"unix:{path}"
        self.authorities: set[str] = set()
        self._server = grpc.server(ThreadPoolExecutor(2), handlers=[self])
        if credentials is None:
            self._server.add_insecure_port(self.target)
        else:
            self._server.add_secure_port(self.target, credentials)
        self._server.start()

    def service(self, _details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[Any, Any]:
        """Return what takes a call."""
        return grpc.unary_unary_rpc_method_handler(self._refuse)

    def _refuse(self, _request: bytes, context: Any) -> NoReturn:
        self.authorities.add(context._rpc_event.call_details.host.decode())
        context.abort(grpc.StatusCode.UNIMPLEMENTED, "a server of this test")

    def stop(self) -> None:
        """Stop at once."""
        self._server.stop(0).wait()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """One without encryption."""
    server = Server(tmp_path / "mlrs.sock")
    yield server
    server.stop()


async def test_the_authority_of_a_unix_socket(connect: Any, server: Server) -> None:
    """Calls over a unix socket name `localhost` as their authority, and not the path in percent escapes."""
    advisor = connect(server.target, timeout_s=10.0)
    with pytest.raises(mlrs.MlrsError, match="a server of this test"):
        await done(advisor.get_run("a"))
    await done(advisor.close())
    assert server.authorities == {"localhost"}


@pytest.mark.parametrize("name", ["localhost", "mlrs.test"])
async def test_certificates_over_a_unix_socket(connect: Any, tmp_path: Path, name: str) -> None:
    """A daemon with TLS on a unix socket shows a certificate of `localhost`, or of `server_name`."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    issued = authority.issue_cert(name)
    pair = issued.private_key_pem.bytes(), issued.cert_chain_pems[0].bytes()
    server = Server(tmp_path / "mlrs.sock", grpc.ssl_server_credentials([pair]))
    server_name = None if name == "localhost" else name
    tls = TLS(ca_file=tmp_path / "ca.pem", server_name=server_name)
    advisor = connect(server.target, timeout_s=10.0, tls=tls)
    with pytest.raises(mlrs.MlrsError, match="a server of this test"):
        await done(advisor.get_run("a"))
    await done(advisor.close())
    server.stop()
