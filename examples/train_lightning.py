"""Train a small CNN on digits with Lightning, advised; print what was validated, and how the run began.

python examples/train_lightning.py
"""

from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

import lightning
import torch
from support.digits import Split, load_split, report
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset

import mlrs
from mlrs.lightning import AdvisedLR


class Digits(lightning.LightningModule):
    """A CNN for (n, 1, 8, 8) images. Nothing in it knows of advice."""

    def __init__(self) -> None:
        super().__init__()
        self.network = nn.Sequential(
            nn.Conv2d(1, 16, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(16, 32, 3, padding=1, stride=2),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(32 * 16, 10),
        )

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:  # noqa: ARG002  # Lightning's name
        """Return the cross-entropy of a batch."""
        images, labels = batch
        loss: torch.Tensor = functional.cross_entropy(self.network(images), labels)
        self.log("train_loss", loss)
        return loss

    def validation_step(self, batch: Any, batch_idx: int) -> None:  # noqa: ARG002  # Lightning's name
        """Log the cross-entropy, which the run is told, and the accuracy."""
        images, labels = batch
        scores = self.network(images)
        self.log("val_loss", functional.cross_entropy(scores, labels))
        self.log("val_accuracy", (scores.argmax(1) == labels).float().mean())

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Return the optimizer alone: `AdvisedLR` is its schedule."""
        return torch.optim.SGD(self.parameters(), lr=0.1, momentum=0.9)


def loader(split: Split, batch_size: int, *, shuffle: bool) -> DataLoader[Any]:
    """Return the batches of a part of the data."""
    images, labels = torch.tensor(split[0]).view(-1, 1, 8, 8), torch.tensor(split[1])
    return DataLoader(TensorDataset(images, labels), batch_size, shuffle=shuffle)


def main() -> None:
    """Train and report."""
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("--address", help="the daemon, HOST:PORT; default: this user's own")
    parser.add_argument("--task", default="digits-lightning", help="what is trained")
    parser.add_argument("--epochs", type=int, default=15)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    lightning.seed_everything(arguments.seed, verbose=False)
    torch.set_num_threads(1)
    train, test = load_split(arguments.seed)
    with mlrs.connect(arguments.address) as advisor:
        advised = AdvisedLR(arguments.task, advisor=advisor, num_classes=10)
        trainer = lightning.Trainer(
            max_epochs=arguments.epochs,
            accelerator="cpu",
            callbacks=[advised],
            enable_checkpointing=False,
            enable_model_summary=False,
            enable_progress_bar=False,
            logger=False,
            num_sanity_val_steps=0,
        )
        trainer.fit(Digits(), loader(train, 64, shuffle=True), loader(test, 360, shuffle=False))
        assert advised.run is not None
        report(why=advised.run.why, steps=trainer.global_step)
    report(**{name: float(value) for name, value in trainer.callback_metrics.items()})


if __name__ == "__main__":
    main()
