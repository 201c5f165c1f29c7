"""A run's record as bytes: chunks of consecutive steps.

A chunk of n steps is n losses and n learning rates, float64, and n reasons, uint8, all little-endian, then
the version of the format, a byte, and the checksum. Version 0 has no such byte, and another checksum.

A chunk of steps of which m > 0 came with extras is of version 3. Between the reasons and the version it has
the positions of these m steps, uint32, their extras, m rows of `WIDTH` float64, and m, uint32. If none of
these says that a state was restored, the rows lack that column, and the version is 2, as before there was
one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from mlrs_core.compiled import compiled_background
from mlrs_core.policy import Steps
from mlrs_server.domain.extras import NO_EXTRAS, RESTORED, WIDTH, SparseExtras
from mlrs_server.errors import AdvisorError, DamagedError, Reason
from mlrs_server.storage.protocol import Observations
from mlrs_server.storage.sealing import CHECKSUM_BYTES, Offsets, Raw, damaged, is_sealed, seal_all

CHUNK = 8192
"""The most steps of a chunk that is stored: what reads a part of a chunk reads all of it."""
BYTES_PER_STEP = 8 + 8 + 1
POSITION_BYTES, COUNT_BYTES = 4, 4
"""The sizes of a position, and of m."""
PLAIN = 1
"""The format of chunks without extras."""
VERSION = 3
"""The newest format."""
WIDTHS = {2: WIDTH - 1, VERSION: WIDTH}
"""The columns of extras in each format that has some."""
VERSION_SEED = 0x6D6C7274
"""Where the checksum of a chunk with a version starts; that of version 0 starts at `sealing.SEED`."""
SMALL = 128
"""Chunks of fewer steps on average are unpacked together, as each takes longer than its steps."""
Numbered = tuple[int, int, bytes]
"""A chunk with the number of its stretch and its first step."""
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
    edges = np.searchsorted(record.extras.positions, bounds)
    counts = np.diff(edges)
    widths = _widths_of(record.extras, counts)
    sizes = BYTES_PER_STEP * np.diff(bounds) + np.where(
        counts, _extras_bytes(widths) * counts + COUNT_BYTES, 0
    )
    starts = np.concatenate([[0], np.cumsum(sizes + 1 + CHECKSUM_BYTES)])
    out = np.full(starts[-1], PLAIN, np.uint8)
    losses, lrs = (
        column.astype("<f8").view(np.uint8).reshape(-1, 8) for column in (record.losses, record.lrs)
    )
    _lay_out(losses, lrs, record.reasons.astype(np.uint8), bounds, starts, out)
    if len(record.extras):
        _lay_out_extras(record.extras, edges, widths, bounds, starts, out)
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


def _widths_of(extras: SparseExtras, counts: Offsets) -> Offsets:
    """Return how many columns the extras of each run take, (k,), given how many steps with some each has."""
    has = ~np.isnan(extras.values[:, RESTORED])
    runs = np.repeat(np.arange(len(counts)), counts)[has]
    return np.where(np.bincount(runs, minlength=len(counts)), WIDTH, WIDTH - 1)


def _lay_out_extras(
    extras: SparseExtras, edges: Offsets, widths: Offsets, bounds: Offsets, starts: Offsets, out: Raw
) -> None:
    """Write the extras of each run behind its reasons.

    Args:
        extras: of all runs.
        edges: where each run's begin, (k + 1,).
        widths: how many columns each run's take, (k,).
        bounds: see `pack_chunks`.
        starts: where the chunk of each run begins, (k + 1,).
        out: written to.
    """
    counts = np.diff(edges)
    run = np.repeat(np.arange(len(counts)), counts)
    index = np.arange(len(extras)) - edges[run]
    begins = starts[run] + BYTES_PER_STEP * np.diff(bounds)[run]
    positions = (extras.positions - bounds[run]).astype("<u4").view(np.uint8).reshape(-1, 4)
    out[(begins + 4 * index)[:, None] + np.arange(4)] = positions
    for width in WIDTHS.values():
        which = np.flatnonzero(widths[run] == width)
        values = extras.values[which]
        if width < WIDTH:
            values = np.delete(values, RESTORED, axis=1)
        at = begins[which] + POSITION_BYTES * counts[run[which]] + 8 * width * index[which]
        columns = np.ascontiguousarray(values, "<f8").view(np.uint8).reshape(-1, 8 * width)
        out[at[:, None] + np.arange(8 * width)] = columns
    some = np.flatnonzero(counts)
    versions = starts[some + 1] - CHECKSUM_BYTES - 1
    out[versions] = np.where(widths[some] == WIDTH, VERSION, VERSION - 1)
    sizes = counts[some].astype("<u4").view(np.uint8).reshape(-1, COUNT_BYTES)
    out[(versions - COUNT_BYTES)[:, None] + np.arange(COUNT_BYTES)] = sizes


def unpack_chunk(data: bytes, run_id: str) -> Observations:
    """Return the stretch of record in a chunk of run `run_id`.

    Raises:
        AdvisorError: the chunk is damaged, or of a newer version's format.
    """
    n = (lengths := _checked_lengths(data, run_id)).steps
    return Observations(
        np.frombuffer(data, "<f8", n).astype(np.float64),
        np.frombuffer(data, "<f8", n, offset=8 * n).astype(np.float64),
        np.frombuffer(data, np.uint8, n, offset=16 * n).copy(),
        extras=_extras_of(data, lengths),
    )


def _checked_lengths(data: bytes, run_id: str) -> Lengths:
    """Return how long the parts of a chunk of run `run_id` are.

    Raises:
        AdvisorError: the chunk is damaged, or of a newer version's format.
    """
    if (lengths := lengths_of(data)) is not None:
        return lengths
    if _is_newer(data):
        raise AdvisorError(
            Reason.STORE_NEWER,
            f"the record of run {run_id!r} is of a newer version of mlrs; upgrade mlrs",
        )
    raise damaged(run_id)


def _is_newer(data: bytes) -> bool:
    """Return whether a chunk is of a format that only a newer version of mlrs knows."""
    size = len(data) - CHECKSUM_BYTES
    return size > 0 and is_sealed(data, VERSION_SEED) and data[size - 1] > VERSION


class Lengths(NamedTuple):
    """How long the parts of a chunk are."""

    steps: int
    extras: int
    """How many of the steps came with extras."""
    width: int = WIDTH
    """The columns of these."""


def lengths_of(data: bytes) -> Lengths | None:
    """Return how long the parts of a chunk are; `None` if it is damaged, or of a newer format."""
    size, extras, width = len(data) - CHECKSUM_BYTES, 0, WIDTH
    if size > 0 and is_sealed(data, VERSION_SEED):
        size -= 1
        if data[size] > VERSION:
            return None
        if data[size] > PLAIN:
            width = WIDTHS[data[size]]
            size -= COUNT_BYTES
            extras = int.from_bytes(data[size : size + COUNT_BYTES], "little")
            size -= _extras_bytes(width) * extras
    elif not is_sealed(data):
        return None
    return None if size < 0 or size % BYTES_PER_STEP else Lengths(size // BYTES_PER_STEP, extras, width)


def _extras_bytes(width: Any) -> Any:
    """Return the size of a step's extras of so many columns, with their position; of several, elementwise."""
    return POSITION_BYTES + 8 * width


def _extras_of(data: bytes, lengths: Lengths) -> SparseExtras:
    """Return the extras in a chunk."""
    steps, m, width = lengths
    if not m:
        return NO_EXTRAS
    positions = np.frombuffer(data, "<u4", m, offset=BYTES_PER_STEP * steps)
    values = np.frombuffer(data, "<f8", width * m, offset=BYTES_PER_STEP * steps + 4 * m)
    values = values.astype(np.float64).reshape(m, width)
    if width < WIDTH:
        values = np.insert(values, RESTORED, np.nan, axis=1)
    return SparseExtras(positions.astype(np.int64), values)


def unpack_consecutive(chunks: Iterable[tuple[int, bytes]], step: int, run_id: str) -> Observations:
    """Return the record in a run's chunks, each with its first step, that begins at a step.

    Raises:
        AdvisorError: a chunk is damaged, or one is missing.
    """
    begin, whole = step, list[tuple[Numbered, Lengths]]()
    for first_step, data in chunks:
        if first_step != step:
            raise DamagedError(
                f"the store's record of run {run_id!r} breaks off at step {step}; restore it from a backup"
            )
        whole.append(((0, first_step, data), _checked_lengths(data, run_id)))
        step += whole[-1][1].steps
    if step - begin < SMALL * len(whole):
        return _unpacked(whole, np.zeros(step - begin, np.int64), np.arange(begin, step))
    parts = [NO_RECORD, *(unpack_chunk(data, run_id) for (_, _, data), _ in whole)]
    return Observations(
        np.concatenate([part.losses for part in parts]),
        np.concatenate([part.lrs for part in parts]),
        np.concatenate([part.reasons for part in parts]),
        extras=_joined_extras(parts),
    )


def _joined_extras(parts: Sequence[Observations]) -> SparseExtras:
    """Return the extras of stretches that follow each other."""
    starts = np.cumsum([0, *map(len, parts)])
    both = zip(starts.tolist(), parts, strict=False)
    some = [(start, part.extras) for start, part in both if len(part.extras)]
    if not some:
        return NO_EXTRAS
    return SparseExtras(
        np.concatenate([start + extras.positions for start, extras in some]),
        np.concatenate([extras.values for _, extras in some]),
    )


def unpack_steps(chunks: Sequence[Numbered], stretches: Offsets, steps: Steps) -> Observations:
    """Return some steps of chunks in columns, (n,) each; the reason is 0 where no chunk has one.

    A damaged chunk has none.

    Args:
        chunks: each with the number of its stretch, its first step and its bytes; in that order.
        stretches: the number of each step's stretch, (n,), ascending.
        steps: the steps, (n,), ascending within a stretch.
    """
    read = [(chunk, lengths_of(chunk[2])) for chunk in chunks]
    return _unpacked([(chunk, lengths) for chunk, lengths in read if lengths is not None], stretches, steps)


def _unpacked(whole: Sequence[tuple[Numbered, Lengths]], stretches: Offsets, steps: Steps) -> Observations:
    """Return some steps of undamaged chunks, as `unpack_steps` does."""
    heads = np.array([(*chunk[:2], lengths.steps) for chunk, lengths in whole], np.int64).reshape(-1, 3)
    starts = np.cumsum([0, *(len(chunk[2]) for chunk, _ in whole)])
    data = np.frombuffer(b"".join([chunk[2] for chunk, _ in whole]), np.uint8)
    found = np.zeros((len(steps), BYTES_PER_STEP), np.uint8)
    picked = np.full(len(steps), -1)
    _pick(stretches, steps, heads, starts, data, found, picked)
    losses, lrs = (np.ascontiguousarray(found[:, at : at + 8]).view("<f8")[:, 0] for at in (0, 8))
    some = [(at, *one) for at, one in enumerate(whole) if one[1].extras]
    extras = {at: _extras_of(chunk[2], lengths) for at, chunk, lengths in some}
    return Observations(
        losses.astype(np.float64),
        lrs.astype(np.float64),
        found[:, 16].copy(),
        extras=_picked_extras(steps, heads[:, 1], picked, extras),
    )


def _picked_extras(
    steps: Steps, firsts: Steps, picked: Offsets, extras: Mapping[int, SparseExtras]
) -> SparseExtras:
    """Return the extras of steps, (n,), by their positions among these.

    Args:
        steps: (n,).
        firsts: the first step of each chunk.
        picked: the chunk that has each step, (n,); -1 if there is none.
        extras: of the chunks that have some.
    """
    if not extras:
        return NO_EXTRAS
    parts = [NO_EXTRAS]
    order = np.argsort(picked, kind="stable")
    for chunk, those in extras.items():
        first, end = np.searchsorted(picked[order], (chunk, chunk + 1))
        positions = order[first:end]
        wanted = steps[positions] - firsts[chunk]
        at = np.minimum(np.searchsorted(those.positions, wanted), len(those) - 1)
        has = those.positions[at] == wanted
        parts.append(SparseExtras(positions[has], those.values[at[has]]))
    return SparseExtras.sorted(
        np.concatenate([part.positions for part in parts]), np.concatenate([part.values for part in parts])
    )


@compiled_background
def _pick(
    stretches: Offsets, steps: Steps, heads: Steps, starts: Offsets, data: Raw, found: Raw, picked: Offsets
) -> None:
    """Fill the bytes of each step, (n, 17), from the chunk of its stretch that has it, if one does.

    Args:
        stretches: as for `unpack_steps`.
        steps: as for `unpack_steps`.
        heads: the stretch, the first step and the number of steps of each chunk, (c, 3).
        starts: where the bytes of each chunk begin, and the end of the last, (c + 1,).
        data: the bytes of the chunks.
        found: (n, 17), filled.
        picked: (n,), filled with the index of the chunk that has each step.
    """
    chunk = 0
    for entry in range(len(steps)):
        stretch, step = stretches[entry], steps[entry]
        while chunk < len(heads):
            of, first, count = heads[chunk]
            if of > stretch or (of == stretch and first + count > step):
                break
            chunk += 1
        if chunk == len(heads) or heads[chunk, 0] != stretch or heads[chunk, 1] > step:
            continue
        start, at = starts[chunk], step - heads[chunk, 1]
        count = heads[chunk, 2]
        picked[entry] = chunk
        for byte in range(8):
            found[entry, byte] = data[start + 8 * at + byte]
            found[entry, 8 + byte] = data[start + 8 * (count + at) + byte]
        found[entry, 16] = data[start + 16 * count + at]
