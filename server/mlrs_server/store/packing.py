"""Many records and snapshots as bytes at once, in the format of `codec`: a flush holds thousands."""

from __future__ import annotations

import zlib
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from mlrs_core.compiled import compiled_aside
from mlrs_core.policy import States
from mlrs_server.entries import Table
from mlrs_server.ledger import Records
from mlrs_server.store.codec import BYTES_PER_STEP, SEED

_CRC_BYTES = 4
_HEAD = np.dtype(
    [
        ("next_step", "<i8"),
        ("last_loss", "<f8"),
        ("last_lr", "<f8"),
        ("last_reason", "u1"),
        ("status", "u1"),
        ("bad_losses", "<u4"),
    ]
)
"""`codec`'s head of a snapshot, without padding."""
_Raw = npt.NDArray[np.uint8]
_Places = npt.NDArray[np.intp]


def pack_all_observations(answers: Table, bounds: _Places) -> list[bytes]:
    """Return the records of k runs as bytes.

    Args:
        answers: (n,) of `ANSWERED`, one run's after another's.
        bounds: (k + 1,), where each run's begin, and the end of the last.
    """
    starts = np.concatenate([[0], np.cumsum(BYTES_PER_STEP * np.diff(bounds) + _CRC_BYTES)])
    out = np.zeros(starts[-1], np.uint8)
    losses, lrs = (_raw(answers[name].astype("<f8"), 8) for name in ("loss", "lr"))
    _lay_out(losses, lrs, np.ascontiguousarray(answers["reason"]), bounds, starts, out)
    return _sealed(out, starts)


@compiled_aside
def _lay_out(losses: _Raw, lrs: _Raw, reasons: _Raw, bounds: _Places, starts: _Places, out: _Raw) -> None:
    """Write each run's losses, learning rates, (n, 8), and reasons, (n,), as bytes from its start on."""
    for run in range(len(bounds) - 1):
        first, count = bounds[run], bounds[run + 1] - bounds[run]
        loss_place = starts[run]
        lr_place, reason_place = loss_place + 8 * count, loss_place + 16 * count
        for step in range(count):
            for byte in range(8):
                out[loss_place + 8 * step + byte] = losses[first + step, byte]
                out[lr_place + 8 * step + byte] = lrs[first + step, byte]
            out[reason_place + step] = reasons[first + step]


def pack_all_snapshots(records: Records, states: States) -> list[bytes]:
    """Return the snapshots of k runs as bytes: of their records, (k,) of `RECORD`, and states, (k, size)."""
    k, size = states.shape
    head = np.empty(k, _HEAD)
    for name in _HEAD.names or ():
        head[name] = records[name]
    rows = np.zeros((k, _HEAD.itemsize + 4 * size + _CRC_BYTES), np.uint8)
    rows[:, : _HEAD.itemsize] = _raw(head, _HEAD.itemsize)
    rows[:, _HEAD.itemsize : -_CRC_BYTES] = states.astype("<f4").view(np.uint8)
    return _sealed(rows.reshape(-1), np.arange(k + 1) * rows.shape[1])


def _raw(array: npt.NDArray[np.generic], width: int) -> _Raw:
    """Return the bytes of an array in rows of a width."""
    raw: _Raw = np.ascontiguousarray(array).view(np.uint8)
    return raw.reshape(-1, width)


def _sealed(out: _Raw, starts: _Places) -> list[bytes]:
    """Return the stretches of bytes between `starts`, each closed by its checksum."""
    bodies = out.data
    ends = (starts[1:] - _CRC_BYTES).tolist()
    sums = [zlib.crc32(bodies[start:end], SEED) for start, end in zip(starts.tolist(), ends, strict=False)]
    out[(starts[1:] - _CRC_BYTES)[:, None] + np.arange(_CRC_BYTES)] = _raw(np.array(sums, "<u4"), _CRC_BYTES)
    data = out.tobytes()
    return [data[start:end] for start, end in pairwise(starts.tolist())]
