"""Many records and snapshots as bytes at once, in the format of `codec`, and back; a flush has thousands."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from mlrs_core.compiled import compiled_aside
from mlrs_core.policy import States, Steps
from mlrs_server.entries import Table
from mlrs_server.ledger import Records
from mlrs_server.store.codec import BYTES_PER_STEP, RECORD_SEED, RECORD_VERSION, SEED, is_whole
from mlrs_server.store.protocol import Observations

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
    starts = np.concatenate([[0], np.cumsum(BYTES_PER_STEP * np.diff(bounds) + 1 + _CRC_BYTES)])
    out = np.full(starts[-1], RECORD_VERSION, np.uint8)
    losses, lrs = (_raw(answers[name].astype("<f8"), 8) for name in ("loss", "lr"))
    _lay_out(losses, lrs, np.ascontiguousarray(answers["reason"]), bounds, starts, out)
    return _sealed(out, starts, RECORD_SEED)


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


def unpack_steps(chunks: Sequence[tuple[int, int, bytes]], places: _Places, steps: Steps) -> Observations:
    """Return some steps of chunks in columns, (n,) each; the reason is 0 where no chunk has one.

    A damaged chunk has none.

    Args:
        chunks: each with the number of its stretch, its first step and its bytes; in that order.
        places: the number of each step's stretch, (n,), ascending.
        steps: the steps, (n,), ascending within a stretch.
    """
    whole = [chunk for chunk in chunks if is_whole(chunk[2])]
    heads = np.array([chunk[:2] for chunk in whole], np.int64).reshape(-1, 2)
    starts = np.cumsum([0, *(len(chunk[2]) for chunk in whole)])
    data = np.frombuffer(b"".join([chunk[2] for chunk in whole]), np.uint8)
    found = np.zeros((len(steps), BYTES_PER_STEP), np.uint8)
    _pick(places, steps, heads, starts, data, found)
    losses, lrs = (np.ascontiguousarray(found[:, at : at + 8]).view("<f8")[:, 0] for at in (0, 8))
    return Observations(losses.astype(np.float64), lrs.astype(np.float64), found[:, 16].copy())


@compiled_aside
def _pick(places: _Places, steps: Steps, heads: Steps, starts: _Places, data: _Raw, found: _Raw) -> None:
    """Fill the bytes of each step, (n, 17), from the chunk of its stretch that has it, if one does."""
    chunk = 0
    for entry in range(len(steps)):
        place, step = places[entry], steps[entry]
        while chunk < len(heads):
            count = (starts[chunk + 1] - starts[chunk]) // BYTES_PER_STEP  # its end is shorter than a step
            of, first = heads[chunk]
            if of > place or (of == place and first + count > step):
                break
            chunk += 1
        if chunk == len(heads) or heads[chunk, 0] != place or heads[chunk, 1] > step:
            continue
        start, at = starts[chunk], step - heads[chunk, 1]
        count = (starts[chunk + 1] - start) // BYTES_PER_STEP
        for byte in range(8):
            found[entry, byte] = data[start + 8 * at + byte]
            found[entry, 8 + byte] = data[start + 8 * (count + at) + byte]
        found[entry, 16] = data[start + 16 * count + at]


def pack_all_snapshots(records: Records, states: States) -> list[bytes]:
    """Return the snapshots of k runs as bytes: of their records, (k,) of `RECORD`, and states, (k, size)."""
    k, size = states.shape
    head = np.empty(k, _HEAD)
    for name in _HEAD.names or ():
        head[name] = records[name]
    rows = np.zeros((k, _HEAD.itemsize + 4 * size + _CRC_BYTES), np.uint8)
    rows[:, : _HEAD.itemsize] = _raw(head, _HEAD.itemsize)
    rows[:, _HEAD.itemsize : -_CRC_BYTES] = states.astype("<f4").view(np.uint8)
    return _sealed(rows.reshape(-1), np.arange(k + 1) * rows.shape[1], SEED)


def _raw(array: npt.NDArray[np.generic], width: int) -> _Raw:
    """Return the bytes of an array in rows of a width."""
    raw: _Raw = np.ascontiguousarray(array).view(np.uint8)
    return raw.reshape(-1, width)


def _sealed(out: _Raw, starts: _Places, seed: int) -> list[bytes]:
    """Return the stretches of bytes between `starts`, each closed by its checksum, which starts at `seed`."""
    bodies = out.data
    ends = (starts[1:] - _CRC_BYTES).tolist()
    sums = [zlib.crc32(bodies[start:end], seed) for start, end in zip(starts.tolist(), ends, strict=False)]
    out[(starts[1:] - _CRC_BYTES)[:, None] + np.arange(_CRC_BYTES)] = _raw(np.array(sums, "<u4"), _CRC_BYTES)
    data = out.tobytes()
    return [data[start:end] for start, end in pairwise(starts.tolist())]
