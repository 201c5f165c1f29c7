"""Searches of runs as rows: JSON, closed by a checksum."""

from __future__ import annotations

import json
from typing import Any

import sqlalchemy as sa

from mlrs_core.config import Optimizer
from mlrs_core.search import SearchSetup, TrialResult
from mlrs_server.domain.searches import RecordedSearch
from mlrs_server.errors import AdvisorError, Reason
from mlrs_server.storage.sealing import seal, unseal
from mlrs_server.storage.tables import PUT_SEARCH, runs, searches

_JSON = json.JSONEncoder(default=vars)


def newest(connection: sa.Connection, key: int) -> tuple[int, RecordedSearch] | None:
    """Return the number and the content of a run's newest search, if it began one.

    Raises:
        AdvisorError: as `unpack`.
    """
    query = (
        sa.select(runs.c.run_id, searches.c.attempt, searches.c.record)
        .join_from(searches, runs, runs.c.key == searches.c.run_key)
        .where(runs.c.key == key)
        .order_by(searches.c.attempt.desc())
        .limit(1)
    )
    row = connection.execute(query).one_or_none()
    return None if row is None else (row.attempt, unpack(row.record, row.run_id))


def put(connection: sa.Connection, key: int, attempt: int, search: RecordedSearch) -> None:
    """Store a search with its trials so far."""
    connection.execute(PUT_SEARCH, {"run_key": key, "attempt": attempt, "record": pack(search)})


def drop(connection: sa.Connection, key: int) -> None:
    """Drop the searches of a run."""
    connection.execute(searches.delete().where(searches.c.run_key == key))


def pack(search: RecordedSearch) -> bytes:
    """Return a search as bytes; every float keeps its bits, except that any NaN is read as `math.nan`."""
    return seal(_JSON.encode(search).encode())


def unpack(data: bytes, run_id: str) -> RecordedSearch:
    """Return the search in `data`, of run `run_id`.

    Raises:
        AdvisorError: the bytes are damaged, or a newer version wrote what this one does not know.
    """
    body = unseal(data, run_id)
    try:
        values: dict[str, Any] = json.loads(body)
        setup = values.pop("setup")
        optimizer = Optimizer(setup.pop("optimizer"))
        results = tuple(TrialResult(**one) for one in values.pop("results"))
        return RecordedSearch(setup=SearchSetup(optimizer=optimizer, **setup), results=results, **values)
    except (AttributeError, KeyError, RecursionError, TypeError, ValueError) as error:
        raise AdvisorError(
            Reason.STORE_NEWER,
            f"the search of run {run_id!r} is of a newer version of mlrs ({error}); upgrade mlrs",
        ) from error
