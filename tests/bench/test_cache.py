"""The cache: what is kept, and what a crash may do to it."""

from __future__ import annotations

from pathlib import Path

import pytest

from mlrs_bench.cache import FILE, Cache
from mlrs_bench.cell import CellKey
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
