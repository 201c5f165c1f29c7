"""Train digits with Accelerate: gradient accumulation, checkpoints, and an advised learning rate.

accelerate launch --cpu examples/train_accelerate.py --checkpoint checkpoint
python examples/train_accelerate.py

Only the lines marked with (mlrs) are for mlrs, and they are the same on every process. Started again with the
same --checkpoint, it continues from there, with the learning rates of a training that was not interrupted.
"""

from __future__ import annotations

from argparse import ArgumentParser, RawDescriptionHelpFormatter
from pathlib import Path

import torch
from accelerate import Accelerator
from support.digits import load_split
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, TensorDataset

from mlrs.torch import AdvisedLR  # (mlrs)

ACCUMULATION = 2


def main() -> None:
    """Train, and say how well."""
    parser = ArgumentParser(description=__doc__, formatter_class=RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument(
        "--checkpoint", type=Path, help="a folder: saved after each epoch; where to go on from"
    )
    arguments = parser.parse_args()

    accelerator = Accelerator(cpu=True, gradient_accumulation_steps=ACCUMULATION)
    torch.manual_seed(0)
    torch.set_num_threads(1)
    (images, labels), (test_images, test_labels) = load_split(0)
    data = TensorDataset(torch.tensor(images), torch.tensor(labels))
    batches = DataLoader(data, batch_size=32, shuffle=True)
    model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    model, optimizer, loader = accelerator.prepare(model, optimizer, batches)

    updates = -(-len(loader) // ACCUMULATION)  # of an epoch
    scheduler = AdvisedLR(  # (mlrs)
        optimizer,
        "accelerate-digits",
        accumulation_steps=ACCUMULATION,
        horizon=arguments.epochs * updates,
        num_classes=10,
    )
    accelerator.register_for_checkpointing(scheduler)  # (mlrs) and it is not prepared
    if arguments.checkpoint and arguments.checkpoint.exists():
        accelerator.load_state(str(arguments.checkpoint))

    for epoch in range(scheduler.last_epoch // updates, arguments.epochs):
        for inputs, targets in loader:
            with accelerator.accumulate(model):
                loss = cross_entropy(model(inputs), targets)
                scheduler.observe(loss)  # (mlrs)
                accelerator.backward(loss)
                optimizer.step()
                optimizer.zero_grad()
                if accelerator.sync_gradients:
                    scheduler.step()  # (mlrs) once an update
        accelerator.print(f"epoch {epoch}: loss {loss.item():.4f}, lr {scheduler.get_last_lr()[0]:.5f}")
        if arguments.checkpoint:
            accelerator.save_state(str(arguments.checkpoint))
    scheduler.finish()  # (mlrs)
    with torch.no_grad():
        correct = accelerator.unwrap_model(model)(torch.tensor(test_images)).argmax(1) == torch.tensor(
            test_labels
        )
    accelerator.print(f"test accuracy {correct.double().mean().item():.3f}")
    accelerator.end_training()


if __name__ == "__main__":
    main()
