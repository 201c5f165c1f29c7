"""Many records and snapshots as bytes at once: byte for byte those of one at a time."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from mlrs_server.entries import ANSWERED
from mlrs_server.ledger import RECORD
from mlrs_server.runs import snapshot_of
from mlrs_server.store import Observations
from mlrs_server.store.codec import pack_observations, pack_snapshot
from mlrs_server.store.packing import pack_all_observations, pack_all_snapshots

ANY = st.floats(width=64)


@given(counts=st.lists(st.integers(1, 9), min_size=1, max_size=8), data=st.data())
def test_records(counts: list[int], data: st.DataObject) -> None:
    """Records of any lengths, of any losses, are the bytes that each has alone."""
    bounds = np.cumsum([0, *counts])
    answers = np.zeros(bounds[-1], ANSWERED)
    for name in ("loss", "lr"):
        answers[name] = data.draw(st.lists(ANY, min_size=len(answers), max_size=len(answers)))
    answers["reason"] = data.draw(st.lists(st.integers(0, 255), min_size=len(answers), max_size=len(answers)))
    alone = [
        pack_observations(Observations(part["loss"], part["lr"], part["reason"]))
        for part in np.split(answers, bounds[1:-1])
    ]
    assert pack_all_observations(answers, bounds) == alone


@given(k=st.integers(1, 6), size=st.integers(0, 5), data=st.data())
def test_snapshots(k: int, size: int, data: st.DataObject) -> None:
    """Snapshots of any runs are the bytes that each has alone."""
    records = np.zeros(k, RECORD)
    for record in records:
        record["next_step"], record["bad_losses"] = data.draw(
            st.tuples(st.integers(0, 2**53), st.integers(0, 99))
        )
        record["last_loss"], record["last_lr"] = data.draw(st.tuples(ANY, ANY))
        record["last_reason"], record["status"] = data.draw(st.tuples(st.integers(0, 3), st.integers(1, 3)))
    values = data.draw(st.lists(st.floats(width=32), min_size=k * size, max_size=k * size))
    states = np.array(values, np.float32).reshape(k, size)
    alone = [pack_snapshot(snapshot_of(record, state)) for record, state in zip(records, states, strict=True)]
    assert pack_all_snapshots(records, states) == alone
