"""Small trainings with Lightning: a linear fit on fixed batches."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

ROWS = 40


def batches(size: int = 4, **settings: Any) -> DataLoader[Any]:
    """Return a loader of the same rows each time."""
    generator = torch.Generator().manual_seed(1)
    inputs = torch.randn(ROWS, 3, generator=generator)
    return DataLoader(TensorDataset(inputs, inputs.sum(1, keepdim=True)), batch_size=size, **settings)


class Fit(lightning.LightningModule):
    """A linear fit with momentum, which notes its losses and the learning rates that its updates use."""

    def __init__(self, **settings: Any) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout(0.2), nn.Linear(4, 1))
        self.settings = {"lr": 0.05, "momentum": 0.9, **settings}
        self.losses: list[float] = []
        self.used: list[float] = []

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:  # noqa: ARG002  # Lightning's
        """Return the loss, and log it."""
        inputs, targets = batch
        loss: torch.Tensor = nn.functional.mse_loss(self.net(inputs), targets)
        self.losses.append(loss.item())
        self.log("train_loss", loss)
        return loss

    def validation_step(self, batch: Any, batch_idx: int) -> None:  # noqa: ARG002  # Lightning's
        """Log the loss."""
        inputs, targets = batch
        self.log("val_loss", nn.functional.mse_loss(self.net(inputs), targets))

    def configure_optimizers(self) -> Any:
        """Return SGD."""
        optimizer = torch.optim.SGD(self.parameters(), **self.settings)
        optimizer.register_step_post_hook(
            lambda optimizer, _args, _kwargs: self.used.append(float(optimizer.param_groups[0]["lr"]))
        )
        return optimizer

    def weights(self) -> list[float]:
        """Return all weights and buffers, to the bit."""
        return [float(one) for part in self.state_dict().values() for one in part.reshape(-1)]


def trainer(folder: Path, *callbacks: lightning.Callback, **settings: Any) -> lightning.Trainer:
    """Return a quiet trainer."""
    return lightning.Trainer(
        accelerator="cpu",
        callbacks=list(callbacks),
        default_root_dir=folder,
        **{
            "devices": 1,
            "enable_checkpointing": False,
            "enable_model_summary": False,
            "enable_progress_bar": False,
            "logger": False,
            "max_epochs": 2,
            **settings,
        },
    )
