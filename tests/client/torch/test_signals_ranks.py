"""The signals of a job of several ranks, in real processes, against the same training in one."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.client.fake_daemon import FakeDaemon
from tests.client.torch.test_group import train

STEPS = 4
SCRIPT = """
import sys
from dataclasses import astuple
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel
import mlrs
from mlrs.torch import AdvisedLR
from mlrs.torch import scheduler as _scheduler
from mlrs.torch.signals import recorder
from tests.client.torch.test_signals_ranks import STEPS
from tests.support.runs import open_run

target, file, rank, cases = sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4].split(",")
torch.set_num_threads(1)
dist.init_process_group("gloo", init_method=f"file://{file}", rank=rank, world_size=2)
advisor = mlrs.connect(target, timeout_s=20) if rank == 0 else None
observe = mlrs.Run.observe

def noting(run, step, loss, **options):
    if (signals := options.pop("signals", None)) is not None:
        print(case, step, *astuple(signals), flush=True)
    return observe(run, step, loss, **options)

mlrs.Run.observe = noting

def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 2)).double()

def sharded(model):
    for layer in (model[0], model):
        fully_shard(layer)
    return model

def rows(step, part):
    chance = torch.Generator().manual_seed(1000 * part + step)
    return torch.randn(8, 5, generator=chance, dtype=torch.float64)

def fail(*_):
    raise RuntimeError("made up")

for case in cases:
    alone = case == "alone"
    model = network()
    model = {"alone": lambda one: one, "ddp": DistributedDataParallel}.get(case, sharded)(model)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1, weight_decay=0.2)
    run = open_run(advisor, case) if advisor else None
    if alone and rank > 0:
        continue
    scheduler = AdvisedLR(
        optimizer, run, distributed=not alone, signals=case != "off" or rank == 0
    )
    sums = recorder.sums
    for step in range(STEPS):
        if case == "failing" and rank == 1 and step == 2:
            recorder.sums = fail
        batch = torch.cat([rows(step, 0), rows(step, 1)]) if alone else rows(step, rank)
        optimizer.zero_grad()
        loss = nn.functional.mse_loss(model(batch[:, :3]), batch[:, 3:])
        scheduler.observe(loss)
        loss.backward()
        optimizer.step()
        scheduler.step()
    scheduler.observe(1.0)
    optimizer.step()
    scheduler.step()
    recorder.sums = sums
    whole = [getattr(one, "full_tensor", lambda: one)() for one in model.parameters()]
    print(case, "weights", sum(float(one.detach().square().sum()) for one in whole).hex(), flush=True)
if advisor:
    advisor.close()
dist.barrier()  # no process ends while another still communicates
dist.destroy_process_group()
"""


def signals_of(lines: list[str], case: str) -> dict[int, list[float]]:
    """Return the numbers that a rank sent in a case, by step."""
    words = [line.removeprefix(f"{case} ").split() for line in lines if line.startswith(f"{case} ")]
    return {int(step): list(map(float, numbers)) for step, *numbers in words if step != "weights"}


@pytest.mark.timeout(180)
def test_ranks(daemon: FakeDaemon, tmp_path: Path) -> None:
    """Under DDP and `fully_shard` the first rank sends the numbers of one process that has all batches."""
    cases = ("alone", "ddp", "shards", "failing", "off")
    first, second = train(daemon, tmp_path, SCRIPT, ",".join(cases))
    alone = signals_of(first, "alone")
    assert list(alone) == list(range(1, STEPS + 1))
    assert not [line for line in second if "weights" not in line]
    for case in ("ddp", "shards"):
        found = signals_of(first, case)
        assert list(found) == list(alone)
        for numbers, expected in zip(found.values(), alone.values(), strict=True):
            assert numbers[:5] == pytest.approx(expected[:5], rel=1e-9, nan_ok=True)
            tolerance = 1e-9 if case == "ddp" else 0.2  # shards: of parts of tensors
            assert numbers[5] == pytest.approx(expected[5], abs=tolerance)
    assert list(signals_of(first, "failing")) == [1, 2]
    assert not signals_of(first, "off")
    ended = [float.fromhex(line.split()[-1]) for line in (*first, *second) if "weights" in line]
    assert ended == pytest.approx(ended[:1] * 9, rel=1e-9)
