"""Configs as columns."""

from __future__ import annotations

import dataclasses
import math

import numpy as np

from mlrs_core.config import Optimizer, RunConfig
from mlrs_core.policy import COLUMN_TYPES, RunColumns
from mlrs_core.schedules import ScheduleKind, ScheduleSpec

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
    assert rows(RunColumns.of([FULL])) == [(90, math.log(10), 0.5, 0, 5, 0.9, 0.02, 1e-4, 0.3, 0.2, 7)]


def test_unset_fields_have_their_stand_ins() -> None:
    """An empty config is written as -1 or NaN, and as bounds that bound nothing."""
    assert rows(RunColumns.of([RunConfig()])) == [(-1, None, None, -1, 0, None, None, 0.0, math.inf, None, 0)]


def test_put_overwrites_a_whole_row() -> None:
    """A row that is put again keeps nothing of what was there."""
    columns = RunColumns.of([RunConfig(), FULL, RunConfig()])
    columns.put(1, RunConfig())
    assert rows(columns) == rows(RunColumns.of([RunConfig()] * 3))


def test_take_selects_by_index_and_by_mask() -> None:
    """Rows are taken in the order of the indices, or where the mask is true, as copies."""
    columns = RunColumns.of([RunConfig(horizon=horizon) for horizon in (1, 2, 3)])
    by_index = columns.take(np.array([2, 0]))
    by_mask = columns.take(np.array([True, False, True]))
    assert by_index.horizon.tolist() == [3, 1]
    assert by_mask.horizon.tolist() == [1, 3]
    by_index.put(0, FULL)
    assert columns.horizon.tolist() == [1, 2, 3]


def test_length_is_the_number_of_runs() -> None:
    """Columns are as long as the runs they are of."""
    assert [len(RunColumns.of([FULL] * n)) for n in (0, 1, 5)] == [0, 1, 5]
