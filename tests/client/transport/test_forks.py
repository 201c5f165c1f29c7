"""What forked children, such as the workers of data loaders, do with their parent's connections."""

from __future__ import annotations

import subprocess
import sys

from tests.client.fake_daemon import FakeDaemon

COLLECTING = """
import asyncio, gc, os, signal, sys
import mlrs.aio

gc.disable()  # so that the children find the parent's garbage

async def train():
    async with mlrs.aio.connect(sys.argv[1], timeout_s=10.0) as advisor:
        async with advisor.run("task", horizon=100) as run:
            await run.next_lr(0, 1.0)

asyncio.run(train())
for _ in range(5):
    child = os.fork()
    if child == 0:
        signal.alarm(10)
        gc.collect()
        os._exit(0)
    print(os.waitpid(child, 0)[1])
"""


def check_children(script: str, daemon: FakeDaemon, count: int) -> None:
    """Run a script that forks so many children, and prints how each ended: all must end well."""
    ran = subprocess.run(  # our own interpreter
        [sys.executable, "-c", script, daemon.target],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert ran.stdout.split() == ["0"] * count, ran.stderr


def test_children_do_not_free_connections_that_their_parent_has_dropped(daemon: FakeDaemon) -> None:
    """The garbage collector of a child leaves a closed advisor alone: gRPC would hang, or crash."""
    check_children(COLLECTING, daemon, 5)


CLOSING = """
import os, signal, sys
import mlrs

for _ in range(40):
    with mlrs.connect(sys.argv[1], timeout_s=10.0) as advisor:
        advisor.run("task", horizon=100).next_lr(0, 1.0)
    child = os.fork()
    if child == 0:
        signal.alarm(20)
        with mlrs.connect(sys.argv[1], timeout_s=10.0) as advisor:
            advisor.run("task", horizon=100).next_lr(0, 1.0)
        os._exit(0)
    print(os.waitpid(child, 0)[1], flush=True)
"""


def test_a_process_may_fork_right_after_it_has_closed_its_last_advisor(daemon: FakeDaemon) -> None:
    """The fork does not wait for gRPC to end, which it would do forever, and a child may connect again."""
    check_children(CLOSING, daemon, 40)
