"""Statements to PostgreSQL with many rows."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from mlrs_server.storage.engines.bounded import PART_BYTES, _in_parts

ROWS = st.lists(st.integers(0, PART_BYTES).map(bytes) | st.none(), max_size=8)


@given(ROWS)
def test_rows_are_sent_in_bounded_parts(values: list[bytes | None]) -> None:
    """Rows keep their order and none is lost; a part without its last row is below the bound."""
    rows = [{"key": index, "value": value} for index, value in enumerate(values)]
    parts = list(_in_parts(rows))
    assert [row for part in parts for row in part] == rows
    for part in parts:
        assert part
        assert sum(len(row["value"] or b"") for row in part[:-1]) < PART_BYTES
