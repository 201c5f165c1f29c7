"""The rows of models, their names and aliases, whose meaning is in `domain/model_index.py`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from itertools import groupby
from operator import attrgetter

import sqlalchemy as sa

from mlrs_server.domain.aliases import AliasChange
from mlrs_server.domain.model_index import Index
from mlrs_server.storage.tables import PUT_MODEL, alias_changes, model_names, model_revision


def read_index(connection: sa.Connection, known: Index) -> Index:
    """Return the index of a store; `known` itself, if it is unchanged."""
    # The revision is read first: names that are newer than it are then read again at the next call.
    revision = connection.execute(sa.select(model_revision.c.revision)).scalar_one()
    return known if revision == known.revision else _read(connection, revision)


def change_index(
    connection: sa.Connection, change: Callable[[Index], Index], files: Mapping[str, bytes]
) -> Index:
    """Store files of models by digest, change the index, and return it. Concurrent changes wait."""
    connection.execute(model_revision.update().values(revision=model_revision.c.revision + 1))
    before = read_index(connection, Index())
    after = change(before)
    for digest, data in files.items():
        connection.execute(PUT_MODEL, {"digest": digest, "data": data})
    changed = {key for key, is_current in after.models.items() if before.models.get(key) != is_current}
    for name, digest in changed & before.models.keys():
        row = sa.and_(model_names.c.name == name, model_names.c.digest == digest)
        connection.execute(model_names.delete().where(row))
    if changed:
        rows = [
            {"name": name, "digest": digest, "is_current": after.models[name, digest]}
            for name, digest in changed
        ]
        connection.execute(model_names.insert(), rows)
    for alias, changes in after.changes.items():
        if before.changes.get(alias) != changes:
            connection.execute(alias_changes.delete().where(alias_changes.c.alias == alias))
            rows = [{"alias": alias, "number": number, **vars(one)} for number, one in enumerate(changes)]
            connection.execute(alias_changes.insert(), rows)
    return replace(after, revision=before.revision)


def _read(connection: sa.Connection, revision: int) -> Index:
    models = {(row.name, row.digest): row.is_current for row in connection.execute(sa.select(model_names))}
    ordered = sa.select(alias_changes).order_by(alias_changes.c.alias, alias_changes.c.number)
    changes = {
        alias: tuple(AliasChange(row.target, row.cause, row.time) for row in rows)
        for alias, rows in groupby(connection.execute(ordered), attrgetter("alias"))
    }
    return Index(revision, models, changes)
