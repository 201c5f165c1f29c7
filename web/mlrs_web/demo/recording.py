"""Recorded runs: the store of a daemon, as `examples/record_dashboard.py` made it with real trainings."""

from __future__ import annotations

import lzma
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

RECORDING = Path(__file__).with_name("recording.sqlite3.xz")
STORE = "mlrs.sqlite3"


@contextmanager
def unpacked() -> Iterator[Path]:
    """Yield a data folder with a copy of the recorded runs, which goes at the end of the block."""
    with tempfile.TemporaryDirectory(prefix="mlrs-") as folder:
        data_dir = Path(folder, "data")
        data_dir.mkdir(mode=0o700)
        (data_dir / STORE).write_bytes(lzma.decompress(RECORDING.read_bytes()))
        yield data_dir
