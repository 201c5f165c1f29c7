"""A run's record as bytes: chunks of consecutive steps.

A chunk of n steps is n losses and n learning rates, float64, and n reasons, uint8, all little-endian, then
the version of the format, a byte, and the checksum. Version 0 has no such byte, and another checksum.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from mlrs_core.compiled import compiled_background
from mlrs_core.policy import Steps
from mlrs_server.errors import AdvisorError, DamagedError, Reason
from mlrs_server.storage.protocol import Observations
from mlrs_server.storage.sealing import CHECKSUM_BYTES, Offsets, Raw, damaged, is_sealed, seal_all

BYTES_PER_STEP = 8 + 8 + 1
VERSION = 1
"""The newest format."""
VERSION_SEED = 0x6D6C7274
"""Where the checksum of a chunk with a version starts; that of version 0 starts at `sealing.SEED`."""
NO_RECORD = Observations(np.empty(0), np.empty(0), np.empty(0, np.uint8))
"""A stretch of no steps."""


def pack_chunk(record: Observations) -> bytes:
    """Return a stretch of record as a chunk."""
    return pack_chunks(record, np.array([0, len(record)]))[0]


def pack_chunks(record: Observations, bounds: Offsets) -> list[bytes]:
    """Return the records of k runs as a chunk each.

    Args:
        record: of all of them, (n,), one run's after another's.
        bounds: where each run's begins, and the end of the last, (k + 1,).
    """
    starts = np.concatenate([[0], np.cumsum(BYTES_PER_STEP * np.diff(bounds) + 1 + CHECKSUM_BYTES)])
    out = np.full(starts[-1], VERSION, np.uint8)
    losses, lrs = (
        column.astype("<f8").view(np.uint8).reshape(-1, 8) for column in (record.losses, record.lrs)
    )
    _lay_out(losses, lrs, record.reasons.astype(np.uint8), bounds, starts, out)
    return seal_all(out, starts, VERSION_SEED)


@compiled_background
def _lay_out(losses: Raw, lrs: Raw, reasons: Raw, bounds: Offsets, starts: Offsets, out: Raw) -> None:
    """Write each run's losses, learning rates, (n, 8), and reasons, (n,), as bytes from its start on."""
    for run in range(len(bounds) - 1):
        first, count = bounds[run], bounds[run + 1] - bounds[run]
        loss_offset = starts[run]
        lr_offset, reason_offset = loss_offset + 8 * count, loss_offset + 16 * count
        for step in range(count):
            for byte in range(8):
                out[loss_offset + 8 * step + byte] = losses[first + step, byte]
                out[lr_offset + 8 * step + byte] = lrs[first + step, byte]
            out[reason_offset + step] = reasons[first + step]


def unpack_chunk(data: bytes, run_id: str) -> Observations:
    """Return the stretch of record in a chunk of run `run_id`.

    Raises:
        AdvisorError: the chunk is damaged, or of a newer version's format.
    """
    version, size = _format_of(data)
    if version is not None and version > VERSION:
        raise AdvisorError(
            Reason.STORE_NEWER, f"the record of run {run_id!r} is of a newer version of mlrs; upgrade mlrs"
        )
    if version is None or size % BYTES_PER_STEP:
        raise damaged(run_id)
    n = size // BYTES_PER_STEP
    return Observations(
        np.frombuffer(data, "<f8", n).astype(np.float64),
        np.frombuffer(data, "<f8", n, offset=8 * n).astype(np.float64),
        np.frombuffer(data, np.uint8, n, offset=16 * n).copy(),
    )


def is_readable(data: bytes) -> bool:
    """Return whether a chunk is not damaged, and of a known format, without unpacking it."""
    if is_sealed(data, VERSION_SEED):
        size = len(data) - CHECKSUM_BYTES - 1
        return size % BYTES_PER_STEP == 0 and data[size] <= VERSION
    return is_sealed(data) and (len(data) - CHECKSUM_BYTES) % BYTES_PER_STEP == 0


def _format_of(data: bytes) -> tuple[int | None, int]:
    """Return the version of a chunk's format, `None` if it is damaged, and the size of its steps in bytes."""
    size = len(data) - CHECKSUM_BYTES
    if size > 0 and is_sealed(data, VERSION_SEED):
        return data[size - 1], size - 1
    return 0 if is_sealed(data) else None, size


def unpack_consecutive(chunks: Iterable[tuple[int, bytes]], step: int, run_id: str) -> Observations:
    """Return the record in a run's chunks, each with its first step, that begins at a step.

    Raises:
        AdvisorError: a chunk is damaged, or one is missing.
    """
    parts = [NO_RECORD]
    for first_step, data in chunks:
        if first_step != step:
            raise DamagedError(
                f"the store's record of run {run_id!r} breaks off at step {step}; restore it from a backup"
            )
        parts.append(unpack_chunk(data, run_id))
        step += len(parts[-1])
    return Observations(
        np.concatenate([part.losses for part in parts]),
        np.concatenate([part.lrs for part in parts]),
        np.concatenate([part.reasons for part in parts]),
    )


def unpack_steps(chunks: Sequence[tuple[int, int, bytes]], stretches: Offsets, steps: Steps) -> Observations:
    """Return some steps of chunks in columns, (n,) each; the reason is 0 where no chunk has one.

    A damaged chunk has none.

    Args:
        chunks: each with the number of its stretch, its first step and its bytes; in that order.
        stretches: the number of each step's stretch, (n,), ascending.
        steps: the steps, (n,), ascending within a stretch.
    """
    whole = [chunk for chunk in chunks if is_readable(chunk[2])]
    heads = np.array([chunk[:2] for chunk in whole], np.int64).reshape(-1, 2)
    starts = np.cumsum([0, *(len(chunk[2]) for chunk in whole)])
    data = np.frombuffer(b"".join([chunk[2] for chunk in whole]), np.uint8)
    found = np.zeros((len(steps), BYTES_PER_STEP), np.uint8)
    _pick(stretches, steps, heads, starts, data, found)
    losses, lrs = (np.ascontiguousarray(found[:, at : at + 8]).view("<f8")[:, 0] for at in (0, 8))
    return Observations(losses.astype(np.float64), lrs.astype(np.float64), found[:, 16].copy())


@compiled_background
def _pick(stretches: Offsets, steps: Steps, heads: Steps, starts: Offsets, data: Raw, found: Raw) -> None:
    """Fill the bytes of each step, (n, 17), from the chunk of its stretch that has it, if one does."""
    chunk = 0
    for entry in range(len(steps)):
        stretch, step = stretches[entry], steps[entry]
        while chunk < len(heads):
            count = (starts[chunk + 1] - starts[chunk]) // BYTES_PER_STEP  # its end is shorter than a step
            of, first = heads[chunk]
            if of > stretch or (of == stretch and first + count > step):
                break
            chunk += 1
        if chunk == len(heads) or heads[chunk, 0] != stretch or heads[chunk, 1] > step:
            continue
        start, at = starts[chunk], step - heads[chunk, 1]
        count = (starts[chunk + 1] - start) // BYTES_PER_STEP
        for byte in range(8):
            found[entry, byte] = data[start + 8 * at + byte]
            found[entry, 8 + byte] = data[start + 8 * (count + at) + byte]
        found[entry, 16] = data[start + 16 * count + at]
