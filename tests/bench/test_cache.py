"""The cache: what is kept, and what a crash may do to it."""

from __future__ import annotations

from pathlib import Path

import pytest

from mlrs_bench.cache import FILE, Cache, write_cells
from mlrs_bench.cell import CellKey
from mlrs_bench.errors import DataFileError
from tests.bench.cells import cell_of

CELLS = [cell_of(CellKey(task="t", optimizer="sgd", method="m", seed=seed), 0.5) for seed in range(3)]


def filled(folder: Path) -> Cache:
    """Return a cache with three cells."""
    cache = Cache(folder)
    for seed, cell in enumerate(CELLS):
        cache.add(f"digest-{seed}", cell)
    return cache


def test_cells_are_there_again(tmp_path: Path) -> None:
    """What was added is there when the folder is opened again, and nothing else."""
    filled(tmp_path / "new" / "folder")
    again = Cache(tmp_path / "new" / "folder")
    assert [again.get(f"digest-{seed}") for seed in range(3)] == CELLS
    assert again.get("digest-3") is None
    assert len(again) == 3


@pytest.mark.parametrize("cut", [1, 2, 40])
def test_a_line_cut_off_is_computed_again(tmp_path: Path, cut: int) -> None:
    """A crash in the middle of the last line costs that cell only, and the next one is kept whole."""
    filled(tmp_path)
    file = tmp_path / FILE
    file.write_bytes(file.read_bytes()[:-cut])
    cache = Cache(tmp_path)
    survives = cut == 1  # of the line, only its end is missing
    assert cache.get("digest-1") == CELLS[1]
    assert (cache.get("digest-2") == CELLS[2]) is survives
    cache.add("digest-2", CELLS[2])
    assert Cache(tmp_path).get("digest-2") == CELLS[2]


def test_cells_travel_packed(tmp_path: Path) -> None:
    """A file of cells makes another cache know them, writes nothing there, and has the same bytes again."""
    cells = {f"digest-{seed}": cell for seed, cell in enumerate(CELLS)}
    file, same = tmp_path / "cells.gz", tmp_path / "same.gz"
    write_cells(file, cells)
    write_cells(same, dict(reversed(cells.items())))
    assert file.read_bytes() == same.read_bytes()
    cache = Cache(tmp_path / "other")
    cache.learn(file)
    assert [cache.get(digest) for digest in cells] == CELLS
    assert len(Cache(tmp_path / "other")) == 0


def test_own_cells_come_before_learned_ones(tmp_path: Path) -> None:
    """Where a cache has a cell itself, a file does not change it."""
    cache = filled(tmp_path / "cache")
    write_cells(tmp_path / "cells.gz", {"digest-0": CELLS[1]})
    cache.learn(tmp_path / "cells.gz")
    assert cache.get("digest-0") == CELLS[0]


@pytest.mark.parametrize("content", [b"", b"{}", b"\x1f\x8b\x08\x00 cut off"])
def test_other_files_are_refused(tmp_path: Path, content: bytes) -> None:
    """What is no packed file of cells is named in the error, with what it should be."""
    file = tmp_path / "other"
    file.write_bytes(content)
    with pytest.raises(DataFileError, match=r"other: is no file of results, as --save writes it"):
        Cache(tmp_path / "cache").learn(file)
