"""Which daemon answers at an address."""

from __future__ import annotations

import time
from importlib.metadata import version
from pathlib import Path

from mlrs_proto import v1 as pb
from tests.server.support import service


async def test_it_says_what_it_is(tmp_path: Path, model_file: Path) -> None:
    """A daemon says its version, when it began, and after how long it ends unused."""
    async with service(tmp_path / "a", model_file) as (stub, _):
        lasting = await stub.GetDaemon(pb.GetDaemonRequest())
    async with service(tmp_path / "b", model_file, exit_after_idle_s=600.5) as (stub, _):
        passing = await stub.GetDaemon(pb.GetDaemonRequest())
    assert lasting.version == passing.version == version("mlrs")
    assert not lasting.HasField("exit_after_idle")
    assert passing.exit_after_idle.ToNanoseconds() == 600_500_000_000
    assert 0 <= time.time() - lasting.start_time.ToNanoseconds() / 1e9 < 60
