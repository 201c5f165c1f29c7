"""`python -m mlrs_bench.tied ARGUMENTS`: the command `mlrs`, until whoever started it is gone.

Its standard input is a pipe that only its parent can write to. The kernel closes that end when the parent
ends, however it ends; the command then gets SIGTERM, as if a user stopped it.
"""

from __future__ import annotations

import os
import runpy
import signal
import sys
import threading

COMMAND = "mlrs_cli"
"""The package of the command `mlrs`."""


def _stop_at_end_of_input() -> None:
    while os.read(sys.stdin.fileno(), 1024):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    threading.Thread(target=_stop_at_end_of_input, daemon=True).start()
    runpy.run_module(COMMAND, run_name="__main__", alter_sys=True)
