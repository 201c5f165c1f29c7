"""How processes end that use the client: none hangs, whatever it forgot, and forks raise."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

import mlrs
from tests.client.fake_daemon import FakeDaemon
from tests.support.reliability import save

CARELESS = """
import random, sys, threading, time
import mlrs

chance = random.Random(int(sys.argv[2]))
advisor = mlrs.connect(sys.argv[1], timeout_s=float(sys.argv[3]))
runs = [advisor.run("task", id=f"{sys.argv[2]}-{index}", timeout_s=20.0).open() for index in range(2)]
trouble = sys.argv[4] != "well"
if trouble:  # the fallback needs a learning rate to go on with
    for run in runs:
        run.next_lr(0, 1.0)
def train(run):
    for step in range(int(trouble), 1_000_000):
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
if trouble:  # tell the parent that the daemon may go now, or stop
    print("trained", flush=True)
    sys.stdin.readline()
    while not all(run.fallback_steps for run in runs):
        time.sleep(0.001)
    print("fell back", flush=True)
time.sleep(chance.uniform(0.0, 0.02 if sys.argv[4] == "well" else 0.4))
if chance.random() < 0.3:
    advisor.close()
if chance.random() < 0.3:
    raise RuntimeError("an accident")
"""
DAEMON = """
import sys
from tests.client.fake_daemon import FakeDaemon
daemon = FakeDaemon()
print(daemon.target, flush=True)
sys.stdin.read()
"""
HANG_S = 60
"""A process that takes longer to end hangs."""
FORK = """
import os, sys
import mlrs

advisor = mlrs.connect(sys.argv[1], timeout_s=10.0)
run = advisor.run("task", id="a").open()
pending = run.observe(0, 1.0)
child = os.fork()
if child == 0:
    messages = 0
    calls = [pending.lr, lambda: run.observe(1, 1.0), run.finish, lambda: advisor.run("task").open(),
             lambda: next(advisor.watch("a")), lambda: next(advisor.models())]
    for call in calls:
        try:
            call()
        except mlrs.errors.ForkedError as error:
            messages += "connect again" in str(error)
    advisor.close()
    run.detach()
    if sys.argv[2] == "exit":
        sys.exit(messages)
    os._exit(messages)
_, status = os.waitpid(child, 0)
print(os.waitstatus_to_exitcode(status), run.next_lr(0, 1.0) == pending.lr() > 0)
"""


def _exit_once(target: str, seed: int) -> None:
    ran = subprocess.run(  # our own interpreter
        [sys.executable, "-c", CARELESS, target, str(seed), "2.0", "well"],
        capture_output=True,
        text=True,
        check=False,
        timeout=HANG_S,
    )
    _check_end(ran.returncode, ran.stderr)


def _check_end(code: int, stderr: str) -> None:
    assert code in {0, 1}, stderr
    assert code == 0 or "an accident" in stderr, stderr
    assert "Fatal" not in stderr


def _exit_often(daemon: FakeDaemon, times: int) -> None:
    seeds = random.Random(times).sample(range(10**6), times)  # noqa: S311 # not a secret
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda seed: _exit_once(daemon.target, seed), seeds))


def _exit_from_trouble(seed: int, trouble: str) -> None:
    """Have a process end whose daemon, in a process of its own, was killed or stopped before."""
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, "-c", DAEMON], **pipes) as daemon:
        assert daemon.stdout is not None
        target = daemon.stdout.readline().strip()
        careless = [sys.executable, "-c", CARELESS, target, str(seed), "0.2", trouble]
        with subprocess.Popen(careless, stderr=subprocess.PIPE, **pipes) as client:
            try:
                assert client.stdout is not None
                assert client.stdout.readline() == "trained\n"
                daemon.send_signal(signal.SIGSTOP if trouble == "stopped" else signal.SIGKILL)
                said, stderr = client.communicate("\n", timeout=HANG_S)
                assert said == "fell back\n", stderr
                _check_end(client.returncode, stderr)
            finally:
                client.kill()
                daemon.kill()


def test_careless_exits(daemon: FakeDaemon) -> None:
    """A process that ends at any moment, in the middle of everything, ends: it does not hang or crash."""
    _exit_often(daemon, 40)


@pytest.mark.parametrize("trouble", ["gone", "stopped"])
@pytest.mark.parametrize("seed", range(3))
def test_careless_exits_in_an_outage(seed: int, trouble: str) -> None:
    """A process whose daemon is dead, or stopped by SIGSTOP, ends while its fallback answers every run."""
    _exit_from_trouble(seed, trouble)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_many_careless_exits(daemon: FakeDaemon) -> None:
    """As above, two thousand times: with a daemon, without one, and with one that is stopped."""
    began = time.monotonic()
    _exit_often(daemon, 1600)
    with ThreadPoolExecutor(4) as pool:
        for trouble in ("gone", "stopped"):
            list(pool.map(lambda seed, trouble=trouble: _exit_from_trouble(seed, trouble), range(200)))
    save(
        "exits",
        "pytest -m slow tests/client/api/test_exit.py",
        began,
        time.monotonic(),
        exits=2000,
        without_a_daemon=200,
        with_a_stopped_one=200,
        hangs=0,
        crashes=0,
    )


@pytest.mark.parametrize("ending", ["exit", "_exit"])
def test_forked_children(daemon: FakeDaemon, ending: str) -> None:
    """Every call in a forked child says to connect again, and its end leaves the parent's run alone."""
    ran = subprocess.run(  # our own interpreter
        [sys.executable, "-c", FORK, daemon.target, ending],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert ran.stdout.strip() == "6 True", ran.stderr


def _in_worker(run: mlrs.Run) -> str:
    try:
        run.observe(1, 1.0)
    except mlrs.errors.ForkedError as error:
        return str(error)
    return "no error"


def test_workers_that_are_forked(daemon: FakeDaemon) -> None:
    """A worker of `multiprocessing`, as of a DataLoader, that receives its parent's run fails at once."""
    script = (
        "import multiprocessing, sys, mlrs\n"
        "from tests.client.api.test_exit import _in_worker\n"
        "advisor = mlrs.connect(sys.argv[1], timeout_s=10.0)\n"
        "run = advisor.run('task', id='a'); lr = run.next_lr(0, 1.0)\n"
        "def work(queue): queue.put(_in_worker(run))\n"
        "context = multiprocessing.get_context('fork'); queue = context.Queue()\n"
        "workers = [context.Process(target=work, args=[queue]) for _ in range(4)]\n"
        "[worker.start() for worker in workers]\n"
        "messages = [queue.get(timeout=20) for _ in workers]\n"
        "[worker.join(20) for worker in workers]\n"
        "print(sum('connect again' in text for text in messages), [worker.exitcode for worker in workers],"
        " run.next_lr(0, 1.0) == lr)\n"
    )
    ran = subprocess.run(  # our own interpreter
        [sys.executable, "-c", script, daemon.target],
        capture_output=True,
        text=True,
        check=False,
        timeout=HANG_S,
    )
    assert ran.stdout.strip() == "4 [0, 0, 0, 0] True", ran.stderr


LOADER = """
import sys
import mlrs  # the first to import gRPC
import grpc
from torch.utils.data import DataLoader

advisor = mlrs.connect(sys.argv[1], timeout_s=30.0)
run = advisor.run("task", id="a", fallback=None)
for epoch in range(2):
    for batch in DataLoader([1.0, 2.0, 3.0, 4.0], num_workers=2, multiprocessing_context="fork"):
        run.next_lr(run.next_step, batch.item())
if sys.argv[2] == "garbage":
    with grpc.secure_channel(sys.argv[1], grpc.ssl_channel_credentials(b"no certificate")) as channel:
        try:
            channel.unary_unary("/any/Call")(b"", timeout=30.0)
        except grpc.RpcError as error:
            print(error.code().name)
advisor.close()
print(run.next_step)
"""


@pytest.mark.parametrize(
    ("certificate", "verbosity", "messages", "expected"),
    [
        ("none", {}, "", "8"),
        ("garbage", {}, "root certificate", "UNAVAILABLE\n8"),
        ("none", {"GRPC_VERBOSITY": "INFO"}, "fork", "8"),
        ("none", {"GRPC_TRACE": "channel"}, "fork", "8"),
    ],
)
def test_forks_of_a_data_loader(
    daemon: FakeDaemon, certificate: str, verbosity: dict[str, str], messages: str, expected: str
) -> None:
    """Forked workers of a DataLoader write nothing to stderr; gRPC's errors, and what one asks for, stay."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GRPC_")}
    ran = subprocess.run(  # our own interpreter
        [sys.executable, "-c", LOADER, daemon.target, certificate],
        capture_output=True,
        text=True,
        check=False,
        timeout=HANG_S,
        env=environment | verbosity,
    )
    assert ran.stdout.strip() == expected, ran.stderr
    assert messages in ran.stderr
    assert "fork" not in ran.stderr or verbosity, ran.stderr
    assert not ran.stderr or messages


def test_the_environment_stays_as_it_is() -> None:
    """Importing the client changes no environment variable, which subprocesses would inherit."""
    script = (
        "import os; before = dict(os.environ)\nimport mlrs, mlrs.aio\nassert dict(os.environ) == before\n"
    )
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
