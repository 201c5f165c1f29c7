"""A training on two processes under `torchrun`, for `test_ranks`: each rank writes what it saw to a file."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import torch
from transformers import Trainer

import mlrs
from mlrs.transformers import advised
from tests.client.transformers.trainings import Tokens, arguments, model, watch, weights


def main() -> None:
    """Train, from the checkpoint of a step if one is named."""
    address, folder, *step = sys.argv[1:]
    torch.set_num_threads(1)
    settings = {"ddp_backend": "gloo", "save_strategy": "steps", "save_steps": 6, "num_train_epochs": 5}
    settings["gradient_accumulation_steps"] = 2
    trainer = Trainer(model(), arguments(Path(folder), **settings), train_dataset=Tokens(96))
    used = watch(trainer)
    with mlrs.connect(address, timeout_s=30.0) as advisor:
        advised(trainer, "task", advisor=advisor, memory=False, id="run", horizon=200)
        trainer.train(resume_from_checkpoint=f"{folder}/checkpoint-{step[0]}" if step else None)
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    seen = {"used": used, "losses": losses, "weights": weights(trainer)}
    (Path(folder) / f"{os.environ['RANK']}.json").write_text(json.dumps(seen))


if __name__ == "__main__":
    main()
