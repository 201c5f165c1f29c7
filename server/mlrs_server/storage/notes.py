"""Tags and notes of runs as rows: UTF-8. What is damaged is read as far as it can be, and fails nothing."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import sqlalchemy as sa

from mlrs_server.domain.notes import MAX_NOTE, MAX_TAGS, MAX_VALUE, TAG, NoteChange, too_many_tags
from mlrs_server.errors import run_not_found
from mlrs_server.storage.protocol import StoredRun
from mlrs_server.storage.tables import PUT_TAG, run_tags, runs, text_of

_MAX_NAME = 64


def with_tags(connection: sa.Connection, some: Sequence[StoredRun]) -> list[StoredRun]:
    """Return runs with their tags, as many as a statement can list."""
    query = sa.select(run_tags).where(run_tags.c.run_key.in_([run.key for run in some]))
    found = defaultdict[int, dict[str, str]](dict)
    for row in connection.execute(query.order_by(run_tags.c.run_key, run_tags.c.name)):
        tags = found[row.run_key]
        if len(tags) < MAX_TAGS:
            tags[text_of(row.name, _MAX_NAME)] = text_of(row.value, MAX_VALUE)
    return [replace(run, tags=found[run.key]) if run.key in found else run for run in some]


def begin(connection: sa.Connection, new: Iterable[StoredRun]) -> None:
    """Store the tags of new runs."""
    if rows := [row for run in new for row in _rows(run.key, run.tags)]:
        connection.execute(PUT_TAG, rows)


def change(connection: sa.Connection, run_id: str, asked: NoteChange) -> None:
    """Change the tags and the note of a run.

    The run's row stays locked to the end of the transaction: changes of one run follow each other, and none
    leaves tags of a run that is deleted meanwhile.

    Raises:
        AdvisorError: there is no such run, or it would have too many tags; nothing is to be committed.
    """
    found = sa.select(runs.c.key).where(runs.c.run_id == run_id).with_for_update()
    if (key := connection.execute(found).scalar_one_or_none()) is None:
        raise run_not_found(run_id)
    of_run = run_tags.c.run_key == key
    names = set(connection.execute(sa.select(run_tags.c.name).where(of_run)).scalars())
    for name in names & {name.encode() for name in asked.remove_tags}:
        connection.execute(run_tags.delete().where(of_run, run_tags.c.name == name))
        names.discard(name)
    if asked.set_tags:
        names |= {name.encode() for name in asked.set_tags}
        if len(names) > MAX_TAGS:
            raise too_many_tags(len(names), "set_tags")
        connection.execute(PUT_TAG, _rows(key, asked.set_tags))
    if asked.note is not None:
        connection.execute(runs.update().where(runs.c.key == key).values(note=asked.note.encode() or None))


def drop(connection: sa.Connection, key: int) -> None:
    """Drop the tags of a run, whose row was deleted before in the same transaction; see `change`."""
    connection.execute(run_tags.delete().where(run_tags.c.run_key == key))


def are_damaged(connection: sa.Connection, key: int) -> bool:
    """Return whether the note or a tag of a run is not as it can have been written."""
    note = connection.execute(sa.select(runs.c.note).where(runs.c.key == key)).scalar()
    tags = connection.execute(sa.select(run_tags.c.name, run_tags.c.value).where(run_tags.c.run_key == key))
    rows = tags.all()
    return (
        len(rows) > MAX_TAGS
        or not (note is None or _is_text(note, MAX_NOTE))
        or not all(
            _is_text(name, _MAX_NAME) and TAG.fullmatch(name.decode()) and _is_text(value, MAX_VALUE)
            for name, value in rows
        )
    )


def _is_text(value: object, most: int) -> bool:
    try:
        return isinstance(value, bytes) and len(value.decode()) <= most
    except UnicodeDecodeError:
        return False


def _rows(key: int, tags: Mapping[str, str]) -> list[dict[str, object]]:
    return [{"run_key": key, "name": name.encode(), "value": value.encode()} for name, value in tags.items()]
