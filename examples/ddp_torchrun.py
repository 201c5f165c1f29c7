"""Train digits with DDP: every process updates with the same advised learning rate.

torchrun --nproc-per-node=2 examples/ddp_torchrun.py

Only the lines marked with (mlrs) are for mlrs, and they are the same on every rank: the losses of the ranks
are averaged, rank 0 asks the daemon, and all ranks get its answer. If a process is killed and torchrun starts
the job again (--max-restarts=3), it continues from its checkpoint with the same learning rates.
"""

from __future__ import annotations

from argparse import ArgumentParser, Namespace, RawDescriptionHelpFormatter
from pathlib import Path
from typing import Any

import torch
from support.digits import load_split
from torch import distributed as dist
from torch import nn
from torch.nn.functional import cross_entropy
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, DistributedSampler, TensorDataset

import mlrs
from mlrs.torch import AdvisedLR


def parse_arguments() -> Namespace:
    """Return the settings."""
    parser = ArgumentParser(description=__doc__, formatter_class=RawDescriptionHelpFormatter)
    parser.add_argument("--address", help="the daemon, HOST:PORT; default: this user's own")
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--batch-size", type=int, default=32, help="of each rank")
    parser.add_argument("--checkpoint", type=Path, help="saved after each epoch; where to go on from")
    return parser.parse_args()


def main() -> None:
    """Train as one rank."""
    settings = parse_arguments()
    dist.init_process_group("gloo")  # "nccl" on GPUs
    torch.manual_seed(0)
    torch.set_num_threads(1)
    (images, labels), (test_images, test_labels) = load_split(0)
    data = TensorDataset(torch.tensor(images), torch.tensor(labels))
    sampler = DistributedSampler(data)
    loader = DataLoader(data, settings.batch_size, sampler=sampler, drop_last=True)
    model = DistributedDataParallel(nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10)))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

    saved: dict[str, Any] = {}
    if settings.checkpoint and settings.checkpoint.exists():
        saved = torch.load(settings.checkpoint, weights_only=True)
        model.load_state_dict(saved["model"])
        optimizer.load_state_dict(saved["optimizer"])

    run = None
    if dist.get_rank() == 0:
        advisor = mlrs.connect(settings.address)  # (mlrs)
        run = advisor.run("ddp-digits", horizon=settings.epochs * len(loader), num_classes=10)  # (mlrs)
    scheduler = AdvisedLR(optimizer, run)  # (mlrs) instead of CosineAnnealingLR(optimizer, ...)
    if saved:
        scheduler.load_state_dict(saved["scheduler"])  # the run goes back to the checkpoint's step

    for epoch in range(scheduler.last_epoch // len(loader), settings.epochs):
        sampler.set_epoch(epoch)
        for x, y in loader:
            optimizer.zero_grad()
            loss = cross_entropy(model(x), y)
            scheduler.observe(loss)  # (mlrs) the round trip hides behind backward
            loss.backward()
            optimizer.step()  # with the learning rate advised for the mean of the ranks' losses
            scheduler.step()
        if dist.get_rank() == 0:
            with torch.no_grad():
                right = model.module(torch.tensor(test_images)).argmax(1) == torch.tensor(test_labels)
            print(f"epoch {epoch}: lr {scheduler.get_last_lr()[0]:.4g}, accuracy {right.float().mean():.3f}")
            if settings.checkpoint:
                parts = {"model": model, "optimizer": optimizer, "scheduler": scheduler}
                torch.save({name: part.state_dict() for name, part in parts.items()}, settings.checkpoint)
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
