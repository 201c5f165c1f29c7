"""What one rank of a PyTorch job raises, the others hear of: two real processes, none of which waits."""

from __future__ import annotations

from pathlib import Path

import pytest

from mlrs.torch.ranks import failed_in, flags_of
from tests.client.fake_daemon import FakeDaemon, lr_sequence
from tests.client.torch.test_group import train

COMMON = """
import concurrent.futures, pathlib, signal, sys, threading, time
import torch
import torch.distributed as dist
import mlrs
from mlrs.torch import loss as _torch_loss
from mlrs.torch import AdvisedLR
from tests.support.runs import open_run

target, file, rank, cases = sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4].split(",")
torch.set_num_threads(1)
dist.init_process_group("gloo", init_method=f"file://{file}", rank=rank, world_size=2)
advisor = mlrs.connect(target, timeout_s=20) if rank == 0 else None

def optimizer_of(lr=0.1):
    return torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=lr)

def run_of(name):
    return open_run(advisor, name, fallback=None) if advisor else None

def attempt(what, do):
    try:
        do()
        print(what, "done", flush=True)
    except BaseException as error:
        named = [str(other) for other in range(2) if f"rank {other}," in str(error)]
        print(what, type(error).__name__, *named, flush=True)

def train_step(*losses):
    for loss in losses:
        scheduler.observe(loss)
    scheduler.optimizer.step()
    scheduler.step()

def go_on():
    attempt("next", lambda: train_step(*[2.0] * scheduler._accumulation_steps))
    print("lr", scheduler.optimizer.param_groups[0]["lr"].hex(), flush=True)

def finish():
    dist.barrier()
    if advisor:
        advisor.close()
    dist.destroy_process_group()
"""

BEGIN = (
    COMMON
    + """
def begin(case):
    global scheduler
    optimizers = {"no-lr": optimizer_of(0.0), "no-optimizer": None} if rank == 1 else {}
    own = {("no-run", 0): None, ("bad-run", 1): 5}.get((case, rank), run)
    steps = 0 if case == "accumulation" and rank == 1 else 1
    scheduler = AdvisedLR(optimizers.get(case, optimizer_of()), own, accumulation_steps=steps)

for case in cases:
    run = run_of(case)
    attempt(case, lambda: begin(case))
    attempt("begun", lambda: begin(""))
    go_on()
finish()
"""
)
BEGUN = {
    "no-run": ("InvalidArgumentError", "UnavailableError 0"),
    "bad-run": ("UnavailableError 1", "InvalidArgumentError"),
    "accumulation": ("UnavailableError 1", "InvalidArgumentError"),
    "no-lr": ("UnavailableError 1", "InvalidArgumentError"),
    "no-optimizer": ("UnavailableError 1", "InvalidArgumentError"),
}
"""What the two ranks raise, and which rank the message names."""

STEPS = (
    COMMON
    + """
def micro_batches():
    scheduler.observe("one" if rank == 1 else 1.0)
    print("observed", flush=True)
    scheduler.observe(1.0)

def unobserved():
    if rank == 0:
        scheduler.observe(1.0)
    scheduler.step()

def twice():
    train_step(*[1.0] * (1 + rank))
    print("closed", flush=True)
    scheduler.observe(1.0)

def unclosed():
    scheduler.observe(1.0)
    scheduler.optimizer.step()
    if rank == 0:
        scheduler.step()
    try:
        scheduler.observe(1.0)
    finally:
        if rank == 1:
            scheduler.step()

def grown():
    groups = scheduler.optimizer.param_groups
    if rank == 1:
        scheduler.optimizer.add_param_group({"params": [torch.nn.Parameter(torch.zeros(1))], "lr": torch.inf})
    try:
        train_step(1.0)
    finally:
        del groups[1:], scheduler.base_lrs[1:]

DO = {
    "unreadable": lambda: train_step(torch.zeros(2) if rank == 1 else 1.0),
    "unreadable-first": lambda: train_step("one" if rank == 0 else 1.0),
    "samples": lambda: scheduler.observe(1.0, samples=-1 if rank == 1 else 1),
    "micro-batches": micro_batches,
    "unobserved": unobserved,
    "twice": twice,
    "unclosed": unclosed,
    "grown": grown,
}
for case in cases:
    run = run_of(case)
    scheduler = AdvisedLR(optimizer_of(), run, accumulation_steps=2 if case == "micro-batches" else 1)
    attempt(case, DO[case])
    go_on()
finish()
"""
)
RAISED = {
    "unreadable": ("UnavailableError 1", "InvalidArgumentError"),
    "unreadable-first": ("InvalidArgumentError", "UnavailableError 0"),
    "samples": ("UnavailableError 1", "InvalidArgumentError"),
    "micro-batches": ("UnavailableError 1", "InvalidArgumentError"),
    "unobserved": ("UnavailableError 1", "UsageError"),
    "twice": ("UnavailableError 1", "UsageError"),
    "unclosed": ("UnavailableError 1", "UsageError"),
    "grown": ("UnavailableError 1", "InvalidArgumentError"),
}

INTERRUPTS = (
    COMMON
    + """
def interrupt(*within):
    codes = {function.__code__ for function in within}
    def trace(frame, event, argument):
        if event == "call" and frame.f_code in codes:
            sys.setprofile(None)
            signal.raise_signal(signal.SIGINT)
    sys.setprofile(trace)

def interrupted(who, *within):
    if rank == who:
        interrupt(*within)
    try:
        scheduler.observe(torch.ones(()))
        scheduler.optimizer.step()
    finally:
        sys.setprofile(None)
        if within == waiting:
            scheduler.step()

def held_up(loss):
    assert threading.current_thread() is not threading.main_thread()
    return value(loss)

def failing(loss):
    if rank == 1:
        raise RuntimeError("the device is gone")
    return value(loss)

def on_a_device(read, do):
    is_on_host, _torch_loss._is_on_host = _torch_loss._is_on_host, lambda _: False
    _torch_loss.Loss.value = read
    try:
        do()
    finally:
        _torch_loss._is_on_host, _torch_loss.Loss.value = is_on_host, value

def interrupt_in_wait():
    # Once the main thread waits, as in a collective; then the other rank may come.
    main, before, unchanged = threading.main_thread().ident, None, 0
    while unchanged < 20:
        frame = sys._current_frames()[main]
        now = frame.f_code, frame.f_lasti
        unchanged, before = unchanged + 1 if now == before else 0, now
        time.sleep(0.02)
    signal.pthread_kill(main, signal.SIGINT)
    pathlib.Path(f"{file}-{case}").touch()

def come_late():
    while not pathlib.Path(f"{file}-{case}").exists():
        time.sleep(0.01)

def within_a_collective(where):
    for where_now, do in (("meeting", lambda: scheduler.observe(1.0)), ("sharing", scheduler.optimizer.step)):
        if where_now == where and rank == 0:
            come_late()
        elif where_now == where:
            threading.Thread(target=interrupt_in_wait).start()
        try:
            do()
        except KeyboardInterrupt:
            do()
            scheduler.step()
            raise
    scheduler.step()

value = _torch_loss.Loss.value
waiting = concurrent.futures.wait, concurrent.futures.Future.result
DO = {
    "asking": lambda: interrupted(0, mlrs.Run.observe),
    "waiting-first": lambda: on_a_device(held_up, lambda: interrupted(0, *waiting)),
    "waiting": lambda: on_a_device(held_up, lambda: interrupted(1, *waiting)),
    "device": lambda: on_a_device(failing, lambda: train_step(torch.ones(()))),
    "meeting": lambda: within_a_collective("meeting"),
    "sharing": lambda: within_a_collective("sharing"),
}
for case in cases:
    run = run_of(case)
    scheduler = AdvisedLR(optimizer_of(), run)
    attempt(case, DO[case])
    go_on()
finish()
"""
)
INTERRUPTED = {
    "asking": ("KeyboardInterrupt", "UnavailableError 0"),
    "waiting-first": ("KeyboardInterrupt", "UnavailableError 0"),
    "waiting": ("done", "KeyboardInterrupt"),
    "device": ("UnavailableError 1", "RuntimeError"),
    "meeting": ("done", "KeyboardInterrupt"),
    "sharing": ("done", "KeyboardInterrupt"),
}

LOADS = (
    COMMON
    + """
def damaged(damage, who):
    scheduler.load_state_dict({**state, **damage} if rank == who else state)

def loaded_on_one():
    if rank == 0:
        scheduler.load_state_dict(state)
    else:
        scheduler.observe(1.0)

DO = {
    "rates": lambda: damaged({"base_lrs": ["much"]}, 1),
    "groups": lambda: damaged({"base_lrs": [0.1, 0.1]}, 1),
    "step": lambda: damaged({"step": 7}, 0),
    "no-state": lambda: scheduler.load_state_dict(None if rank == 1 else state),
    "loaded-on-one": loaded_on_one,
    "loaded": lambda: damaged({}, 0),
}
for case in cases:
    run = run_of(case)
    scheduler = AdvisedLR(optimizer_of(), run)
    state = scheduler.state_dict()
    attempt(case, DO[case])
    go_on()
finish()
"""
)
LOADED = {
    "rates": ("UnavailableError 1", "InvalidArgumentError"),
    "groups": ("UnavailableError 1", "InvalidArgumentError"),
    "step": ("InvalidArgumentError", "UnavailableError 0"),
    "no-state": ("UnavailableError 1", "InvalidArgumentError"),
    "loaded-on-one": ("UsageError", "UsageError"),
    "loaded": ("done", "done"),
}


@pytest.mark.timeout(180)
@pytest.mark.parametrize(
    ("script", "expected"),
    [(BEGIN, BEGUN), (STEPS, RAISED), (INTERRUPTS, INTERRUPTED), (LOADS, LOADED)],
    ids=["begin", "steps", "interrupts", "loads"],
)
def test_what_one_rank_raises_all_hear_of(
    daemon: FakeDaemon, tmp_path: Path, script: str, expected: dict[str, tuple[str, str]]
) -> None:
    """One rank raises its own error, the other one that names it; then both go on with one learning rate."""
    said = train(daemon, tmp_path, script, ",".join(expected))
    for rank, lines in enumerate(said):
        raised = [line.split(" ", 1) for line in lines if line.split()[0] in expected]
        assert raised == [[case, errors[rank]] for case, errors in expected.items()]
        assert lines.count("next done") == len(expected)
    rates = [[line for line in lines if line.startswith("lr")] for lines in said]
    assert rates[0] == rates[1]


@pytest.mark.timeout(180)
def test_what_goes_wrong_within_a_step_is_told_where_all_meet(daemon: FakeDaemon, tmp_path: Path) -> None:
    """A micro-batch or an observation too many raises only where the others come, and changes no loss."""
    said = train(daemon, tmp_path, STEPS, "micro-batches,twice")
    for lines in said:
        assert lines[0] == "observed"
        assert "closed" in lines
    assert daemon.runs["micro-batches"].losses == [2.0]
    assert daemon.runs["twice"].losses == [1.0, 2.0]
    first = lr_sequence([1.0, 2.0])[1]
    assert [line for line in said[1] if line.startswith("lr")][1] == f"lr {first.hex()}"


@pytest.mark.parametrize("size", [1, 2, 52, 53, 1000])
def test_each_rank_has_a_flag(size: int) -> None:
    """The sums of the ranks' words of whether they failed name exactly those that did."""
    failed = {0, size // 2, size - 1}
    words = [flags_of(index if index in failed else None, size) for index in range(size)]
    sums = [sum(column) for column in zip(*words, strict=True)]
    assert failed_in(sums) == sorted(failed)
    assert failed_in(flags_of(None, size)) == []
