"""A search of several ranks, in real processes: one decision, means of losses, and errors that reach all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from mlrs_proto import v1 as pb
from tests.client.fake_daemon import TRIAL_STEPS, TRIED, FakeDaemon, Record
from tests.client.torch.test_group import batch, train

COMMON = """
import copy, os, pathlib, signal, sys, threading, time
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel
import mlrs
from mlrs.api import searching as _searching
from mlrs.torch import AdvisedLR, suggest
from tests.client.fake_daemon import FakeDaemon
from tests.client.torch.test_group import batch
from tests.client.torch.search.test_shared_loop import loss_fn, network
from tests.client.torch.search.trainings import same

target, file, rank, cases = sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4].split(",")
torch.set_num_threads(1)
dist.init_process_group("gloo", init_method=f"file://{file}", rank=rank, world_size=2)
advisor = mlrs.connect(target, timeout_s=20) if rank == 0 else None
batches = [batch(step, rank) for step in range(9)]

def say(*words):
    print(*words, flush=True)

def make(name, wrap=DistributedDataParallel, has_buffers=False, **config):
    global model, optimizer, run, scheduler, calls, before
    model = wrap(network(has_buffers))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    run = advisor.run("task", **{"id": name, "horizon": 1000, **config}) if advisor else None
    scheduler = AdvisedLR(optimizer, run)
    calls, before = 0, bits()

def bits():
    whole = lambda weight: weight.full_tensor() if hasattr(weight, "full_tensor") else weight
    return copy.deepcopy([
        [whole(weight).detach() for weight in model.parameters()],
        [buffer for buffer in model.buffers()],
        [weight.grad for weight in model.parameters()],
        optimizer.state_dict()["state"],
        [group["lr"] for group in optimizer.param_groups],
        torch.get_rng_state(),
    ])

def search(loss_fn=loss_fn, batches=batches, **options):
    return scheduler.search(model, loss_fn, batches, **options)

def happening(who, call, happen):
    # A loss_fn with something in one of the calls of a rank.
    def loss_of(model, batch):
        global calls
        calls += 1
        loss = loss_fn(model, batch)
        if (rank, calls) == (who, call):
            happen()
        return loss
    return loss_of

def raise_error():
    raise ValueError("no such label")

def interrupt():
    signal.raise_signal(signal.SIGINT)

def attempt(what, do):
    try:
        result = do()
        said = ("found", result.learning_rate.hex()) if result.learning_rate else ("none", result.why_not)
        say(what, *said)
    except BaseException as error:
        named = [f"rank {other}" for other in range(2) if f"rank {other}," in str(error)]
        say(what, type(error).__name__, *named)

def go_on(what):
    loss = loss_fn(model, batches[0])
    scheduler.observe(loss)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    scheduler.step()
    say("trained", what, optimizer.param_groups[0]["lr"].hex())

def finish():
    dist.barrier()
    if advisor:
        advisor.close()
    dist.destroy_process_group()
"""

SEARCHES = (
    COMMON
    + """
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

def waits(who, method, number=3):
    # In one of the calls of a method of the ranks, a rank waits for the other, and is interrupted there.
    together, count, ours = scheduler._together, 0, getattr(scheduler._together, method)
    def called(*arguments):
        nonlocal count
        count += 1
        if count == number and rank != who:
            come_late()
        elif count == number:
            threading.Thread(target=interrupt_in_wait).start()
        return ours(*arguments)
    setattr(together, method, called)
    try:
        return search()
    finally:
        delattr(together, method)

def counted():
    sums = []
    def loss_of(model, batch):
        loss = loss_fn(model, batch)
        if not torch.is_grad_enabled():
            sums.append(loss.item())
        return loss
    result = search(loss_of)
    say("losses", *[(sum(sums[at : at + 4]) / 4).hex() for at in range(0, len(sums), 4)])
    say("trials", len(result.trials), result.steps, result.octaves)
    return result

def stepping(model, batch):
    optimizer.zero_grad()
    loss = loss_fn(model, batch)
    loss.backward()
    nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    return loss

def lost():
    # The first rank's daemon goes away for good in the middle.
    global scheduler
    own = FakeDaemon() if rank == 0 else None
    _searching.RETRY_S = 0.2
    hasty = mlrs.connect(own.target, timeout_s=0.5) if own else None
    scheduler = AdvisedLR(optimizer, hasty.run("task", horizon=1000, timeout_s=20.0) if hasty else None)
    result = search(happening(0, 11, lambda: own.stop()))
    say("same", "lost", same(bits(), before))
    go_on("lost")
    scheduler.detach()
    if hasty:
        own.start()
        hasty.close()
        own.stop()
    return result

def advised():
    # The learning rate alone; the first rank alone talks to the daemon.
    where = target if rank == 0 else "nowhere:1"
    return suggest(model, optimizer, loss_fn, batches, horizon=1000, advisor=where)

DO = {
    "found": counted,
    "again": search,
    "buffers": search,
    "step-fn": lambda: search(step_fn=stepping),
    "suggest": advised,
    "no-horizon": search,
    "raises-first": lambda: search(happening(1, 1, raise_error)),
    "raises": lambda: search(happening(1, 12, raise_error)),
    "raises-0": lambda: search(happening(0, 12, raise_error)),
    "raises-both": lambda: search(happening(rank, 12, raise_error)),
    "compares": lambda: search(happening(1, 17, raise_error)),
    "batches": lambda: search(batches=batches[: 9 if rank == 0 else 4]),
    "argument": lambda: search(save_to="device" if rank == 0 else "disk"),
    "argument-0": lambda: search(also_save=[] if rank == 1 else ["ema"]),
    "refused": search,
    "finished": search,
    "interrupted-0": lambda: search(happening(0, 12, interrupt)),
    "interrupted-1": lambda: search(happening(1, 12, interrupt)),
    "sharing": lambda: waits(1, "share"),
    "meeting": lambda: waits(1, "meet"),
    "meeting-0": lambda: waits(0, "meet"),
    "lost": lost,
}
CONFIG = {"no-horizon": {"horizon": None}, "again": {"id": "found", "on_existing": "resume"}}
for case in cases:
    make(case, has_buffers=case == "buffers", **CONFIG.get(case, {}))
    attempt(case, DO[case])
    if case == "lost":
        continue
    say("same", case, same(bits(), before))
    if case not in {"finished", "found"}:
        go_on(case)
finish()
"""
)
START = TRIED[0], 0
"""A trial of no steps, which measures the loss at the start."""
FOUND, FAILED = "found", "UnavailableError"
SAID = {
    "found": (FOUND, FOUND),
    "again": (FOUND, FOUND),
    "buffers": (FOUND, FOUND),
    "step-fn": (FOUND, FOUND),
    "suggest": (FOUND, FOUND),
    "no-horizon": (
        "none the run has no horizon; always=True makes one",
        "none the first rank says why",
    ),
    "raises-first": (f"{FAILED} rank 1", "ValueError"),
    "raises": (f"{FAILED} rank 1", "ValueError"),
    "raises-0": ("ValueError", f"{FAILED} rank 0"),
    "raises-both": ("ValueError", "ValueError"),
    "compares": (f"{FAILED} rank 1", "ValueError"),
    "batches": (f"{FAILED} rank 1", "InvalidArgumentError"),
    "argument": (f"{FAILED} rank 1", "InvalidArgumentError"),
    "argument-0": ("InvalidArgumentError", f"{FAILED} rank 0"),
    "refused": ("RunFinishedError", f"{FAILED} rank 0"),
    "finished": ("RunFinishedError", f"{FAILED} rank 0"),
    "interrupted-0": ("KeyboardInterrupt", f"{FAILED} rank 0"),
    "interrupted-1": (f"{FAILED} rank 1", "KeyboardInterrupt"),
    "sharing": (f"{FAILED} rank 1", "KeyboardInterrupt"),
    "meeting": (f"{FAILED} rank 1", "KeyboardInterrupt"),
    "meeting-0": ("KeyboardInterrupt", f"{FAILED} rank 0"),
    "lost": ("none the daemon went away", "none the first rank says why"),
}
"""What the two ranks say of each case."""

APART = (
    COMMON
    + """
def failing_step(model, batch):
    global calls
    calls += 1
    if (rank, calls) == (1, 3):
        raise_error()
    optimizer.zero_grad()
    loss = loss_fn(model, batch)
    loss.backward()
    optimizer.step()
    return loss

def failing_before(model, batch):
    global calls
    calls += 1
    if (rank, calls) == (1, 3):
        raise_error()
    return loss_fn(model, batch)

def failing_backward(model, batch):
    global calls
    calls += 1
    loss = loss_fn(model, batch)
    if (rank, calls) == (1, 3):
        loss.register_hook(lambda gradient: raise_error())
    return loss

(case,) = cases
make(case, wrap=(lambda model: fully_shard(model) or model) if case == "shards" else DistributedDataParallel,
     has_buffers=case == "buffers")
DO = {
    "step-fn": lambda: search(step_fn=failing_step),
    "buffers": lambda: search(failing_before),
    "shards": lambda: search(failing_before),
    "backward": lambda: search(failing_backward),
}
attempt("failed", DO[case])
if case != "shards":
    say("same", same(bits(), before))
if advisor:
    advisor.close()
sys.stdout.flush()
os._exit(0)  # PyTorch may abort when it tears down a process group whose other process has failed
"""
)

SHARDS = (
    COMMON
    + """
def sharded(model):
    for layer in (model[-3], model):
        fully_shard(layer)
    return model

for case in cases:
    make(case, sharded, has_buffers=case == "buffers")
    attempt(case, lambda: search(save_to="cpu" if case == "cpu" else "device"))
    say("same", case, same(bits(), before))
    go_on(case)
finish()
"""
)


class Shifted(nn.Module):
    """A layer that follows the mean of its input in a buffer."""

    mean: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(3, dtype=torch.float64))

    def forward(self, input: torch.Tensor) -> torch.Tensor:  # noqa: A002 # its name in PyTorch
        """Return the input."""
        with torch.no_grad():
            self.mean.mul_(0.9).add_(0.1 * input.mean(0))
        return input


def network(has_buffers: bool = False) -> nn.Sequential:  # noqa: FBT001, FBT002 # scripts pass it on
    """Return a small network."""
    torch.manual_seed(0)
    layers = [nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)]
    return nn.Sequential(*([Shifted()] if has_buffers else []), *layers).double()


def loss_fn(model: Any, batch_: Any) -> torch.Tensor:
    """Return the mean squared error of a batch, and a number more, so that no trial diverges."""
    return nn.functional.mse_loss(model(batch_[0]), batch_[1]) + 10.0


def told(lines: list[str], what: str) -> list[str]:
    """Return the rest of the lines that begin with a word."""
    return [line.removeprefix(what).strip() for line in lines if line.split()[0] == what]


def expected_losses() -> list[float]:
    """Return the loss at the start and after three trials of one process that has all ranks' batches."""
    both = [[batch(step, rank) for rank in range(2)] for step in range(4 + TRIAL_STEPS)]
    whole = [tuple(torch.cat(parts) for parts in zip(*ranks, strict=True)) for ranks in both]
    losses = []
    for rate, steps in [START, *((rate, TRIAL_STEPS) for rate in TRIED)]:
        model = network()
        optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
        for update in range(steps):
            optimizer.param_groups[0]["lr"] = rate * (1.0 - update / steps)
            optimizer.zero_grad()
            loss_fn(model, whole[4 + update]).backward()
            optimizer.step()
        losses.append(sum(loss_fn(model, one).item() for one in whole[:4]) / 4)
    return losses


def recorded_losses(daemon: FakeDaemon, run_id: str) -> list[float]:
    """Return the losses after trials that a run's search has recorded."""
    (search,) = daemon.runs[run_id].searches
    return [result.loss for result in search.results]


def check_agreement(said: list[list[str]], cases: dict[str, tuple[str, str]]) -> None:
    """Check that ranks said what was expected, are as they were, and found and trained the same."""
    for rank, lines in enumerate(said):
        for case, expected in cases.items():
            (line,) = told(lines, case)
            assert line.startswith(expected[rank]), case
        assert sorted(told(lines, "same")) == sorted(f"{case} True" for case in cases)
    found = [[told(lines, case) for case in cases if cases[case][0] == FOUND] for lines in said]
    assert found[0] == found[1]
    trained = [told(lines, "trained") for lines in said]
    assert trained[0] == trained[1]


@pytest.mark.timeout(240)
def test_what_ranks_find_and_raise(daemon: FakeDaemon, tmp_path: Path) -> None:
    """All ranks find the same, or all raise; each is as it was, to the bit, and they go on together."""
    daemon.refuse_searches["refused"] = pb.ERROR_REASON_RUN_FINISHED
    daemon.runs["finished"] = Record("finished", pb.RunConfig())
    daemon.runs["finished"].finished = True
    said = train(daemon, tmp_path, SEARCHES, ",".join(SAID))
    check_agreement(said, SAID)
    assert len(told(said[0], "trained")) == len(SAID) - 2
    found = 0.5 * TRIED[min(range(3), key=recorded_losses(daemon, "found").__getitem__)]
    for lines in said:
        assert told(lines, "found") == told(lines, "again") == [f"found {found.hex()}"]
    assert told(said[0], "trials") == ["3 15 1.0"]
    assert told(said[1], "trials") == ["0 15 1.0"]
    assert "suggest" in daemon.runs
    assert [run_id for run_id in daemon.runs if run_id.startswith("suggest/")] == []
    assert daemon.runs["raises"].searches[0].results[1:] == []


@pytest.mark.timeout(180)
def test_losses_are_means_over_the_ranks(daemon: FakeDaemon, tmp_path: Path) -> None:
    """A trial of two ranks is that of one process which has the batches of both."""
    daemon.trials.insert(0, START)
    said = train(daemon, tmp_path, SEARCHES, "found")
    own = [[float.fromhex(loss) for loss in told(lines, "losses")[0].split()] for lines in said]
    assert own[0] != own[1]
    recorded = recorded_losses(daemon, "found")
    assert recorded == pytest.approx([sum(pair) / 2 for pair in zip(*own, strict=True)], rel=1e-12)
    assert recorded == pytest.approx(expected_losses(), rel=1e-9)


@pytest.mark.timeout(180)
def test_shards(daemon: FakeDaemon, tmp_path: Path) -> None:
    """Under `fully_shard` trials are those of one process, and shards are put back to the bit."""
    cases = dict.fromkeys(("device", "cpu", "buffers"), (FOUND, FOUND))
    daemon.trials.insert(0, START)
    said = train(daemon, tmp_path, SHARDS, ",".join(cases))
    check_agreement(said, cases)
    for case in cases:
        assert recorded_losses(daemon, case) == pytest.approx(expected_losses(), rel=1e-9)


@pytest.mark.timeout(180)
@pytest.mark.parametrize(
    "case",
    ["step-fn", *(pytest.param(one, marks=pytest.mark.slow) for one in ("buffers", "shards", "backward"))],
)
def test_a_rank_that_fails_where_ranks_communicate(daemon: FakeDaemon, tmp_path: Path, case: str) -> None:
    """A rank that fails where the others wait in a collective raises at once; they raise when it is gone."""
    first, second = train(daemon, tmp_path, APART, case)
    assert told(second, "failed") == ["ValueError"]
    assert told(first, "failed") == ["RuntimeError"]
    if case != "shards":
        assert told(first, "same") == told(second, "same") == ["True"]
