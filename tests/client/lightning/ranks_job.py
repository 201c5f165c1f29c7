"""A fit on two processes with DDP over gloo, for `test_ranks`: each rank writes what it saw to a file."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.callbacks import ModelCheckpoint

import mlrs
from mlrs.lightning import AdvisedLR
from tests.client.lightning.trainings import Fit, batches, trainer


class Seeded(Fit):
    """A fit whose random numbers depend on the step alone, as a resumed fit has others."""

    def on_train_batch_start(self, *_: Any) -> None:
        """Seed them."""
        torch.manual_seed(self.trainer.global_step)


def main() -> None:
    """Fit, from a checkpoint if one is named."""
    address, folder, name, epochs, checkpoint = *sys.argv[1:5], (sys.argv[5:] or [None])[0]
    torch.set_num_threads(1)
    module = Seeded()
    saving = ModelCheckpoint(Path(folder) / name, filename="{epoch}", save_top_k=-1)
    with mlrs.connect(address, timeout_s=30.0) as advisor:
        advised = AdvisedLR("task", advisor=advisor, memory=False, id=name, horizon=200)
        fitting = trainer(
            Path(folder),
            advised,
            saving,
            strategy="ddp",
            devices=2,
            max_epochs=int(epochs),
            enable_checkpointing=True,
        )
        fitting.fit(module, batches(shuffle=False), ckpt_path=checkpoint)
    seen = {"used": module.used, "losses": module.losses, "weights": module.weights()}
    (Path(folder) / f"{name}-{fitting.global_rank}.json").write_text(json.dumps(seen))


if __name__ == "__main__":
    main()
