"""Ctrl-C at random moments: the loop continues where it was, unchanged, and nothing hangs."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest

from tests.support.reliability import save

INTERRUPTED = """
import random, signal, sys, time
import mlrs
from tests.client.fake_daemon import FakeDaemon, adapted_lr, lr_sequence
from tests.support.runs import open_run

INTERRUPTS, TIMEOUT_S = int(sys.argv[1]), 2.0
chance = random.Random(int(sys.argv[2]))
daemon = FakeDaemon()
interrupted = longest = 0
armed = False  # whether a `try` is around what is interrupted: it is not around all of this script

def interrupt(number, frame):
    global armed
    signal.setitimer(signal.ITIMER_REAL, chance.uniform(0.0001, 0.004))
    if armed:
        armed = False
        raise KeyboardInterrupt

def patiently(work):
    # A loop that goes on after Ctrl-C with what it was doing.
    global armed, interrupted, longest
    while True:
        began = None
        try:
            armed = True
            began = time.monotonic()
            return work()
        except KeyboardInterrupt:
            interrupted += 1
        finally:
            longest = max(longest, time.monotonic() - began if began else 0.0)

with mlrs.connect(daemon.target, timeout_s=TIMEOUT_S) as advisor:
    run = open_run(advisor, "a", meta=True, fallback=None)
    losses, lrs, alignments, adapted = [], [], {}, {}
    signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, 0.001)
    while True:
        try:
            armed = True
            step = 0  # `continue` jumps here; CPython 3.11 counts an interrupt then to what is before
            while interrupted < INTERRUPTS:
                if len(losses) == len(lrs):
                    losses.append(chance.gauss(1.0, 1.0))
                if chance.random() < 0.03:
                    daemon.cut()
                step = len(lrs)
                last = step - 1
                if step and step % 4 == 0 and last not in adapted:
                    alignments.setdefault(last, chance.gauss(0.0, 1.0))
                    adapted[last] = patiently(lambda: run.adapt(last, alignments[last])).learning_rate
                    continue
                kind = chance.random()
                if kind < 0.1:
                    pending = patiently(lambda: run.observe(step, losses[step]))
                    lr = patiently(pending.lr)
                elif kind < 0.12:
                    patiently(lambda: advisor.get_run("a"))
                    continue
                else:
                    lr = patiently(lambda: run.next_lr(step, losses[step]))
                lrs.append(lr)
            signal.setitimer(signal.ITIMER_REAL, 0)
            break
        except KeyboardInterrupt:
            interrupted += 1
    signal.signal(signal.SIGALRM, signal.SIG_IGN)
    del losses[len(lrs):]
    expected = lr_sequence(losses, alignments)
    if lrs != expected and len(lrs) > 0:
        first = next(i for i, (a, b) in enumerate(zip(lrs, expected)) if a != b)
        sys.exit(f"step {first} of {len(lrs)} has another learning rate")
    if daemon.runs["a"].losses[:len(losses)] != losses:
        sys.exit("the daemon has other losses")
    if any(adapted[step] != adapted_lr(losses, alignments, step) for step in adapted):
        sys.exit("an update gave another learning rate")
    if any(daemon.runs["a"].alignments.get(step) != alignments[step] for step in adapted):
        sys.exit("the daemon has other updates")
if longest > TIMEOUT_S + 0.1:
    sys.exit(f"a call took {longest} s")
print(interrupted, len(lrs), len(adapted), round(longest, 3))
daemon.stop()
"""


def _interrupted(times: int, seed: int, timeout_s: float) -> None:
    ran = subprocess.run(  # our own interpreter
        [sys.executable, "-c", INTERRUPTED, str(times), str(seed)],
        capture_output=True,
        text=True,
        check=False,
        timeout=timeout_s,
    )
    assert ran.returncode == 0, ran.stderr
    interrupts, steps, updates, _ = ran.stdout.split()
    assert int(interrupts) >= times
    assert int(steps) > 0
    assert int(updates) > 0


@pytest.mark.parametrize("seed", range(3))
def test_interrupts_change_nothing(seed: int) -> None:
    """Hundreds of interrupts of a loop whose streams break change no LR or update and hold up no call."""
    _interrupted(400, seed, 60.0)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_many_interrupts_change_nothing() -> None:
    """As above, fifty thousand interrupts."""
    began = time.monotonic()
    for seed in range(10):
        _interrupted(5000, 100 + seed, 600.0)
    save(
        "interrupts",
        "pytest -m slow tests/client/api/test_interrupts.py",
        began,
        time.monotonic(),
        interrupts=50_000,
        hangs=0,
        wrong_learning_rates=0,
    )
