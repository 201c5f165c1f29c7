"""Small disks of the tests' own, to fill up and to write-protect."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


@contextmanager
def small_disk(folder: Path, size: str = "1m") -> Iterator[Path]:
    """Mount a disk of a size in memory; skip where this process may not."""
    if os.getuid() != 0:
        pytest.skip("only root may mount a small disk")
    folder.mkdir()
    mounted = _mount("-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder))
    if mounted.returncode:
        pytest.skip(f"no disk can be mounted here: {mounted.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["/usr/bin/umount", "--lazy", str(folder)], check=True)


@contextmanager
def write_protected(disk: Path) -> Iterator[None]:
    """Mount a small disk read-only meanwhile.

    A file that is open for writing keeps a disk from becoming read-only: no store may be open on it.
    """
    done = _mount("-o", "remount,ro", str(disk))
    assert done.returncode == 0, done.stderr
    try:
        yield
    finally:
        done = _mount("-o", "remount,rw", str(disk))
        assert done.returncode == 0, done.stderr


@contextmanager
def filled(disk: Path) -> Iterator[None]:
    """Fill a small disk to its last byte meanwhile."""
    ballast = disk / "ballast"
    with ballast.open("wb", buffering=0) as file:
        for size in (4096, 1):
            try:
                while True:
                    file.write(b"\0" * size)
            except OSError:
                pass
    try:
        yield
    finally:
        ballast.unlink()


def _mount(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["/usr/bin/mount", *arguments], capture_output=True, text=True, check=False)
