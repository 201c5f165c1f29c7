"""Records and snapshots as the bytes that are documented, of one run or of many at once."""

from __future__ import annotations

import math
import struct
import zlib

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from mlrs_server.domain.extras import RESTORED, WIDTH, SparseExtras
from mlrs_server.domain.ledger import RECORD
from mlrs_server.domain.run_snapshot import snapshot_of
from mlrs_server.storage import Observations
from mlrs_server.storage.chunks import pack_chunk, pack_chunks
from mlrs_server.storage.codec import pack_snapshot, pack_snapshots

ANY = st.floats(width=64)


def sealed(body: bytes, seed: int = 0x6D6C7273) -> bytes:
    """Return bytes with their checksum."""
    return body + struct.pack("<I", zlib.crc32(body, seed))


@given(counts=st.lists(st.integers(1, 9), min_size=1, max_size=8), data=st.data())
def test_records(counts: list[int], data: st.DataObject) -> None:
    """Records of any lengths, losses and extras are columns and a version, alone and among others."""
    bounds = np.cumsum([0, *counts])
    n = int(bounds[-1])
    losses, lrs = (np.array(data.draw(st.lists(ANY, min_size=n, max_size=n))) for _ in range(2))
    reasons = np.array(data.draw(st.lists(st.integers(0, 255), min_size=n, max_size=n)), np.uint8)
    with_extras = np.flatnonzero(np.array(data.draw(st.lists(st.booleans(), min_size=n, max_size=n))))
    values = np.arange(len(with_extras) * WIDTH, dtype=float).reshape(-1, WIDTH)
    values[:, RESTORED] = [1.0 if data.draw(st.booleans()) else math.nan for _ in values]
    extras = SparseExtras(with_extras, values)
    record = Observations(losses, lrs, reasons, extras=extras)
    packed = pack_chunks(record, bounds)
    for chunk, start, count in zip(packed, bounds.tolist(), counts, strict=False):
        part = record.cut(start, count)
        steps = struct.pack(f"<{2 * count}d{count}B", *part.losses, *part.lrs, *part.reasons)
        version = b"\x01"
        if len(part.extras):
            m, width, rows, version = len(part.extras), WIDTH, part.extras.values, b"\x03"
            if np.isnan(rows[:, RESTORED]).all():  # as before there was such a column
                width, rows, version = WIDTH - 1, np.delete(rows, RESTORED, axis=1), b"\x02"
            steps += struct.pack(f"<{m}I{m * width}d", *part.extras.positions, *rows.flat)
            steps += struct.pack("<I", m)
        assert chunk == sealed(steps + version, 0x6D6C7274)
        assert chunk == pack_chunk(part)


@given(k=st.integers(1, 6), size=st.integers(0, 5), data=st.data())
def test_snapshots(k: int, size: int, data: st.DataObject) -> None:
    """Snapshots of any runs are a head and the state, alone and among others."""
    records = np.zeros(k, RECORD)
    for record in records:
        record["next_step"], record["bad_losses"] = data.draw(
            st.tuples(st.integers(0, 2**53), st.integers(0, 99))
        )
        record["last_loss"], record["last_lr"] = data.draw(st.tuples(ANY, ANY))
        record["last_reason"], record["status"] = data.draw(st.tuples(st.integers(0, 3), st.integers(1, 3)))
    values = data.draw(st.lists(st.floats(width=32), min_size=k * size, max_size=k * size))
    states = np.array(values, np.float32).reshape(k, size)
    for packed, record, state in zip(pack_snapshots(records, states), records, states, strict=True):
        head = [record[name].item() for name in ("next_step", "last_loss", "last_lr", "last_reason")]
        head += [record["status"].item(), record["bad_losses"].item()]
        assert packed == sealed(struct.pack("<qddBBI", *head) + state.tobytes())
        assert packed == pack_snapshot(snapshot_of(record, state))
