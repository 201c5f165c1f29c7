"""How processes end that use the client: no hang, whatever they forgot, and forks are told."""

from __future__ import annotations

import random
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.client.fake_daemon import FakeDaemon

CARELESS = """
import random, sys, threading, time
import mlrs_client

chance = random.Random(int(sys.argv[2]))
advisor = mlrs_client.connect(sys.argv[1])
runs = [advisor.run(f"{sys.argv[2]}-{index}") for index in range(2)]
def train(run):
    for step in range(1_000_000):
        if chance.random() < 0.5:
            run.next_lr(step, 1.0)
            continue
        pending = run.observe(step, 1.0)
        if chance.random() < 0.8:
            pending.lr()
for run in runs:
    threading.Thread(target=train, args=[run], daemon=True).start()
if chance.random() < 0.3:
    watch = advisor.watch(runs[0].id, follow=True)
    next(watch, None)
time.sleep(chance.uniform(0.0, 0.02))
if chance.random() < 0.3:
    advisor.close()
if chance.random() < 0.3:
    raise RuntimeError("an accident")
"""
FORK = """
import os, sys
import mlrs_client

advisor = mlrs_client.connect(sys.argv[1], timeout_s=10.0)
run = advisor.run("a")
pending = run.observe(0, 1.0)
child = os.fork()
if child == 0:
    told = 0
    calls = [pending.lr, lambda: run.observe(1, 1.0), run.finish, lambda: advisor.run("b"),
             lambda: next(advisor.watch("a")), lambda: next(advisor.models())]
    for call in calls:
        try:
            call()
        except mlrs_client.ForkedError as error:
            told += "connect again" in str(error)
    advisor.close()
    run.detach()
    if sys.argv[2] == "exit":
        sys.exit(told)
    os._exit(told)
_, status = os.waitpid(child, 0)
print(os.waitstatus_to_exitcode(status), run.next_lr(0, 1.0) == pending.lr() > 0)
"""


def _exit_once(target: str, seed: int) -> tuple[int, str]:
    ran = subprocess.run(  # our own interpreter
        [sys.executable, "-c", CARELESS, target, str(seed)],
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )
    return ran.returncode, ran.stderr


def _exit_often(daemon: FakeDaemon, times: int) -> None:
    seeds = random.Random(times).sample(range(10**6), times)  # noqa: S311 # not a secret
    with ThreadPoolExecutor(4) as pool:
        for code, stderr in pool.map(lambda seed: _exit_once(daemon.target, seed), seeds):
            assert code in {0, 1}, stderr
            assert code == 0 or "an accident" in stderr
            assert "Fatal" not in stderr


def test_careless_exits(daemon: FakeDaemon) -> None:
    """A process that ends at any moment, in the middle of everything, ends: it does not hang or crash."""
    _exit_often(daemon, 100)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_many_careless_exits(daemon: FakeDaemon) -> None:
    """As above, two thousand times."""
    _exit_often(daemon, 2000)


@pytest.mark.parametrize("ending", ["exit", "_exit"])
def test_forked_children(daemon: FakeDaemon, ending: str) -> None:
    """A forked child is told to connect again at every call, and its end leaves the parent's run alone."""
    ran = subprocess.run(  # our own interpreter
        [sys.executable, "-c", FORK, daemon.target, ending],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert ran.stdout.strip() == "6 True", ran.stderr
