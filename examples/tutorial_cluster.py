"""A cluster shares one schedule: two processes train together, one is killed, and no learning rate changes.

python examples/tutorial_cluster.py [--quick] [--out demo-output/tutorial-cluster.png]
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from argparse import ArgumentParser, RawDescriptionHelpFormatter
from pathlib import Path
from typing import Any

import torch
from demo import daemon
from support.attempts import Job, draw, record_of, steps_in
from support.digits import load_split
from torch import distributed as dist
from torch import nn
from torch.nn.functional import cross_entropy
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, DistributedSampler, TensorDataset

from mlrs.torch import AdvisedLR

RANKS, BATCH_SIZE = 2, 32


def prepare() -> tuple[nn.Module, torch.optim.Optimizer, DataLoader[Any], DistributedSampler[Any]]:
    """Return what every rank trains, and its share of the data."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    (images, labels), _ = load_split(0)
    data = TensorDataset(torch.tensor(images), torch.tensor(labels))
    sampler = DistributedSampler(data)
    loader = DataLoader(data, BATCH_SIZE, sampler=sampler, drop_last=True)
    model = DistributedDataParallel(nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10)))
    return model, torch.optim.SGD(model.parameters(), momentum=0.9), loader, sampler


def train(folder: Path, epochs: int) -> None:
    """Train as one rank of a job; go on from the job's checkpoint, if there is one."""
    dist.init_process_group("gloo")  # "nccl" on GPUs
    rank, attempt = dist.get_rank(), int(os.environ["TORCHELASTIC_RESTART_COUNT"])
    model, optimizer, loader, sampler = prepare()
    scheduler = AdvisedLR(optimizer, "cluster", horizon=epochs * len(loader), num_classes=10, memory=False)
    parts: dict[str, Any] = {"model": model, "optimizer": optimizer, "scheduler": scheduler}
    checkpoint = folder / "checkpoint.pt"
    if checkpoint.exists():
        saved = torch.load(checkpoint, weights_only=True)
        for name, part in parts.items():
            part.load_state_dict(saved[name])  # the scheduler's: the run goes back to the checkpoint's step
    with record_of(folder, rank, attempt).open("w", encoding="utf-8") as record:
        for epoch in range(scheduler.last_epoch // len(loader), epochs):
            sampler.set_epoch(epoch)
            for inputs, targets in loader:
                loss = cross_entropy(model(inputs), targets)
                scheduler.observe(loss)  # the mean of the ranks' losses goes to the daemon
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()  # with the learning rate that came back, the same on all ranks
                step = {"step": scheduler.last_epoch, "loss": loss.item(), "pid": os.getpid()}
                scheduler.step()
                record.write(json.dumps(step | {"lr": scheduler.get_last_lr()[0]}) + "\n")
                record.flush()
                time.sleep(0.02)  # a larger network takes longer, and there is time to kill a rank
            if rank == 0:
                torch.save({name: part.state_dict() for name, part in parts.items()}, folder / "new.pt")
                (folder / "new.pt").replace(checkpoint)  # a checkpoint is whole, or it is not there
    scheduler.finish()
    dist.destroy_process_group()


def run_job(address: str, folder: Path, epochs: int, kill_at: int | None = None) -> Job:
    """Run a job to its end, and kill its rank 0 at a step; return what its ranks wrote."""
    folder.mkdir()
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--max-restarts=1"]
    command += [f"--nproc-per-node={RANKS}", "--monitor-interval=0.1", __file__]
    settings = {"MLRS_TARGET": address, "OMP_NUM_THREADS": "1", "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"}
    with (folder / "torchrun.log").open("w", encoding="utf-8") as log:
        job = subprocess.Popen(
            [*command, str(folder), str(epochs)], stdout=log, stderr=log, env=os.environ | settings
        )
        while kill_at is not None and job.poll() is None:
            seen = steps_in(record_of(folder, 0, 0))
            if kill_at in seen:
                os.kill(seen[kill_at]["pid"], signal.SIGKILL)
                break
            time.sleep(0.01)
        if job.wait() != 0:
            sys.exit(f"the job failed; see {log.name}")
    ranks = [[steps_in(record_of(folder, rank, attempt)) for attempt in (0, 1)] for rank in range(RANKS)]
    return [(before, after) for before, after in ranks]


def compare(undisturbed: Job, killed: Job) -> None:
    """Print what became of the killed job, and whether its numbers are those of the undisturbed one."""
    (before, after), (expected, _) = killed[0], undisturbed[0]
    print(f"rank 0 was killed after step {max(before)}; both ranks went on from step {min(after)}")
    print(f"the job made all {len(expected)} steps: {set(before | after) == set(expected)}")
    for name, words in (("lr", "learning rates"), ("loss", "losses")):
        same = all(
            one[name] == steps[step][name]
            for attempts, (steps, _) in zip(killed, undisturbed, strict=True)
            for attempt in attempts
            for step, one in attempt.items()
        )
        print(f"its {words} are those of the undisturbed job to the bit, on both ranks: {same}")
    rates = [[step["lr"] for step in steps.values()] for steps, _ in undisturbed]
    print(f"both ranks have the same learning rates to the bit: {rates[0] == rates[1]}")


def main() -> None:
    """Run both jobs on one daemon, compare them, save a picture."""
    parser = ArgumentParser(description=__doc__, formatter_class=RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a third of the epochs")
    parser.add_argument("--out", type=Path, default=Path("demo-output/tutorial-cluster.png"))
    arguments = parser.parse_args()
    epochs = 4 if arguments.quick else 12
    folder = arguments.out.with_suffix("")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    with daemon(folder) as address:
        undisturbed = run_job(address, folder / "undisturbed", epochs)
        killed = run_job(address, folder / "killed", epochs, kill_at=epochs * 11 + 7)
    compare(undisturbed, killed)
    draw(undisturbed, killed, arguments.out)
    print(f"picture: {arguments.out}")


if __name__ == "__main__":
    if "RANK" in os.environ:  # torchrun sets it in the processes that it starts
        train(Path(sys.argv[1]), int(sys.argv[2]))
    else:
        main()
