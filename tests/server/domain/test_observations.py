"""Observations and answers as tables."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from mlrs_server.domain.observations import (
    ANSWERED,
    AnswerLog,
    Entries,
    count_rows,
    find_answers,
    sort_by_row,
)


@given(rows=st.lists(st.integers(0, 9), max_size=60))
def test_answers_are_sorted_by_row(rows: list[int]) -> None:
    """Sorted answers are grouped by row; the order within a row stays."""
    answers = np.zeros(len(rows), ANSWERED)
    answers["row"], answers["step"] = rows, np.arange(len(rows))
    counts, into = np.zeros(10, np.int64), np.empty_like(answers)
    count_rows(answers, counts)
    assert counts.tolist() == [rows.count(row) for row in range(10)]
    sort_by_row(answers, np.cumsum(counts) - counts, into)
    assert into.tolist() == answers[np.argsort(answers["row"], kind="stable")].tolist()


@given(
    rows=st.lists(st.integers(0, 9), max_size=60),
    firsts=st.lists(st.integers(0, 5), min_size=10, max_size=10),
    wanted=st.lists(st.tuples(st.integers(0, 7), st.integers(-1, 12)), min_size=1, max_size=30),
)
def test_answers_are_found(rows: list[int], firsts: list[int], wanted: list[tuple[int, int]]) -> None:
    """Of any steps of any rows, exactly the answered ones are found, at their indices."""
    answers = np.zeros(len(rows), ANSWERED)
    for index, row in enumerate(rows):
        answers[index]["row"], answers[index]["step"] = row, firsts[row] + rows[:index].count(row)
    asked = [tuple(answer) for answer in answers[["row", "step"]].tolist()]
    columns = np.array(wanted, np.int64).T
    positions = np.zeros(len(wanted), np.int64)
    find_answers(answers, columns[0].copy(), columns[1].copy(), np.zeros(8, np.int64), positions)
    assert positions.tolist() == [asked.index(one) if one in asked else -1 for one in wanted]


@given(moves=st.lists(st.integers(-1, 30), max_size=30))
def test_a_log_keeps_its_order(moves: list[int]) -> None:
    """Answers that were put back come before those added since; nothing is lost as the log grows."""
    log, expected, added = AnswerLog(), list[int](), 0
    for count in moves:
        if count < 0:
            taken = log.take()
            log.reserve(1)
            log.table[0]["step"], log.count = added, 1
            log.put_back(taken)
            expected, added = [*expected, added], added + 1
            continue
        log.reserve(count)
        log.table["step"][log.count : log.count + count] = range(added, added + count)
        log.count += count
        expected, added = [*expected, *range(added, added + count)], added + count
    assert log.take()["step"].tolist() == expected
    assert log.count == 0


def test_columns_are_views() -> None:
    """Values written to a column are in the table, and a slice of the table is a part of the entries."""
    entries = Entries.of(np.array([1, 2, 3], np.uint64), np.arange(3), np.array([0.5, 1.0, 2.0]))
    entries.lrs[:] = 7.0
    Entries(entries.table[1:]).lrs[:] = 8.0
    assert entries.table["lr"].tolist() == [7.0, 8.0, 8.0]
    assert (entries.handles.tolist(), entries.losses.tolist(), len(entries)) == (
        [1, 2, 3],
        [0.5, 1.0, 2.0],
        3,
    )


@given(
    handle=st.integers(0, 2**64 - 1),
    step=st.integers(0, 2**53),
    loss=st.floats(),
    rank=st.integers(0, 2**32 - 1),
)
def test_one_is_a_table_of_one(handle: int, step: int, loss: float, rank: int) -> None:
    """One observation made by the fast path equals a row of a table, and can be answered."""
    table = Entries.of(np.array([handle], np.uint64), np.array([step]), np.array([loss])).table
    table["rank"] = rank
    one = Entries.of_one(handle, step, loss, rank).table
    assert one.tobytes() == table.tobytes()
    assert one.flags.writeable
    assert one.flags.aligned
