"""How long opening a run may take."""

from __future__ import annotations

import pytest

from mlrs.ledger.open_request import Start
from mlrs.values.meta_types import Meta
from mlrs.values.types import RunConfig


@pytest.mark.parametrize(
    ("config", "first_step", "limit_s"),
    [
        (RunConfig(), 0, 2.0),
        (RunConfig(), 7, 60.0),
        (RunConfig(rescue=True), 0, 60.0),
        (RunConfig(meta=Meta()), 0, 60.0),
        (RunConfig(model="paper"), 0, 60.0),
    ],
)
def test_opening_may_take_longer_where_a_daemon_that_answers_has_work(
    config: RunConfig, first_step: int, limit_s: float
) -> None:
    """It replays a run that goes back to a step, and may have to compile for what a run asks for."""
    start = Start(run_ids=("a",), configs=[config], task="a", timeout_s=2.0, long_timeout_s=60.0)
    assert start.limit_s(first_step) == limit_s


def test_what_an_adapter_asks_for_counts_too() -> None:
    """Opening may take longer where an adapter, and not the caller, asks for rescue."""
    start = Start(run_ids=("a",), configs=[RunConfig()], task="a", timeout_s=2.0, long_timeout_s=60.0)
    start.read_off = RunConfig(rescue=True)
    assert start.limit_s(0) == 60.0
