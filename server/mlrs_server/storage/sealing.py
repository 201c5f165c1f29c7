"""Bytes closed by a CRC-32, so that damage is found when they are read."""

from __future__ import annotations

import zlib
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from mlrs_server.errors import DamagedError

CHECKSUM_BYTES = 4
SEED = 0x6D6C7273
"""Where the checksum starts: four zero bytes must not pass as an empty record."""
_RESIDUE = 0x2144DF1C
"""The CRC-32 of any bytes with their CRC-32, little-endian, behind them, wherever it starts."""
Raw = npt.NDArray[np.uint8]
Offsets = npt.NDArray[np.intp]


def seal(body: bytes, seed: int = SEED) -> bytes:
    """Return bytes with their checksum, a little-endian uint32, behind them."""
    return body + zlib.crc32(body, seed).to_bytes(CHECKSUM_BYTES, "little")


def seal_all(out: Raw, starts: Offsets, seed: int = SEED) -> list[bytes]:
    """Return the k stretches of `out` between `starts`, (k + 1,), each with its last bytes its checksum."""
    bodies = out.data
    checksums = starts[1:] - CHECKSUM_BYTES
    bounds = zip(starts.tolist(), checksums.tolist(), strict=False)
    sums = np.array([zlib.crc32(bodies[start:end], seed) for start, end in bounds], "<u4")
    out[checksums[:, None] + np.arange(CHECKSUM_BYTES)] = sums.view(np.uint8).reshape(-1, CHECKSUM_BYTES)
    data = out.tobytes()
    return [data[start:end] for start, end in pairwise(starts.tolist())]


def is_sealed(data: bytes, seed: int = SEED) -> bool:
    """Return whether bytes have the right checksum behind them."""
    return len(data) >= CHECKSUM_BYTES and zlib.crc32(data, seed) == _RESIDUE


def unseal(data: bytes, run_id: str) -> bytes:
    """Return bytes without their checksum.

    Raises:
        DamagedError: they do not have the right one; `run_id` is whose they are.
    """
    if not is_sealed(data):
        raise damaged(run_id)
    return data[:-CHECKSUM_BYTES]


def damaged(run_id: str) -> DamagedError:
    """Return the error of damaged bytes of a run."""
    return DamagedError(f"the store holds a damaged record of run {run_id!r}; restore it from a backup")
