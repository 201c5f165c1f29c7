"""Configs as columns."""

from __future__ import annotations

import dataclasses
import math

from mlrs_core.config import FoundRate, Optimizer, RunConfig, ScheduleKind, ScheduleSpec
from mlrs_core.policy import COLUMN_TYPES, RunColumns, columns_of, put, table_of

FULL = RunConfig(
    horizon=90,
    num_classes=10,
    scale=0.5,
    snapshot=0,
    optimizer=Optimizer.ADAMW,
    momentum=0.9,
    initial_lr=0.02,
    min_lr=1e-4,
    max_lr=0.3,
    schedule=ScheduleSpec(ScheduleKind.COSINE, base_lr=0.2, warmup=7),
    lr_offset=-1.5,
)


def rows(columns: RunColumns) -> list[tuple[float, ...]]:
    """Return the columns' rows as tuples, NaN as None so that they compare."""
    table = zip(*(getattr(columns, name).tolist() for name in COLUMN_TYPES), strict=True)
    return [tuple(None if value != value else value for value in row) for row in table]  # noqa: PLR0124


def test_columns_have_the_declared_types() -> None:
    """Every column of `RunColumns` is in `COLUMN_TYPES`, in order, and has its type."""
    columns = RunColumns.of([FULL])
    assert [field.name for field in dataclasses.fields(RunColumns)] == list(COLUMN_TYPES)
    for name, dtype in COLUMN_TYPES.items():
        assert getattr(columns, name).dtype == dtype
        assert getattr(columns, name).shape == (1,)


def test_config_becomes_a_row() -> None:
    """A full config is written value by value, the class count as its logarithm."""
    found = FoundRate(learning_rate=0.04, octaves=1.5, steps=30, charged=True)
    assert rows(RunColumns.of([FULL, dataclasses.replace(FULL, found=found)])) == [
        (90, math.log(10), 0.5, 0, 5, 0.9, 0.02, 1e-4, 0.3, 0.2, 7, None, 2**-1.5),
        (60, math.log(10), 0.5, 0, 5, 0.9, 0.04, 1e-4, 0.3, 0.04, 7, 1.5, 2**-1.5),
    ]


def test_unset_fields_have_their_stand_ins() -> None:
    """An empty config is written as -1 or NaN, and as bounds that bound nothing."""
    assert rows(RunColumns.of([RunConfig()])) == [
        (-1, None, None, -1, 0, None, None, 0.0, math.inf, None, 0, None, 1.0)
    ]


def test_put_overwrites_a_whole_row() -> None:
    """A row that is put again keeps nothing of what was there, and its neighbours are left alone."""
    table = table_of([RunConfig(), FULL, FULL])
    put(table, 1, RunConfig())
    assert rows(columns_of(table)) == rows(RunColumns.of([RunConfig(), RunConfig(), FULL]))


def test_table_and_columns_hold_the_same() -> None:
    """From columns to a table and back nothing is lost, and columns are copies."""
    columns = RunColumns.of([RunConfig(), FULL])
    table = columns.table()
    back = columns_of(table)
    assert rows(back) == rows(columns)
    put(table, 0, FULL)
    assert rows(back) == rows(columns)


def test_length_is_the_number_of_runs() -> None:
    """Columns are as long as the runs they are of."""
    assert [len(RunColumns.of([FULL] * n)) for n in (0, 1, 5)] == [0, 1, 5]
