"""Train a small vision transformer on digits with timm, layer-wise decay and an advised learning rate.

python examples/train_timm.py --output checkpoints
python examples/train_timm.py --output checkpoints --resume checkpoints/last.pth.tar

Only the lines marked with (mlrs) are for mlrs. timm's checkpoints hold the optimizer, whose state holds the
run: a training that resumes has the learning rates of one that was not interrupted.
"""

from __future__ import annotations

from argparse import ArgumentParser, RawDescriptionHelpFormatter
from pathlib import Path

import timm
import torch
from support.digits import load_split
from timm.models import resume_checkpoint
from timm.optim import create_optimizer_v2
from timm.utils import CheckpointSaver
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, TensorDataset

from mlrs.timm import AdvisedLR  # (mlrs)


def main() -> None:
    """Train, and say how well."""
    parser = ArgumentParser(description=__doc__, formatter_class=RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--output", type=Path, help="a folder for checkpoints, one after each epoch")
    parser.add_argument("--resume", type=Path, help="a checkpoint to go on from")
    arguments = parser.parse_args()

    torch.manual_seed(0)
    torch.set_num_threads(1)
    (images, labels), (test_images, test_labels) = load_split(0)
    data = TensorDataset(torch.tensor(images).view(-1, 1, 8, 8), torch.tensor(labels))
    loader = DataLoader(data, batch_size=64, shuffle=True, drop_last=True)
    shape = {"img_size": 8, "patch_size": 2, "in_chans": 1, "depth": 2, "embed_dim": 32, "num_heads": 2}
    model = timm.create_model("vit_tiny_patch16_224", num_classes=10, **shape)
    optimizer = create_optimizer_v2(model, opt="adamw", lr=3e-3, layer_decay=0.8)
    start = 0
    if arguments.resume:
        start = resume_checkpoint(model, str(arguments.resume), optimizer, log_info=False)

    horizon = arguments.epochs * len(loader)
    scheduler = AdvisedLR(optimizer, "timm-digits", horizon=horizon, num_classes=10)  # (mlrs)
    num_updates = start * len(loader)
    if start:
        scheduler.step_update(num_updates)
    saver = None
    if arguments.output:
        arguments.output.mkdir(parents=True, exist_ok=True)
        saver = CheckpointSaver(model, optimizer, checkpoint_dir=str(arguments.output))

    for epoch in range(start, arguments.epochs):
        model.train()
        for inputs, targets in loader:
            loss = cross_entropy(model(inputs), targets)
            scheduler.observe(loss)  # (mlrs)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            num_updates += 1
            scheduler.step_update(num_updates=num_updates)
        rates = [group["lr"] for group in optimizer.param_groups]
        print(f"epoch {epoch}: loss {loss.item():.4f}, lr {min(rates):.2e} to {max(rates):.2e}", flush=True)
        if saver is not None:
            saver.save_checkpoint(epoch, -loss.item())
    scheduler.finish()  # (mlrs)
    model.eval()
    with torch.no_grad():
        scores = model(torch.tensor(test_images).view(-1, 1, 8, 8))
    accuracy = (scores.argmax(1) == torch.tensor(test_labels)).double().mean().item()
    print(f"test accuracy {accuracy:.3f}")


if __name__ == "__main__":
    main()
