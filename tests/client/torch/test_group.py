"""Meta mode under DistributedDataParallel, in two real processes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from tests.client.fake_daemon import FakeDaemon, adapted_lr, lr_sequence

STEPS = 4
RANK = """
import os, sys
import torch
import torch.distributed as dist
import mlrs
from mlrs.torch import AdvisedLR, MetaStep
from tests.client.torch.test_group import STEPS, batch, loss_fn, network

target, file, rank = sys.argv[1], sys.argv[2], int(sys.argv[3])
torch.set_num_threads(1)
dist.init_process_group("gloo", init_method=f"file://{file}", rank=rank, world_size=2)
model = torch.nn.parallel.DistributedDataParallel(network())
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
advisor = mlrs.connect(target, timeout_s=20) if rank == 0 else None
run = advisor.run("task", id="a", meta=mlrs.Meta(every=2), fallback=None) if advisor else None
meta = MetaStep(model, loss_fn, optimizer, run, ahead=1.0)
assert meta.every == 2
for step in range(STEPS):
    optimizer.zero_grad()
    loss = loss_fn(model, batch(step, rank))
    loss.backward()
    lr = torch.tensor([run.next_lr(step, 1.0) if run else 0.0], dtype=torch.float64)
    dist.broadcast(lr, 0)
    optimizer.param_groups[0]["lr"] = float(lr)
    try:
        adaptation = meta.step(batch(100 + step, rank) if meta.is_due else None)
    except mlrs.MlrsError as error:
        print("error", type(error).__name__)
        break
    assert (adaptation is not None) == (rank == 0 and step % 2 == 1)
    print(step, optimizer.param_groups[0]["lr"].hex())
print("weights", [value.hex() for weight in model.parameters() for value in weight.flatten().tolist()])
if advisor:
    advisor.close()
dist.barrier()  # no process ends while another still communicates
dist.destroy_process_group()
"""


BY_HAND = """
import sys
import torch
import torch.distributed as dist
import mlrs
from mlrs.torch import AdvisedLR, MetaStep
from tests.client.torch.test_group import STEPS, batch, loss_fn, network

target, file, rank = sys.argv[1], sys.argv[2], int(sys.argv[3])
torch.set_num_threads(1)
dist.init_process_group("gloo", init_method=f"file://{file}", rank=rank, world_size=2)
model = network()
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
advisor = mlrs.connect(target, timeout_s=20) if rank == 0 else None
run = advisor.run("task", id="a", meta=mlrs.Meta(every=2), fallback=None) if advisor else None
scheduler = AdvisedLR(optimizer, run)
meta = MetaStep(model, loss_fn, optimizer, scheduler, ahead=1.0)
for step in range(STEPS):
    optimizer.zero_grad()
    loss = loss_fn(model, batch(step, rank))
    scheduler.observe(1.0)
    loss.backward()
    for weight in model.parameters():
        dist.all_reduce(weight.grad)
        weight.grad /= 2
    meta.step(batch(100 + step, rank) if meta.is_due else None)
    print(step, optimizer.param_groups[0]["lr"].hex())
    scheduler.step()
print("weights", [value.hex() for weight in model.parameters() for value in weight.flatten().tolist()])
if advisor:
    advisor.close()
dist.barrier()  # no process ends while another still communicates
dist.destroy_process_group()
"""

TROUBLE = """
import signal, sys
import torch
import torch.distributed as dist
import mlrs
from mlrs.torch import AdvisedLR, MetaStep
from tests.client.torch.test_group import TROUBLES, batch, loss_fn, network
from tests.support.runs import open_run

target, file, rank, kind = sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4]
torch.set_num_threads(1)
dist.init_process_group("gloo", init_method=f"file://{file}", rank=rank, world_size=2)
advisor = mlrs.connect(target, timeout_s=20) if rank == 0 else None
step = 0

def run_of(name, meta):
    return open_run(advisor, name, meta=meta, fallback=None) if advisor else None

def attempt(what, do):
    try:
        do()
        print(what, "done", flush=True)
    except BaseException as error:
        print(what, type(error).__name__, "rank" in str(error), flush=True)

def meta_step(run, loss_fn):
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    wrapped = torch.nn.parallel.DistributedDataParallel(model) if kind == "ddp" else model
    scheduler = run if kind == "ddp" else AdvisedLR(optimizer, run)
    return wrapped, optimizer, scheduler, MetaStep(wrapped, loss_fn, optimizer, scheduler)

def train_step(trouble):
    global step
    step += 1
    optimizer.zero_grad()
    loss_fn(wrapped, batch(step, rank)).backward()
    if kind == "ddp":
        if run and trouble != "unobserved":
            run.next_lr(run.next_step, 1.0)
    else:
        scheduler.observe(1.0)
        for weight in wrapped.parameters():
            dist.all_reduce(weight.grad)
            weight.grad /= 2
    given = iter([] if trouble == "exhausted" and rank == 1 else [batch(100 + step, rank)])
    if trouble == "interrupted" and run:
        sys.setprofile(interrupt)
    try:
        meta.step(lambda: next(given))
    finally:
        sys.setprofile(None)
        if kind != "ddp":
            scheduler.step()

def interrupt(frame, event, argument):
    if event == "call" and frame.f_code is mlrs.Run.adapt.__code__:
        sys.setprofile(None)
        signal.raise_signal(signal.SIGINT)

def validation_loss(model, whole):
    if trouble == "raising" and rank == 1:
        raise ValueError("no such label")
    return loss_fn(model, whole)

for order in ("before_step", "after_step"):
    attempt("plain", lambda: meta_step(run_of("plain-" + order, None), loss_fn))
    run = run_of(order, mlrs.Meta(every=1, order=order))
    wrapped, optimizer, scheduler, meta = meta_step(run, validation_loss)
    for trouble in TROUBLES[kind]:
        attempt(trouble, lambda: train_step(trouble))
        trouble = ""
        attempt("next", lambda: train_step(""))
        print(meta.updates, optimizer.param_groups[0]["lr"].hex() if kind != "ddp" else "", flush=True)
    print("weights", [value.hex() for weight in wrapped.parameters() for value in weight.flatten().tolist()])
if advisor:
    advisor.close()
dist.barrier()  # no process ends while another still communicates
dist.destroy_process_group()
"""
TROUBLES = {
    "ddp": ("exhausted", "raising", "unobserved", "interrupted"),
    "by-hand": ("exhausted", "raising", "interrupted"),
}
RAISED = {
    "plain": ("ConfigMismatchError False", "UnavailableError True"),
    "exhausted": ("UnavailableError True", "StopIteration False"),
    "raising": ("UnavailableError True", "ValueError False"),
    "unobserved": ("UsageError False", "UnavailableError True"),
    "interrupted": ("KeyboardInterrupt False", "UnavailableError False"),
}
"""What the two ranks raise, and whether the message names the rank that failed."""


def network() -> nn.Module:
    """Return a small network."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)).double()


def batch(step: int, rank: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return a batch of its own for each step and rank."""
    chance = torch.Generator().manual_seed(1000 * rank + step)
    return (
        torch.randn(8, 3, generator=chance, dtype=torch.float64),
        torch.randn(8, 2, generator=chance, dtype=torch.float64),
    )


def loss_fn(model: Any, batch_: Any) -> torch.Tensor:
    """Return the mean squared error of a batch."""
    return nn.functional.mse_loss(model(batch_[0]), batch_[1])


def train(daemon: FakeDaemon, folder: Path, script: str = RANK, *arguments: str) -> list[list[str]]:
    """Train in two processes, which have two minutes; return the output lines of each."""
    ranks = [
        subprocess.Popen(  # our own interpreter
            [sys.executable, "-c", script, daemon.target, str(folder / "store"), str(rank), *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    said = []
    try:
        for rank in ranks:
            out, err = rank.communicate(timeout=120)
            assert rank.returncode == 0, err
            said.append(out.splitlines())
    finally:
        for rank in ranks:
            rank.kill()
            rank.wait()
    return said


@pytest.mark.timeout(180)
@pytest.mark.parametrize(
    "script",
    [pytest.param(RANK, id="ddp"), pytest.param(BY_HAND, id="by-hand", marks=pytest.mark.slow)],
)
def test_ranks_agree(daemon: FakeDaemon, tmp_path: Path, script: str) -> None:
    """The alignment is the mean over the ranks, and all of them use the learning rate that it gives.

    Whether DistributedDataParallel shares the gradients, or the loop does and has a scheduler for all.
    """
    said = train(daemon, tmp_path, script)
    assert said[0] == said[1]
    record = daemon.runs["a"]
    assert list(record.alignments) == [1, 3]
    expected = lr_sequence([1.0] * STEPS, record.alignments)
    expected[1] = adapted_lr(record.losses, record.alignments, 1)
    expected[3] = adapted_lr(record.losses, record.alignments, 3)
    assert [float.fromhex(line.split()[1]) for line in said[0][:STEPS]] == expected
    advised = lr_sequence([1.0] * STEPS, record.alignments)
    model = network()
    for step in range(STEPS):
        gradients = mean_gradients(model, [batch(step, rank) for rank in range(2)])
        virtual = moved(model, gradients, advised[step])
        if step % 2:
            ahead = mean_gradients(virtual, [batch(100 + step, rank) for rank in range(2)])
            alignment = sum(float((one * other).sum()) for one, other in zip(ahead, gradients, strict=True))
            assert record.alignments[step] == pytest.approx(alignment, rel=1e-9)
        model = moved(model, gradients, expected[step])


@pytest.mark.timeout(180)
def test_a_failure_of_the_first_rank_reaches_all(daemon: FakeDaemon, tmp_path: Path) -> None:
    """Where the first process's update is refused, none waits for it: the others raise, too."""
    daemon.refuse_updates = True
    said = train(daemon, tmp_path)
    assert [lines[1] for lines in said] == ["error RunFinishedError", "error UnavailableError"]
    assert said[0][2:] == said[1][2:]


@pytest.mark.timeout(180)
@pytest.mark.parametrize("kind", TROUBLES)
def test_no_rank_waits_for_one_that_failed(daemon: FakeDaemon, tmp_path: Path, kind: str) -> None:
    """Whatever one rank raises, the others raise too, and all of them can go on together.

    Without an update of the step that failed, and with the same weights everywhere.
    """
    said = train(daemon, tmp_path, TROUBLE, kind)
    for rank, lines in enumerate(said):
        raised = [line.split(" ", 1) for line in lines if line.split()[0] in RAISED]
        assert raised == [[what, RAISED[what][rank]] for what in ("plain", *TROUBLES[kind])] * 2
        assert lines.count("next done") == 2 * len(TROUBLES[kind])
    shared = [[line for line in lines if line.split()[0] not in RAISED] for lines in said]
    assert shared[0] == shared[1]
    for order in ("before_step", "after_step"):
        assert len(daemon.runs[order].alignments) == len(TROUBLES[kind])


def mean_gradients(model: nn.Module, batches: list[Any]) -> list[torch.Tensor]:
    """Return the means of the gradients over batches."""
    found = [torch.autograd.grad(loss_fn(model, one), list(model.parameters())) for one in batches]
    return [torch.stack(each).mean(0) for each in zip(*found, strict=True)]


def moved(model: nn.Module, directions: list[torch.Tensor], learning_rate: float) -> nn.Module:
    """Return a copy of a model after a step."""
    other = network()
    with torch.no_grad():
        for new, old, direction in zip(other.parameters(), model.parameters(), directions, strict=True):
            new.copy_(old - learning_rate * direction)
    return other
