"""A daemon as shipped that notes how late its event loop is: a task on it that sleeps, over and over.

python -m performance.daemon.lagging_daemon DATA_DIR LAGS_FILE
"""

from __future__ import annotations

import asyncio
import signal
import sys
import time
from array import array
from pathlib import Path

import uvloop

from mlrs_server.config import ServerConfig
from mlrs_server.daemon import SWITCH_S, running_daemon
from mlrs_server.telemetry.logs import configure_logs

SLEEP_S = 0.002
"""Between two looks at the clock."""


async def _look(lags: array[float]) -> None:
    """Note, for ever, the time and how much later than asked for the loop came round."""
    while True:
        asked = time.monotonic() + SLEEP_S
        await asyncio.sleep(SLEEP_S)
        now = time.monotonic()
        lags.extend((now, now - asked))


async def _serve(data_dir: Path) -> array[float]:
    """Serve until SIGTERM; return what was noted, two numbers each time."""
    stop, lags = asyncio.Event(), array("d")
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    async with running_daemon(ServerConfig(data_dir=data_dir, listen="127.0.0.1:0")) as address:
        looking = asyncio.create_task(_look(lags))
        print(f"listening on {address}", flush=True)
        await stop.wait()
        looking.cancel()
    return lags


if __name__ == "__main__":
    configure_logs("info", "json")
    sys.setswitchinterval(SWITCH_S)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        noted = runner.run(_serve(Path(sys.argv[1])))
    Path(sys.argv[2]).write_bytes(noted.tobytes())
