"""Calls of admins that the client has no word for: models go up, versions are made, aliases move."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import click
import grpc

from mlrs_cli.root import DaemonAddress
from mlrs_proto import v1 as pb
from mlrs_proto.v1.model_service_pb2_grpc import ModelServiceStub
from mlrs_server.auth.exposure import is_local

PIECE_BYTES = 512 * 2**10
"""Bytes of a file that go into a message: the sizes at which gRPC is quickest."""
TIMEOUT_S = 600.0
"""How long an upload may take."""


def upload(daemon: DaemonAddress, data: bytes, name: str) -> pb.Model:
    """Upload a model's file under a name, and return the model.

    Raises:
        click.ClickException: the daemon refuses it, or is not there.
    """
    with _stub(daemon) as stub:
        answer = stub.ImportModel(_pieces(data, name), timeout=TIMEOUT_S, metadata=_metadata(daemon))
    model: pb.Model = answer.model
    return model


def set_alias(daemon: DaemonAddress, alias: str, model: str) -> pb.Model:
    """Point an alias at a model, and return the model.

    Raises:
        click.ClickException: the daemon refuses it, or is not there.
    """
    request = pb.SetAliasRequest(alias=alias, model=model)
    with _stub(daemon) as stub:
        answer = stub.SetAlias(request, timeout=TIMEOUT_S, metadata=_metadata(daemon))
    found: pb.Model = answer.model
    return found


def promote(daemon: DaemonAddress, **asked: Any) -> pb.PromoteModelResponse:
    """Make a new version of a model; `asked` are the fields of the request.

    Raises:
        click.ClickException: the daemon refuses it, or is not there.
    """
    with _stub(daemon) as stub:
        answer: pb.PromoteModelResponse = stub.PromoteModel(
            pb.PromoteModelRequest(**asked), timeout=TIMEOUT_S, metadata=_metadata(daemon)
        )
    return answer


def rollback_alias(daemon: DaemonAddress, alias: str) -> pb.Model:
    """Point an alias back, and return the model.

    Raises:
        click.ClickException: the daemon refuses it, or is not there.
    """
    request = pb.RollbackAliasRequest(alias=alias)
    with _stub(daemon) as stub:
        answer = stub.RollbackAlias(request, timeout=TIMEOUT_S, metadata=_metadata(daemon))
    found: pb.Model = answer.model
    return found


def alias_changes(daemon: DaemonAddress, alias: str) -> Sequence[pb.AliasChange] | None:
    """Return what an alias has pointed at, the newest first; `None`: there is none of that name.

    Raises:
        click.ClickException: the daemon refuses it, or is not there.
    """
    request = pb.ListAliasChangesRequest(alias=alias)
    with _stub(daemon) as stub:
        try:
            answer = stub.ListAliasChanges(request, timeout=TIMEOUT_S, metadata=_metadata(daemon))
        except grpc.RpcError as error:
            says: Any = error
            if says.code() != grpc.StatusCode.NOT_FOUND:
                raise
            return None
    changes: Sequence[pb.AliasChange] = answer.changes
    return changes


def _pieces(data: bytes, name: str) -> Iterator[pb.ImportModelRequest]:
    header = pb.ImportModelHeader(name=name, digest=hashlib.sha256(data).hexdigest())
    yield pb.ImportModelRequest(header=header)
    for start in range(0, len(data), PIECE_BYTES):
        yield pb.ImportModelRequest(chunk=data[start : start + PIECE_BYTES])


@contextmanager
def _stub(daemon: DaemonAddress) -> Iterator[Any]:
    try:
        with channel_to(daemon) as channel:
            yield ModelServiceStub(channel)
    except grpc.RpcError as error:
        says: Any = error
        raise click.ClickException(f"{daemon.address}: {says.details()}") from error


def channel_to(daemon: DaemonAddress) -> grpc.Channel:
    """Return a channel to a daemon, encrypted if it is to be."""
    if not daemon.tls:
        if daemon.token and not is_local(daemon.address):
            raise click.UsageError(
                f"a token would go to {daemon.address} in the clear; speak TLS: --tls, or --ca-file"
            )
        return grpc.insecure_channel(daemon.address)
    files = (daemon.ca_file, daemon.key_file, daemon.cert_file)
    pems = [None if file is None else file.read_bytes() for file in files]
    credentials = grpc.ssl_channel_credentials(*pems)
    name = daemon.server_name
    options = [("grpc.ssl_target_name_override", name)] if name else []
    return grpc.secure_channel(daemon.address, credentials, options)


def _metadata(daemon: DaemonAddress) -> list[tuple[str, str]]:
    return [("authorization", f"Bearer {daemon.token}")] if daemon.token else []
