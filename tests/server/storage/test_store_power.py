"""Power cuts: what of a SQLite store may be missing afterwards, and what may not.

A power cut keeps what was synced, and of what was written after that anything or nothing. A store syncs its
write-ahead log with each commit, so a promise that was given stands for a length of that log; here the log
is cut everywhere, also before that.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from contextlib import closing
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path

import pytest

from mlrs_server.storage import RunUpdates, SqlStore, open_store
from tests.server.storage.stored import CONFIG, create, got, same, snapshot_at, stretch, updates

HEADER, FRAME_HEADER, PAGE = 32, 24, 4096
"""Bytes of a write-ahead log's header, and of a frame's; and of the page in each."""
FRAME = FRAME_HEADER + PAGE
NAMES = "abc"


@dataclass(frozen=True)
class Promise:
    """What had been promised at a moment."""

    log_size: int
    """The length of the write-ahead log by then, all of it synced."""
    steps: int
    """Of each run."""


def flush_of(store: SqlStore, start: int, end: int) -> RunUpdates:
    """Return a flush of some steps of all runs."""
    return updates([(got(store, name), start, stretch(start, end), snapshot_at(end)) for name in NAMES])


def steps_of(store: SqlStore) -> int:
    """Check that all runs are whole, and of one flush; return how many steps they have."""
    lengths = set()
    for name in NAMES:
        run = got(store, name)
        lengths.add(run.snapshot.next_step)
        assert run.config == CONFIG
        assert same(store.read(run.key, 0, 10**6), stretch(0, run.snapshot.next_step))
        assert run.snapshot.state.tolist() == [run.snapshot.next_step] * 5
    (steps,) = lengths
    return steps


@pytest.fixture(scope="module")
def crashed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Promise]]:
    """A store as it was when the power went, with all its log, and what had been promised when."""
    folder = tmp_path_factory.mktemp("crashed")
    path, promises = folder / "mlrs.sqlite3", []
    with closing(open_store(path)) as store:
        for name in NAMES:
            create(store, name)
    with closing(open_store(path)) as store:  # the log begins here
        ends = [1, 3, 4, 300, 301, 800, 802, 803, 1500, 1501]
        for start, end in zip((0, *ends), ends, strict=False):
            store.append([flush_of(store, start, end)])
            log_size = path.with_name(f"{path.name}-wal").stat().st_size
            promises.append(Promise(log_size, end))
        kept = tmp_path_factory.mktemp("kept")
        for file in (path, path.with_name(f"{path.name}-wal")):
            shutil.copy(file, kept)
    return kept, promises


def reopened(crashed: Path, folder: Path, size: int) -> SqlStore:
    """Return the store of a folder with its log cut at a size."""
    folder.mkdir()
    for file in crashed.iterdir():
        shutil.copy(file, folder)
    with (folder / "mlrs.sqlite3-wal").open("r+b") as log:
        log.truncate(size)
    return open_store(folder / "mlrs.sqlite3")


def cuts(size: int) -> list[int]:
    """Return where to cut a log: before every frame, and inside each, alternately."""
    inside = (1, FRAME_HEADER, FRAME_HEADER + 1, FRAME // 2, FRAME - 1)
    frames = (size - HEADER) // FRAME
    starts = [HEADER + FRAME * frame for frame in range(frames)]
    return sorted({0, 1, HEADER - 1, size, *starts, *map(sum, zip(starts, cycle(inside)))})


def test_a_log_cut_anywhere_keeps_what_was_promised(
    crashed: tuple[Path, list[Promise]], tmp_path: Path
) -> None:
    """Wherever the log ends, whole flushes are left: all those whose commit lies before, and they go on."""
    kept, promises = crashed
    size = (kept / "mlrs.sqlite3-wal").stat().st_size
    tried = cuts(size)
    assert len(tried) > 2 * 20
    assert promises[-1].log_size <= size
    for cut in tried:
        promised = max((promise.steps for promise in promises if promise.log_size <= cut), default=0)
        with closing(reopened(kept, tmp_path / str(cut), cut)) as store:
            assert steps_of(store) == promised, cut
            store.append([flush_of(store, promised, promised + 2)])
            assert steps_of(store) == promised + 2
        shutil.rmtree(tmp_path / str(cut))


def test_noise_in_the_log_is_no_record(crashed: tuple[Path, list[Promise]], tmp_path: Path) -> None:
    """A frame that came to the disk as noise ends the log there: what is left are whole flushes before it."""
    kept, promises = crashed
    size = (kept / "mlrs.sqlite3-wal").stat().st_size
    for start in range(HEADER, size - FRAME + 1, FRAME):
        folder = tmp_path / str(start)
        reopened(kept, folder, size).close()  # only for its files
        for file in kept.iterdir():
            shutil.copy(file, folder)
        with (folder / "mlrs.sqlite3-wal").open("r+b") as log:
            log.seek(start + FRAME_HEADER + 100)
            log.write(b"\xa5" * 64)
        promised = max((promise.steps for promise in promises if promise.log_size <= start), default=0)
        with closing(open_store(folder / "mlrs.sqlite3")) as store:
            assert steps_of(store) == promised
        shutil.rmtree(folder)


def test_what_was_promised_survives_the_log_being_reset(tmp_path: Path) -> None:
    """Through checkpoints too: the files as they are after each flush hold all that was promised by then."""
    path = tmp_path / "live" / "mlrs.sqlite3"
    path.parent.mkdir()
    resets, last = 0, 0
    with closing(open_store(path)) as store:
        for name in NAMES:
            create(store, name)
        for flush in range(40):
            start, end = 4000 * flush, 4000 * (flush + 1)
            store.append([flush_of(store, start, end)])
            shutil.copytree(path.parent, tmp_path / "cut")
            (tmp_path / "cut" / "mlrs.sqlite3-shm").unlink()  # a power cut takes shared memory
            with closing(open_store(tmp_path / "cut" / "mlrs.sqlite3")) as cut:
                assert steps_of(cut) == end
            shutil.rmtree(tmp_path / "cut")
            header = path.with_name(f"{path.name}-wal").read_bytes()[16:20]  # a salt, new with each reset
            resets, last = resets + (header != last), header
    assert resets > 2


def test_a_promise_is_synced(tmp_path: Path) -> None:
    """Each flush ends with a sync of the log: without it a power cut could take what was promised."""
    code = (
        "import ctypes, os, sys, pathlib\n"
        "from tests.server.storage.stored import create, update\n"
        "from mlrs_server.storage import open_store\n"
        f"store = open_store(pathlib.Path({str(tmp_path / 'store')!r}))\n"
        "run = create(store, 'a')\n"
        "for step in range(5):\n"
        "    os.write(2, b'flush\\n'); store.append([update(run, step, step + 1)]); os.write(2, b'done\\n')\n"
        "store.close()\n"
    )
    strace = shutil.which("strace")
    if strace is None:
        pytest.skip("strace is not installed")
    trace = tmp_path / "trace"
    traced = [strace, "-f", "-y", "-e", "trace=fdatasync,fsync,pwrite64,write", "-o", str(trace)]
    done = subprocess.run([*traced, sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    parts = trace.read_text(encoding="utf-8").split('"flush\\n"')[1:]
    assert len(parts) == 5
    for part in parts:
        calls = [line for line in part.split('"done\\n"')[0].splitlines() if "store-wal" in line]
        assert "sync(" in calls[-1], part
