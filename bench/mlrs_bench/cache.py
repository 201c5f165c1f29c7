"""Where cells are kept: one JSON line each, under a digest of all that the result depends on.

Lines are only ever appended, each by one write. A line that a crash cut off is no JSON: it counts as
not there, and its cell is computed again.
"""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

from mlrs_bench.cell import Cell

FILE = "cells.jsonl"
"""The file's name in the cache folder."""


def digest_of(values: Any) -> str:
    """Return the SHA-256 of JSON values, in hexadecimal; equal values have equal digests."""
    text = json.dumps(values, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


class Cache:
    """The cells in a folder. Several processes may add to it."""

    def __init__(self, folder: Path) -> None:
        """Open it; the folder is made if missing.

        Raises:
            OSError: the folder cannot be made, or its file not be read.
        """
        folder.mkdir(parents=True, exist_ok=True)
        self._file = folder / FILE
        self._cells = _read(self._file) if self._file.exists() else {}

    def __len__(self) -> int:
        """Return the number of cells."""
        return len(self._cells)

    def get(self, digest: str) -> Cell | None:
        """Return the cell of a digest, if it is there."""
        return self._cells.get(digest)

    def add(self, digest: str, cell: Cell) -> None:
        """Keep a cell: it is on its way to the disk when this returns."""
        line = json.dumps({"digest": digest, "cell": cell.to_json()}, allow_nan=False)
        descriptor = os.open(self._file, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        try:
            os.write(descriptor, f"{_separator(descriptor)}{line}\n".encode())
        finally:
            os.close(descriptor)
        self._cells[digest] = cell


def _read(file: Path) -> dict[str, Cell]:
    cells = {}
    for line in file.read_bytes().splitlines():
        try:
            entry = json.loads(line)
            cells[str(entry["digest"])] = Cell.from_json(entry["cell"])
        except (ValueError, TypeError, KeyError):  # cut off, or of another version
            continue
    return cells


def _separator(descriptor: int) -> str:
    """Return what ends a line that was cut off: nothing where none was."""
    size = os.fstat(descriptor).st_size
    return "" if size == 0 or os.pread(descriptor, 1, size - 1) == b"\n" else "\n"
