"""The unary call about the aliases of models as a value."""

from __future__ import annotations

import datetime as dt

from mlrs.protocol.routing import Call
from mlrs.values.alias_types import AliasChange
from mlrs.values.checks import string
from mlrs_proto import v1 as pb


def list_alias_changes(alias: object) -> Call[tuple[AliasChange, ...]]:
    """Read what an alias has pointed at."""
    return Call(
        "ListAliasChanges",
        pb.ListAliasChangesRequest(alias=string("alias", alias)),
        lambda response: tuple(map(_change_from_proto, response.changes)),
    )


def _change_from_proto(message: pb.AliasChange) -> AliasChange:
    time = message.time.ToDatetime(tzinfo=dt.UTC) if message.HasField("time") else None
    return AliasChange(time=time, model=message.model, cause=message.cause)
