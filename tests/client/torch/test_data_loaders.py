"""Workers of a `DataLoader`, which are forked while their training is connected."""

from __future__ import annotations

import os
import subprocess
import sys

from tests.client.fake_daemon import FakeDaemon

TRAINING = """
import gc, os, signal, sys, warnings
import torch
from torch.utils.data import DataLoader, Dataset, get_worker_info
import mlrs
from mlrs.torch import AdvisedLR

EPOCHS, ITEMS = 3, 8
options = {"timeout_s": 20.0, "memory": False}
target = os.environ["MLRS_TARGET"]

def refused(call):
    try:
        call()
    except mlrs.errors.ForkedError:
        return True
    return False

class Items(Dataset):
    def __len__(self):
        return ITEMS

    def __getitem__(self, index):
        assert get_worker_info() is not None
        signal.alarm(60)  # a worker that hangs is killed, and fails the loader
        gc.collect()
        calls = [
            lambda: advisor.get_run("training"),
            lambda: advisor.run("other", **options).open(),
            lambda: scheduler.run.observe(scheduler.last_epoch, 1.0),
            lambda: scheduler.run.next_lr(scheduler.last_epoch, 1.0),
            lambda: scheduler.run.finish(),
        ]
        was_refused = [refused(call) for call in calls]
        refused(advisor.close)  # or does nothing: the parent goes on
        if index % 4 == 0:
            with mlrs.connect(target, timeout_s=20.0) as own:
                own.run("worker", id=f"{os.getpid()}-{index}", **options).next_lr(0, 1.0)
        elif index % 4 == 1:  # stays open when the worker ends
            mlrs.run("worker", id=f"{os.getpid()}-{index}", **options).next_lr(0, 1.0)
        return torch.tensor(was_refused), os.getpid()

advisor = mlrs.connect(target, timeout_s=20.0)
with mlrs.connect(target, timeout_s=20.0) as closed:
    closed.run("closed", id="closed", **options).next_lr(0, 1.0)
garbage = [closed]
garbage.append(garbage)  # which the workers find, and their collector frees
del closed, garbage
torch.set_num_threads(1)
optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=0.1)
scheduler = AdvisedLR(optimizer, "task", id="training", advisor=advisor, **options)
workers = set()
for epoch in range(EPOCHS):
    for was_refused, pids in DataLoader(Items(), num_workers=2, multiprocessing_context="fork"):
        assert was_refused.all(), was_refused
        workers.add(int(pids))
        scheduler.observe(1.0 + scheduler.last_epoch)
        optimizer.step()
        scheduler.step()
scheduler.finish()
assert len(workers) == 2 * EPOCHS and os.getpid() not in workers
advisor.close()
print("done")
"""


def test_workers_of_a_data_loader(daemon: FakeDaemon) -> None:
    """Forked workers collect, end, are refused their parent's advisor, and connect anew; training goes on."""
    ran = subprocess.run(  # our own interpreter
        [sys.executable, "-c", TRAINING],
        env={**os.environ, "MLRS_TARGET": daemon.target, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=110,
    )
    assert ran.stdout == "done\n", ran.stderr
    record = daemon.runs["training"]
    assert (record.losses, record.finished) == ([1.0 + step for step in range(24)], True)
    own = [run.losses for run_id, run in daemon.runs.items() if run_id not in {"training", "closed"}]
    assert own == [[1.0]] * 12
