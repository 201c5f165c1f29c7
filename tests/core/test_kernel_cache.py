"""Machine code on disk: whatever is wrong with it, functions are compiled and give what they should."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.mounts import filled, small_disk

INNER = """
from mlrs_core.compiled import compiled

@compiled
def inner(x):
    return {factor} * x
"""
SOURCE = (
    INNER
    + """
@compiled
def outer(x):
    return inner(x) + 1.0
"""
)
OUTER = """
from mlrs_core.compiled import compiled
from kernels.inner import inner

@compiled
def outer(x):
    return inner(x) + 1.0
"""
CHILD = """
import json
from kernels import inner, outer

value = outer(3.0)  # of which `inner` is a part
loaded = sum(sum(function.stats.cache_hits.values()) for function in (inner, outer))
print(json.dumps([value, loaded]))
"""


@dataclass(frozen=True)
class Run:
    """What came of calling the functions in a fresh process."""

    value: float
    loaded: int
    """How many functions were loaded from the cache."""
    log: str
    """What was said on standard error."""


def run(folder: Path, cache: Path, *, factor: float = 2.0) -> Run:
    """Call the functions in a fresh process that keeps machine code in a folder."""
    source = SOURCE.format(factor=factor)
    file = folder / "kernels.py"
    if not file.exists() or file.read_text(encoding="utf-8") != source:
        file.write_text(source, encoding="utf-8")
    return called(folder, cache)


def called(folder: Path, cache: Path) -> Run:
    """Call the functions of the sources in a folder, in a fresh process."""
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(cache), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", CHILD],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return Run(*json.loads(done.stdout), log=done.stderr)


def files(cache: Path, suffix: str) -> list[Path]:
    """Return the files of a cache that end so; there must be some."""
    found = sorted(cache.rglob(f"*.{suffix}"))
    assert found
    return found


def overwrite_middle(data: bytes) -> bytes:
    """Return a file's bytes with random ones in its middle half, where the machine code is."""
    quarter = len(data) // 4
    return data[:quarter] + random.Random(3).randbytes(2 * quarter) + data[3 * quarter :]  # noqa: S311  # noise


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda _: b"",
    "noise": lambda data: random.Random(3).randbytes(len(data)),  # noqa: S311  # not a secret
    "noise within": overwrite_middle,
    "zeros at the end": lambda data: data[: len(data) // 2] + bytes(len(data) - len(data) // 2),
    "cut": lambda data: data[: len(data) // 2],
}


@pytest.mark.parametrize("suffix", ["nbi", "nbc"])
@pytest.mark.parametrize(
    "damage",  # three processes each, so most are among the slow tests
    [pytest.param(name, marks=[] if name == "noise within" else pytest.mark.slow) for name in DAMAGES],
)
def test_damaged_files_are_made_again(tmp_path: Path, damage: str, suffix: str) -> None:
    """What a damaged file held is compiled again, which is logged once; the next start finds it good."""
    cache = tmp_path / "cache"
    assert run(tmp_path, cache).loaded == 0
    assert run(tmp_path, cache) == Run(7.0, 1, "")
    for path in files(cache, suffix):
        path.write_bytes(DAMAGES[damage](path.read_bytes()))
    again = run(tmp_path, cache)
    assert (again.value, again.loaded) == (7.0, 0)
    assert again.log.count("\n") == 1
    assert str(cache) in again.log
    assert run(tmp_path, cache) == Run(7.0, 1, "")


def test_a_file_that_cannot_be_read_is_a_miss(tmp_path: Path) -> None:
    """A folder at an index's path, which can be neither read nor written, is said once and gone around."""
    cache = tmp_path / "cache"
    run(tmp_path, cache)
    for path in files(cache, "nbi"):
        path.unlink()
        path.mkdir()
    for _ in range(2):
        again = run(tmp_path, cache)
        assert (again.value, again.loaded) == (7.0, 0)
        assert again.log.count("\n") == 1


def test_a_full_disk_is_gone_around(tmp_path: Path) -> None:
    """While the cache's disk is full, functions are compiled at each start; with space again, kept."""
    with small_disk(tmp_path / "disk") as disk:
        with filled(disk):
            full = run(tmp_path, disk)
            assert (full.value, full.loaded) == (7.0, 0)
            assert full.log.count("\n") == 1
            assert "No space left on device" in full.log
        assert run(tmp_path, disk) == Run(7.0, 0, "")
        assert run(tmp_path, disk) == Run(7.0, 1, "")


def test_machine_code_of_another_source_is_not_taken(tmp_path: Path) -> None:
    """An index of new source beside old machine code, as a full disk leaves it, gives the new values."""
    old, new = tmp_path / "old", tmp_path / "new"
    assert run(tmp_path, old, factor=2.0).value == 7.0
    assert run(tmp_path, new, factor=30.0).value == 91.0
    for path in files(new, "nbi"):
        shutil.copy(path, old / path.relative_to(new))
    assert run(tmp_path, old, factor=30.0).value == 91.0


@pytest.mark.parametrize("is_dated", [False, True])
def test_machine_code_is_made_again_when_a_function_that_it_calls_has_changed(
    tmp_path: Path, *, is_dated: bool
) -> None:
    """Also in another file of the package, of the same size and time: a kept function holds what it calls."""
    package, cache = tmp_path / "kernels", tmp_path / "cache"
    package.mkdir()
    (package / "__init__.py").write_text(OUTER, encoding="utf-8")
    for factor, value in ((2.0, 7.0), (3.0, 10.0)):
        source = package / "inner.py"
        source.write_text(INNER.format(factor=factor), encoding="utf-8")
        if is_dated:
            os.utime(source, (0, 0))
        assert called(tmp_path, cache).value == value
        again = called(tmp_path, cache)
        assert (again.value, again.log) == (value, "")
        assert again.loaded >= 1
