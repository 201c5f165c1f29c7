"""Where cells are kept: one JSON line each, under a digest of all that the result depends on.

Lines are only ever appended, each by one write. A line that a crash cut off is no JSON: it counts as
not there, and its cell is computed again. Cells travel between caches in files of the same lines, packed.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mlrs_bench.cell import Cell
from mlrs_bench.errors import DataFileError

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
        self._cells = _read(self._file.read_bytes()) if self._file.exists() else {}

    def __len__(self) -> int:
        """Return the number of cells."""
        return len(self._cells)

    def get(self, digest: str) -> Cell | None:
        """Return the cell of a digest, if it is there."""
        return self._cells.get(digest)

    def learn(self, file: Path) -> None:
        """Know the cells of a file that `write_cells` wrote; the cache itself stays as it is.

        Raises:
            DataFileError: it is no such file.
            OSError: it cannot be read.
        """
        self._cells = read_cells(file) | self._cells

    def add(self, digest: str, cell: Cell) -> None:
        """Keep a cell: it is on its way to the disk when this returns."""
        line = _line(digest, cell)
        descriptor = os.open(self._file, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        try:
            os.write(descriptor, f"{_separator(descriptor)}{line}\n".encode())
        finally:
            os.close(descriptor)
        self._cells[digest] = cell


def read_cells(file: Path) -> dict[str, Cell]:
    """Return the cells of a file that `write_cells` wrote, by their digests, whether or not these still hold.

    Raises:
        DataFileError: it is no such file.
        OSError: it cannot be read.
    """
    try:
        cells = _read(gzip.decompress(file.read_bytes()))
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise DataFileError(f"{file}: is no file of results, as --save writes it: {error}") from error
    if not cells:
        raise DataFileError(f"{file}: is no file of results, as --save writes it: none are in it")
    return cells


def write_cells(file: Path, cells: Mapping[str, Cell]) -> None:
    """Write cells by their digests to a file for `Cache.learn`; equal cells give equal bytes.

    Raises:
        OSError: it cannot be written.
    """
    text = "".join(f"{_line(digest, cell)}\n" for digest, cell in sorted(cells.items()))
    file.write_bytes(gzip.compress(text.encode(), mtime=0))


def _line(digest: str, cell: Cell) -> str:
    return json.dumps({"digest": digest, "cell": cell.to_json()}, allow_nan=False)


def _read(content: bytes) -> dict[str, Cell]:
    cells = {}
    for line in content.splitlines():
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
