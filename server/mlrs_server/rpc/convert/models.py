"""Conversion of models, their versions and aliases."""

from __future__ import annotations

import json
from collections.abc import Sequence

from mlrs_proto import v1 as pb
from mlrs_server.domain.aliases import AliasChange
from mlrs_server.errors import invalid_field
from mlrs_server.meta.promotion import Promoted, PromoteRequest
from mlrs_server.models.files import CatalogModel
from mlrs_server.rpc.convert.runs import time_to_proto


def model_to_proto(model: CatalogModel, aliases: Sequence[str]) -> pb.Model:
    """Return a model as a message."""
    architecture = model.model.architecture
    return pb.Model(
        ref=model.ref,
        name=model.name,
        digest=model.digest,
        aliases=aliases,
        architecture=architecture.kind,
        architecture_json=json.dumps(architecture.to_json(), sort_keys=True),
        snapshots=len(model.model.snapshots),
        parameters=model.model.parameters,
        provenance_json=json.dumps(dict(model.model.provenance), sort_keys=True),
        size_bytes=model.size_bytes,
    )


def import_header_from_proto(message: pb.ImportModelRequest | None) -> tuple[str, str]:
    """Return the name, and the digest or "", of a model that is to be uploaded.

    Raises:
        AdvisorError: the message is not a header.
    """
    if message is None or message.WhichOneof("kind") != "header":
        raise invalid_field(
            "header", "the first message must be the header, and the next ones the file's chunks"
        )
    return message.header.name, message.header.digest


def chunk_from_proto(message: pb.ImportModelRequest) -> bytes:
    """Return a chunk of a model's file.

    Raises:
        AdvisorError: the message is not a chunk.
    """
    if message.WhichOneof("kind") != "chunk":
        raise invalid_field("chunk", "every message after the first must be a chunk of the file")
    return message.chunk


def promotion_from_proto(message: pb.PromoteModelRequest) -> PromoteRequest:
    """Return the request for a new version of a model.

    Raises:
        AdvisorError: `min_updates` is 0.
    """
    if message.HasField("min_updates") and not message.min_updates:
        raise invalid_field("min_updates", "must be 1 or more")
    return PromoteRequest(
        model=message.model,
        alias=message.alias,
        prefix=message.prefix,
        min_updates=message.min_updates or 1,
        dry_run=message.dry_run,
    )


def promoted_to_proto(promoted: Promoted, model: pb.Model | None) -> pb.PromoteModelResponse:
    """Return the result of a promotion as a message; `model` is the new version, if one was created."""
    contributions = [
        pb.Contribution(run_id=run.run_id, updates=run.updates, relative_change=run.relative_change)
        for run in promoted.named
    ]
    return pb.PromoteModelResponse(
        model=model,
        contributions=contributions,
        relative_change=promoted.relative_change,
        run_count=promoted.count,
    )


def alias_change_to_proto(change: AliasChange) -> pb.AliasChange:
    """Return a change of an alias as a message."""
    time = None if change.time is None else time_to_proto(change.time)
    return pb.AliasChange(time=time, model=change.target, cause=change.cause)
