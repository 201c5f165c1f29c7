"""Schedulers that make their run of a task's name, alone and in a job of several ranks."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
import torch
from torch import nn

import mlrs
from mlrs.api import shared
from mlrs.torch import AdvisedLR
from mlrs.torch import loss as torch_loss
from tests.client.fake_daemon import FakeDaemon, lr_sequence
from tests.client.torch.test_group import train
from tests.client.torch.test_ranks_errors import COMMON
from tests.support.runs import open_run

SHARDED = (
    COMMON
    + """
import os
from torch.distributed.fsdp import fully_shard
from tests.client.torch.test_group import batch, loss_fn, network

os.environ["MLRS_TARGET"] = target
for case in cases:
    if case == "ddp":
        model = torch.nn.parallel.DistributedDataParallel(network())
    else:
        model = network()
        for part in (model[0], model):
            fully_shard(part)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    scheduler = AdvisedLR(optimizer, "sharded", id=case, horizon=100, memory=False, timeout_s=20)
    assert (scheduler.run is None) == (rank == 1)
    for step in range(4):
        optimizer.zero_grad()
        loss = loss_fn(model, batch(step, rank))
        scheduler.observe(loss)
        loss.backward()
        optimizer.step()
        scheduler.step()
        print(case, loss.item(), scheduler.get_last_lr()[0], flush=True)
    scheduler.finish()
    whole = [getattr(weight, "full_tensor", lambda: weight)() for weight in model.parameters()]
    print(case, "weights", [value.hex() for weight in whole for value in weight.flatten().tolist()])
finish()
"""
)


def optimizer() -> torch.optim.Optimizer:
    """Return an optimizer of one weight."""
    return torch.optim.SGD([nn.Parameter(torch.ones(1))], lr=0.1)


def test_three_lines(daemon: FakeDaemon, monkeypatch: pytest.MonkeyPatch) -> None:
    """Given a task's name and options, a scheduler makes a run of the default daemon, and finishes it."""
    monkeypatch.setenv("MLRS_TARGET", daemon.target)
    monkeypatch.setattr(shared, "_shared", shared._Shared())  # another test may have connected
    scheduler = AdvisedLR(optimizer(), "task", horizon=100, timeout_s=10.0)
    losses = [2.0, 1.0]
    for loss in losses:
        scheduler.observe(loss)
        scheduler.optimizer.step()
        scheduler.step()
    assert scheduler.get_last_lr() == lr_sequence(losses)[-1:]
    run = scheduler.run
    assert run is not None
    assert (run.config.horizon, run.config.optimizer) == (100, "sgd")
    scheduler.finish()
    record = daemon.runs[run.id]
    assert (record.task, record.losses, record.finished) == ("task", losses, True)


def test_another_daemon(advisor: mlrs.Advisor, daemon: FakeDaemon) -> None:
    """A scheduler makes its run by the advisor that it is given."""
    AdvisedLR(optimizer(), "task", advisor=advisor, id="mine").step(1.0)
    assert daemon.runs["mine"].losses == [1.0]


def test_a_checkpoint_brings_its_run(advisor: mlrs.Advisor, daemon: FakeDaemon) -> None:
    """A script that is started again makes a run of the task, and a state that it loads replaces that."""
    first = AdvisedLR(optimizer(), "task", advisor=advisor, horizon=100)
    first.step(2.0)
    again = AdvisedLR(optimizer(), "task", advisor=advisor, horizon=100)
    again.load_state_dict(first.state_dict())
    again.step(1.0)
    assert [record.losses for record in daemon.runs.values()] == [[2.0, 1.0]]
    assert again.run is not None
    assert again.run.id == first.state_dict()["run_id"]


def test_options_of_a_run_that_was_made_before(advisor: mlrs.Advisor) -> None:
    """A scheduler refuses options for a run that has its own, by their names."""
    run = open_run(advisor, "a")
    with pytest.raises(mlrs.errors.InvalidArgumentError) as caught:
        AdvisedLR(optimizer(), run, horizon=100)
    assert caught.value.field == "horizon"
    with pytest.raises(mlrs.errors.InvalidArgumentError) as caught:
        AdvisedLR(optimizer(), run, advisor=advisor)
    assert caught.value.field == "advisor"


def test_the_end_waits_for_losses_on_a_device(
    advisor: mlrs.Advisor, daemon: FakeDaemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that is finished has the losses that a device was still computing."""
    computed, value = threading.Event(), torch_loss.Loss.value

    def wait(loss: torch_loss.Loss) -> float:
        assert computed.wait(30)
        return value(loss)

    scheduler = AdvisedLR(optimizer(), "task", advisor=advisor, id="a", lagged=True)
    scheduler.step(1.0)
    monkeypatch.setattr(torch_loss, "_is_on_host", lambda _: False)
    monkeypatch.setattr(torch_loss.Loss, "value", wait)
    scheduler.step(torch.tensor(2.0))
    threading.Timer(0.05, computed.set).start()
    scheduler.finish()
    assert (daemon.runs["a"].losses, daemon.runs["a"].finished) == ([1.0, 2.0], True)


@pytest.mark.timeout(180)
def test_several_ranks_make_one_run(daemon: FakeDaemon, tmp_path: Path) -> None:
    """Under `fully_shard` and DDP the first rank makes the run; all update alike, by the mean of losses."""
    said = train(daemon, tmp_path, SHARDED, "ddp,fsdp")
    assert sorted(daemon.runs) == ["ddp", "fsdp"]
    for case, record in daemon.runs.items():
        lines = [[line.split() for line in each if line.startswith(case)] for each in said]
        steps = list(zip(*(each[:4] for each in lines), strict=True))
        assert record.losses == [sum(float(word[1]) for word in step) / 2 for step in steps]
        lrs = lr_sequence(record.losses)
        assert [[float(word[2]) for word in step] for step in steps] == [[lr, lr] for lr in lrs]
        assert record.finished
        assert lines[0][4] == lines[1][4]
